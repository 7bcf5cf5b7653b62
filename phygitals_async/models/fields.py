"""The kinds of field the models share: numbers, instants, open enums, and "not in the answer"."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Self

import attrs

# Marks a field that may be null where there is nothing: None where the answer lacks it too, and always written.
NULLABLE: Final = {"nullable": True}

# Marks a list that may be null, which is an empty list to whoever reads it, and written as the null it was.
EMPTY_IF_NULL: Final = {"empty_if_null": True}

# The field of an answer that lists its unreadable rows says by this name in which field the rows are.
ROWS: Final = "rows"

_ZERO: Final = timedelta(0)


def number(_instance: object, attribute: attrs.Attribute[Any], value: Decimal) -> None:
    """Accept a finite Decimal of a size that arithmetic and printing can bear: US dollars, a fraction, a weight."""
    if not (isinstance(value, Decimal) and value.is_finite() and -400 < value.adjusted() < 15):
        msg = f"{attribute.name} must be a finite Decimal below 10**15, and not vanishingly small"
        raise ValueError(msg)


def optional_number(instance: object, attribute: attrs.Attribute[Any], value: Decimal | None) -> None:
    """Accept None, or what `number` accepts."""
    if value is not None:
        number(instance, attribute, value)


def instant(_instance: object, attribute: attrs.Attribute[Any], value: datetime | None) -> None:
    """Accept an aware datetime in UTC."""
    # The identity check is the whole cost for every datetime that came off the wire.
    if value is None or value.tzinfo is UTC:
        return
    if value.utcoffset() != _ZERO:
        msg = f"{attribute.name} must be an aware datetime in UTC"
        raise ValueError(msg)


class OpenEnum(enum.StrEnum):
    """A text enum in which a value the library does not know yet survives with its text.

    Such a value equals its text, but is no singleton: compare with `==`.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value.upper()
        member._value_ = value
        return member


class _Absent(tuple[Any, ...]):
    """An empty tuple that can be told, by identity, from the empty list an answer may hold."""

    __slots__ = ()

    def __reduce__(self) -> str:
        # Copies and pickles refer to the one object by its name.
        return "ABSENT"


class _Null(tuple[Any, ...]):
    """An empty tuple that can be told, by identity, to have been null."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "NULL"


ABSENT: Final = _Absent()
NULL: Final = _Null()

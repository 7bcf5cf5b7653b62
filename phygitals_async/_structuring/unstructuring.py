"""The hooks that write models back as the JSON values the API documents, and what wraps models as well.

What a value is decides how it is written, and not what it is wrapped in.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import attrs
from cattrs import Converter

from phygitals_async.errors import PhygitalsError
from phygitals_async.models.fields import EMPTY_IF_NULL, NULL, NULLABLE
from phygitals_async.models.rows import Rows


def register_unstructure_hooks(converter: Converter) -> None:
    """Make a converter write models."""
    converter.register_unstructure_hook(Decimal, _unstructure_decimal)
    converter.register_unstructure_hook(datetime, _unstructure_datetime)
    # cattrs takes an enum of texts for a text, and would leave its members in the plain values.
    converter.register_unstructure_hook(StrEnum, lambda member: member.value)
    converter.register_unstructure_hook_func(_is_a(Rows), lambda rows: [converter.unstructure(row) for row in rows])
    converter.register_unstructure_hook_func(_is_a(PhygitalsError), lambda error: error.to_dict())
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_attrs)


def _unstructure_attrs(cls: Any, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    """Write every field but the optional ones that hold their default itself: those the answer did not have."""
    attrs.resolve_types(typing.get_origin(cls) or cls)
    fields = [
        (a.name, attrs.NOTHING if a.metadata == NULLABLE else a.default, _unstructure_hook(a, converter))
        for a in attrs.fields(cls)
        # Any other field is made of these.
        if a.init
    ]

    def unstructure(instance: Any) -> dict[str, Any]:
        plain = {}
        for name, default, hook in fields:
            value = getattr(instance, name)
            if value is not default:
                plain[name] = hook(value)
        return plain

    return unstructure


def _unstructure_hook(attribute: attrs.Attribute[Any], converter: Converter) -> Callable[[Any], Any]:
    """Write a field by the hook of its type, or, where that does not tell what its value is, by that of the value."""
    if _says_too_little(attribute.type):
        if attribute.metadata == EMPTY_IF_NULL:
            return lambda value: None if value is NULL else converter.unstructure(value)
        return converter.unstructure
    return converter.get_unstructure_hook(attribute.type)


def _says_too_little(cls: Any) -> bool:
    """Whether values of a type may be written otherwise than the type says: a subclass has fields of its own."""
    if cls in (Any, object, None) or isinstance(cls, typing.TypeVar) or attrs.has(typing.get_origin(cls) or cls):
        return True
    return any(_says_too_little(member) for member in typing.get_args(cls))


def _is_a(base: type) -> Callable[[Any], bool]:
    return lambda cls: isinstance(cls, type) and issubclass(cls, base)


def _unstructure_decimal(value: Decimal) -> float | str:
    """Write a JSON number, or, where a float would lose digits, the numeric string the API also uses."""
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


def _unstructure_datetime(value: datetime) -> str:
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"

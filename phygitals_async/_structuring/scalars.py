"""JSON scalars, strictly: each hook checks the kind of value before it makes anything of it."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from phygitals_async.models.fields import datetime_class

# Every digit is named: as a class of characters, they would be those of all scripts.
JSON_NUMBER: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_is_json_number: Final = re.compile(JSON_NUMBER).fullmatch
# The dates and times of ISO 8601: `fromisoformat` takes any character between the two.
_is_iso_8601: Final = re.compile(
    r"[0-9]{4}-?(?:[0-9]{2}-?[0-9]{2}|W[0-9]{2}(?:-?[0-9])?)[Tt ][0-9][0-9:.,+Zz-]+"
).fullmatch

JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    Decimal: "a number",
    float: "a number",
    type(None): "null",
}


class Mismatch(ValueError):
    """A value of the wrong kind; its text is the explanation shown to the user."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {JSON_NAMES.get(type(value), type(value).__name__)}")


def exact_number(text: str) -> Decimal:
    """Read a JSON number with all its digits."""
    number = _decimal(text)
    if number.is_nan():
        # No Decimal can hold it; where a field asks for a number, it is refused unless a float makes it zero.
        return number if float(text) else Decimal(0)
    return number


def _decimal(text: str | float | Decimal) -> Decimal:
    """Return the exact Decimal, or NaN where none can hold the number, whatever the caller's context traps."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")


def structure_literal(cls: Any) -> Callable[[Any, Any], Any]:
    """Return the hook that takes one of the values of a `Literal`."""
    choices = typing.get_args(cls)

    def structure(value: Any, _: Any) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise Mismatch(" or ".join(map(repr, choices)), value)

    return structure


def structure_str(value: Any, cls: Any) -> Any:
    """Take a string."""
    if type(value) is not str:
        raise Mismatch("a string", value)
    # cattrs uses this hook for subclasses too, such as enums that are strings.
    return value if cls is str else cls(value)


def structure_bool(value: Any, _: Any) -> bool:
    """Take a boolean."""
    if type(value) is not bool:
        raise Mismatch("a boolean", value)
    return value


def structure_int(value: Any, cls: Any) -> Any:
    """Take an integer, and no other number."""
    if type(value) is not int:
        raise Mismatch("an integer", value)
    return value if cls is int else cls(value)


def structure_float(value: Any, cls: Any) -> Any:
    """Take a finite number."""
    if type(value) not in (int, float, Decimal):
        raise Mismatch("a number", value)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        msg = "the number is out of range"
        raise ValueError(msg)
    return result if cls is float else cls(result)


def structure_decimal(value: Any, cls: Any) -> Any:
    """Take a number or a numeric string, with all its digits."""
    if type(value) not in (int, float, str, Decimal):
        raise Mismatch("a number or a numeric string", value)
    if type(value) is str and _is_json_number(value) is None:
        msg = "expected a number or a numeric string, got other text"
        raise ValueError(msg)
    # Another parser's floats stand for the digits they are written with.
    number = _decimal(repr(value) if type(value) is float else value)
    if not number.is_finite():
        msg = "the number is out of range"
        raise ValueError(msg)
    return number if cls is Decimal else cls(number)


def structure_datetime(value: Any, cls: Any) -> Any:
    """Take an ISO 8601 time with its UTC offset, and give it in UTC."""
    if type(value) is not str:
        raise Mismatch("an ISO 8601 time", value)
    plain = datetime_class()
    try:
        moment = _moment(value, plain)
        if moment.tzinfo is not None:
            utc = moment.astimezone(UTC)
            return utc if cls is plain else cls.fromisoformat(utc.isoformat())
        got = "a time without one"
    except (ValueError, OverflowError):
        got = "other text"
    msg = f"expected an ISO 8601 time with its UTC offset, got {got}"
    # Outside the handler: the other errors say less.
    raise ValueError(msg)


def _moment(text: str, plain: type[datetime]) -> datetime:
    try:
        return msgspec.convert(text, plain)
    except msgspec.ValidationError:
        # It knows the usual spelling only, the one of RFC 3339.
        return plain.fromisoformat(text if _is_iso_8601(text) else "")


def structure_any(value: Any, _: Any) -> Any:
    """Keep any JSON value; untyped numbers are floats, as in every JSON decoder."""
    if type(value) is Decimal:
        return structure_float(value, float)
    if type(value) is list:
        return [structure_any(item, Any) for item in value]
    if type(value) is dict:
        return {key: structure_any(item, Any) for key, item in value.items()}
    return value


SCALARS: dict[type, Callable[[Any, Any], Any]] = {
    str: structure_str,
    bool: structure_bool,
    int: structure_int,
    float: structure_float,
}

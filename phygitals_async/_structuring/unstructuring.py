"""The hooks that write models back as the JSON values the API documents."""

from __future__ import annotations

import typing
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
from cattrs import Converter

from phygitals_async.models.fields import NULLABLE, OpenEnum, datetime_class


def register_unstructure_hooks(converter: Converter) -> None:
    """Make a converter write models."""
    converter.register_unstructure_hook(Decimal, _unstructure_decimal)
    converter.register_unstructure_hook(datetime_class(), _unstructure_datetime)
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_attrs)


def _unstructure_attrs(cls: Any, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    """Write every field but the optional ones that hold their default itself: those the answer did not have."""
    attrs.resolve_types(typing.get_origin(cls) or cls)
    fields = [
        (a.name, attrs.NOTHING if a.metadata == NULLABLE else a.default, _unstructure_hook(a.type, converter))
        for a in attrs.fields(cls)
    ]

    def unstructure(instance: Any) -> dict[str, Any]:
        plain = {}
        for name, default, hook in fields:
            value = getattr(instance, name)
            if value is not default:
                plain[name] = hook(value)
        return plain

    return unstructure


def _unstructure_hook(cls: Any, converter: Converter) -> Callable[[Any], Any]:
    # cattrs takes an enum of texts for a text, and would leave its members in the plain values.
    if any(isinstance(member, type) and issubclass(member, OpenEnum) for member in (cls, *typing.get_args(cls))):
        return lambda value: value.value if isinstance(value, OpenEnum) else value
    return converter.get_unstructure_hook(cls)


def _unstructure_decimal(value: Decimal) -> float | str:
    """Write a JSON number, or, where a float would lose digits, the numeric string the API also uses."""
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


def _unstructure_datetime(value: datetime) -> str:
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"

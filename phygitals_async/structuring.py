"""The hooks that structure JSON values strictly, and write models back.

Every hook checks before it builds: a wrong type is an error with its path and never a coercion.
"""

from __future__ import annotations

import collections.abc
import math
import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

import attrs
import msgspec
from attrs import frozen
from cattrs import Converter, transform_error
from cattrs.cols import homogenous_tuple_structure_factory, list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_mapping_structure_fn

from phygitals_async.models.fields import instant

_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    Decimal: "a number",
    float: "a number",
    type(None): "null",
}


_LOOSE = (
    list,
    tuple,
    set,
    frozenset,
    dict,
    bytearray,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Set,
    collections.abc.MutableSet,
    collections.abc.Mapping,
    collections.abc.MutableMapping,
    collections.abc.Iterable,
)


class _Mismatch(ValueError):
    """A value of the wrong kind; its text is the explanation shown to the user."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {_JSON_NAMES.get(type(value), type(value).__name__)}")


@frozen
class _Native:
    """A structure hook that agrees with what msgspec does natively for the same type.

    `needs` is the validator without which msgspec alone would take more than the hook does.
    """

    structure: Callable[[Any, Any], Any]
    needs: Callable[..., None] | None = None

    def __call__(self, value: Any, cls: Any) -> Any:
        return self.structure(value, cls)


def register_hooks(converter: Converter) -> None:
    """Make a converter structure JSON values and write models."""
    for cls, hook in _SCALARS.items():
        converter.register_structure_hook(cls, _Native(hook, instant if cls is datetime else None))
    converter.register_structure_hook(bytes, _refuse)
    converter.register_structure_hook_func(_is_loose, _refuse)
    converter.register_structure_hook_factory(_is_literal, _structure_literal)
    converter.register_structure_hook_func(lambda cls: cls is Any, _Native(_any))
    converter.register_structure_hook_factory(_is_enum, _structure_enum)
    converter.register_structure_hook_factory(is_union, _structure_union)
    converter.register_structure_hook_factory(_is_sequence, _structure_sequence)
    converter.register_structure_hook_factory(_is_object, _structure_object)
    converter.register_structure_hook_factory(attrs.has, _structure_attrs)
    converter.register_unstructure_hook(Decimal, _unstructure_decimal)
    converter.register_unstructure_hook(datetime, _unstructure_datetime)
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_attrs)


def exact_number(text: str) -> Decimal:
    """Read a JSON number with all its digits."""
    try:
        return Decimal(text)
    except InvalidOperation:
        # No type can hold it; where a field asks for a number, this is refused.
        return Decimal("NaN")


def is_native(hook: Any, validator: Any = None) -> bool:
    """Whether msgspec may stand in for a hook, on a field with this validator."""
    return isinstance(hook, _Native) and hook.needs in (None, validator)


def _like(hook: Callable[[Any, Any], Any], *inner: Any) -> Callable[[Any, Any], Any]:
    """Mark a hook that is made of others as native, if they all are."""
    if not all(isinstance(part, _Native) for part in inner):
        return hook
    return _Native(hook, next((part.needs for part in inner if part.needs is not None), None))


def _is_loose(cls: Any) -> bool:
    """Whether cattrs would coerce into the type: a collection or bytes out of any iterable."""
    return (typing.get_origin(cls) or cls) in _LOOSE


def _refuse(_: Any, cls: Any) -> Any:
    msg = f"register a structure hook for {cls}: unasked, it would be made of anything"
    raise TypeError(msg)


def _is_literal(cls: Any) -> bool:
    return typing.get_origin(cls) is typing.Literal


def _structure_literal(cls: Any) -> Callable[[Any, Any], Any]:
    choices = typing.get_args(cls)

    def structure(value: Any, _: Any) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise _Mismatch(" or ".join(map(repr, choices)), value)

    return structure


def _str(value: Any, cls: Any) -> Any:
    if type(value) is not str:
        raise _Mismatch("a string", value)
    # cattrs uses this hook for subclasses too, such as enums that are strings.
    return value if cls is str else cls(value)


def _bool(value: Any, _: Any) -> bool:
    if type(value) is not bool:
        raise _Mismatch("a boolean", value)
    return value


def _int(value: Any, cls: Any) -> Any:
    if type(value) is not int:
        raise _Mismatch("an integer", value)
    return value if cls is int else cls(value)


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float, Decimal):
        raise _Mismatch("a number", value)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        msg = "the number is out of range"
        raise ValueError(msg)
    return result


def _decimal(value: Any, _: Any) -> Decimal:
    if type(value) not in (int, float, str, Decimal):
        raise _Mismatch("a number or a numeric string", value)
    try:
        # Another parser's floats stand for the digits they are written with.
        number = Decimal(repr(value) if type(value) is float else value)
    except InvalidOperation:
        msg = "expected a number or a numeric string, got other text"
        raise ValueError(msg) from None
    if type(value) is not str and not number.is_finite():
        msg = "the number is out of range"
        raise ValueError(msg)
    return number


def _datetime(value: Any, _: Any) -> datetime:
    if type(value) is not str:
        raise _Mismatch("an ISO 8601 time", value)
    try:
        moment = msgspec.convert(value, datetime)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        pass
    msg = "expected an ISO 8601 time with its UTC offset, got other text"
    raise ValueError(msg)


def _any(value: Any, _: Any) -> Any:
    """Keep any JSON value; untyped numbers are floats, as in every JSON decoder."""
    if type(value) is Decimal:
        return _float(value, float)
    if type(value) is list:
        return [_any(item, Any) for item in value]
    if type(value) is dict:
        return {key: _any(item, Any) for key, item in value.items()}
    return value


_SCALARS: dict[type, Callable[[Any, Any], Any]] = {
    str: _str,
    bool: _bool,
    int: _int,
    float: _float,
    Decimal: _decimal,
    datetime: _datetime,
}


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Enum)


def _structure_enum(_: Any) -> _Native:
    def structure(value: Any, cls: Any) -> Any:
        if type(value) is not str:
            raise _Mismatch("a string", value)
        return cls(value)

    return _Native(structure)


def is_union(cls: Any) -> bool:
    """Whether a type is a union, in either spelling."""
    return typing.get_origin(cls) in (typing.Union, types.UnionType)


def _structure_union(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """Structure `X | None`, or a union of JSON scalars of different kinds."""
    members = [member for member in typing.get_args(cls) if member is not type(None)]
    nullable = len(members) < len(typing.get_args(cls))
    if len(members) == 1:
        (only,) = members
        inner = converter.get_structure_hook(only)
        return _like(lambda value, _: None if value is None else inner(value, only), inner)
    if not set(members) <= {str, bool, int, float}:
        msg = f"register a structure hook for {cls}: only unions of JSON scalars are structured unasked"
        raise TypeError(msg)
    expected = " or ".join(_JSON_NAMES[member] for member in members)
    hooks = {member: converter.get_structure_hook(member) for member in members}

    def scalar(value: Any, _: Any) -> Any:
        if value is None and nullable:
            return None
        member = type(value) if type(value) in hooks else float
        if member in hooks and (member is not float or type(value) in (int, float, Decimal)):
            return hooks[member](value, member)
        raise _Mismatch(expected, value)

    return _like(scalar, *hooks.values())


def _is_sequence(cls: Any) -> bool:
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    return origin is list or (origin is tuple and len(args) == 2 and args[1] is ...)


def _structure_sequence(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    factory = list_structure_factory if typing.get_origin(cls) is list else homogenous_tuple_structure_factory
    inner = factory(cls, converter)

    def structure(value: Any, cl: Any) -> Any:
        if type(value) is not list:
            raise _Mismatch("an array", value)
        return inner(value, cl)

    return _like(structure, converter.get_structure_hook(typing.get_args(cls)[0]))


def _is_object(cls: Any) -> bool:
    return typing.get_origin(cls) is dict and typing.get_args(cls)[0] is str


def _structure_object(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    inner = make_mapping_structure_fn(cls, converter)

    def structure(value: Any, cl: Any) -> Any:
        if type(value) is not dict:
            raise _Mismatch("an object", value)
        return inner(value, cl)

    return _like(structure, converter.get_structure_hook(typing.get_args(cls)[1]))


def _structure_attrs(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    attrs.resolve_types(cls)
    inner = make_dict_structure_fn(cls, converter, _cattrs_detailed_validation=True)

    def structure(value: Any, cl: Any) -> Any:
        if type(value) is not dict:
            raise _Mismatch("an object", value)
        return inner(value, cl)

    # msgspec fills fields by their names: it runs no attrs converters, no __init__ but attrs' own, and no default
    # that is made from the instance.
    native = cls.__init__.__code__.co_filename.startswith("<attrs generated") and all(
        a.init and a.alias == a.name and a.converter is None and not getattr(a.default, "takes_self", False)
        and is_native(converter.get_structure_hook(a.type), a.validator)
        for a in attrs.fields(cls)
    )  # fmt: skip
    return _Native(structure) if native and not hasattr(cls, "__attrs_pre_init__") else structure


def _unstructure_attrs(cls: Any, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    """Write every field but those the answer did not have, which hold their default itself."""
    attrs.resolve_types(cls)
    fields = [(a.name, a.default, converter.get_unstructure_hook(a.type)) for a in attrs.fields(cls)]

    def unstructure(instance: Any) -> dict[str, Any]:
        plain = {}
        for name, default, hook in fields:
            value = getattr(instance, name)
            if value is not default:
                plain[name] = hook(value)
        return plain

    return unstructure


def _unstructure_decimal(value: Decimal) -> float | str:
    """Write a JSON number, or, where a float would lose digits, the numeric string the API also uses."""
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


def _unstructure_datetime(value: datetime) -> str:
    precision = "microseconds" if value.microsecond % 1000 else "milliseconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def type_name(cls: Any) -> str:
    """Name what was expected: a class, an array of them, or either or null."""
    inner = [type_name(member) for member in typing.get_args(cls) if member not in (..., type(None))]
    if not inner:
        return str(getattr(cls, "__name__", cls))
    return f"array of {inner[0]}" if _is_sequence(cls) else " or ".join(inner)


def problems_of(error: BaseException) -> list[str]:
    """Return one line for every bad place, as `path: what is wrong`."""
    lines = transform_error(error, format_exception=_describe)
    return [f"{path}: {text}" for text, _, path in (line.rpartition(" @ ") for line in lines)]


def _describe(error: BaseException, _: Any) -> str:
    return "missing" if isinstance(error, KeyError) else str(error)

"""The hooks that structure JSON values strictly, and write models back.

Every hook checks before it builds: a wrong type is an error with its path and never a coercion.
"""

from __future__ import annotations

import collections
import collections.abc
import types
import typing
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import attrs
from attrs import frozen
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from phygitals_async._structuring.problems import build_members
from phygitals_async._structuring.scalars import (
    JSON_NAMES,
    SCALARS,
    Mismatch,
    structure_datetime,
    structure_decimal,
    structure_literal,
)
from phygitals_async._structuring.texts import check_text, structure_anything, structure_text
from phygitals_async._structuring.unstructuring import register_unstructure_hooks
from phygitals_async.models.fields import EMPTY_IF_NULL, NULL, instant, number, optional_number

_LOOSE = (
    list,
    tuple,
    set,
    frozenset,
    dict,
    bytearray,
    collections.deque,
    collections.OrderedDict,
    collections.defaultdict,
    collections.Counter,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Set,
    collections.abc.MutableSet,
    collections.abc.Mapping,
    collections.abc.MutableMapping,
    collections.abc.Iterable,
)


# The classes whose hooks are being made: one that holds itself must not go round in circles.
_in_the_making: ContextVar[frozenset[Any]] = ContextVar("in_the_making", default=frozenset())


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
    for cls, hook in SCALARS.items():
        converter.register_structure_hook(cls, _Native(structure_text if cls is str else hook))
    # By predicate, as cattrs does with its own: so that a predicate registered later takes precedence.
    converter.register_structure_hook_factory(_is_a(Decimal), lambda cls: _native_if(cls is Decimal, structure_decimal))
    converter.register_structure_hook_factory(
        _is_a(datetime), lambda cls: _native_if(cls is datetime, structure_datetime, instant)
    )
    converter.register_structure_hook(bytes, _refuse)
    converter.register_structure_hook_func(_is_loose, _refuse)
    converter.register_structure_hook_factory(_is_literal, structure_literal)
    converter.register_structure_hook_func(lambda cls: cls is Any, _Native(structure_anything))
    converter.register_structure_hook_factory(_is_enum, _structure_enum)
    converter.register_structure_hook_factory(is_union, _structure_union)
    converter.register_structure_hook_factory(is_sequence, _structure_sequence)
    converter.register_structure_hook_factory(_is_object, _structure_object)
    converter.register_structure_hook_factory(attrs.has, _structure_attrs)
    register_unstructure_hooks(converter)


def _is_a(base: type) -> Callable[[Any], bool]:
    return lambda cls: isinstance(cls, type) and issubclass(cls, base)


def _native_if(native: bool, hook: Callable[[Any, Any], Any], needs: Callable[..., None] | None = None) -> Any:
    return _Native(hook, needs) if native else hook


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


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Enum)


def _structure_enum(_: Any) -> _Native:
    def structure(value: Any, cls: Any) -> Any:
        if type(value) is not str:
            raise Mismatch("a string", value)
        check_text(value)
        return cls(value)

    return _Native(structure)


def is_union(cls: Any) -> bool:
    """Whether a type is a union, in either spelling."""
    return typing.get_origin(cls) in (typing.Union, types.UnionType)


def _structure_union(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    """Structure `X | None`, or a union of JSON scalars of different kinds."""
    members = [member for member in typing.get_args(cls) if member is not type(None)]
    if len(members) < len(typing.get_args(cls)):
        # A hook for the rest is honoured, whether that is a type or a union.
        rest: Any = typing.Union[tuple(members)]  # noqa: UP007 - they are known at run time only.
        inner = converter.get_structure_hook(rest)
        return _like(lambda value, _: None if value is None else inner(value, rest), inner)
    if not set(members) <= {str, bool, int, float}:
        msg = f"register a structure hook for {cls}: only unions of JSON scalars are structured unasked"
        raise TypeError(msg)
    expected = " or ".join(JSON_NAMES[member] for member in members)
    hooks = {member: converter.get_structure_hook(member) for member in members}

    def scalar(value: Any, _: Any) -> Any:
        member = type(value) if type(value) in hooks else float
        if member in hooks and (member is not float or type(value) in (int, float, Decimal)):
            return hooks[member](value, member)
        raise Mismatch(expected, value)

    return _like(scalar, *hooks.values())


def is_sequence(cls: Any) -> bool:
    """Whether a type is a list, or a tuple of any length."""
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    return origin is list or (origin is tuple and len(args) == 2 and args[1] is ...)


def _structure_sequence(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    make: type = typing.get_origin(cls)
    member = typing.get_args(cls)[0]
    inner = converter.get_structure_hook(member)

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not list:
            raise Mismatch("an array", value)
        return make(build_members(cls, member, inner, enumerate(value)).values())

    return _like(structure, inner)


def _is_object(cls: Any) -> bool:
    return typing.get_origin(cls) is dict and typing.get_args(cls)[0] is str


def _structure_object(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    member = typing.get_args(cls)[1]
    inner = converter.get_structure_hook(member)

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch("an object", value)
        for name in value:
            check_text(name)
        return build_members(cls, member, inner, value.items())

    return _like(structure, inner)


def _structure_attrs(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    if cls in _in_the_making.get():
        return lambda value, cl: converter.structure(value, cl)
    token = _in_the_making.set(_in_the_making.get() | {cls})
    try:
        return _make_attrs_hook(cls, converter)
    finally:
        _in_the_making.reset(token)


def _make_attrs_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    base = typing.get_origin(cls) or cls
    attrs.resolve_types(base)
    checks: dict[str, Any] = {
        a.name: override(struct_hook=_checked(a, converter) if a.validator in _CHECKS else _empty_if_null(a, converter))
        for a in attrs.fields(base)
        if a.validator in _CHECKS or a.metadata == EMPTY_IF_NULL
    }
    inner = make_dict_structure_fn(cls, converter, _cattrs_detailed_validation=True, **checks)

    def structure(value: Any, cl: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch("an object", value)
        return inner(value, cl)

    return _Native(structure) if base is cls and _is_filled_by_name(cls, converter) else structure


def _checked(attribute: attrs.Attribute[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    """Structure a field and check its range there and then, so that the error names it and hides no other."""
    hook = converter.get_structure_hook(attribute.type)
    check: Any = attribute.validator

    def structure(value: Any, cls: Any) -> Any:
        result = hook(value, cls)
        check(None, attribute, result)
        return result

    return structure


def _empty_if_null(attribute: attrs.Attribute[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    """Structure a list that may be null, which msgspec leaves to this hook."""
    hook = converter.get_structure_hook(attribute.type)
    return lambda value, cls: NULL if value is None else hook(value, cls)


_CHECKS = (number, optional_number, instant)


def _is_filled_by_name(cls: Any, converter: Converter) -> bool:
    """Whether msgspec may build the class.

    It fills fields by their names: it runs no attrs converters, no `__new__` or `__init__` but the usual ones, and no
    default that is made from the instance.
    """
    return (
        cls.__init__.__code__.co_filename.startswith("<attrs generated")
        and cls.__new__ is object.__new__
        and not hasattr(cls, "__attrs_pre_init__")
        and all(
            a.init
            and a.alias == a.name
            and a.converter is None
            and not getattr(a.default, "takes_self", False)
            and is_native(converter.get_structure_hook(a.type), a.validator)
            for a in attrs.fields(cls)
        )
    )


def type_name(cls: Any) -> str:
    """Name what was expected: a class, an array of them, or either or null."""
    inner = [type_name(member) for member in typing.get_args(cls) if member not in (..., type(None))]
    if not inner:
        return str(getattr(cls, "__name__", cls))
    return f"array of {inner[0]}" if is_sequence(cls) else " or ".join(inner)

"""What kind of type an annotation names."""

from __future__ import annotations

import collections
import collections.abc
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

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


def is_a(base: type) -> Callable[[Any], bool]:
    """Return what tells whether a type is `base` or a subclass."""
    return lambda cls: isinstance(cls, type) and issubclass(cls, base)


def is_loose(cls: Any) -> bool:
    """Whether cattrs would coerce into the type: a collection or bytes out of any iterable."""
    return (typing.get_origin(cls) or cls) in _LOOSE


def is_literal(cls: Any) -> bool:
    """Whether a type is a choice of values."""
    return typing.get_origin(cls) is typing.Literal


def is_enum(cls: Any) -> bool:
    """Whether a type is an enum."""
    return isinstance(cls, type) and issubclass(cls, Enum)


def is_union(cls: Any) -> bool:
    """Whether a type is a union, in either spelling."""
    return typing.get_origin(cls) in (typing.Union, types.UnionType)


def is_sequence(cls: Any) -> bool:
    """Whether a type is a list, or a tuple of any length."""
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    return origin is list or (origin is tuple and len(args) == 2 and args[1] is ...)


def is_object(cls: Any) -> bool:
    """Whether a type is a mapping of texts, as a JSON object is."""
    return typing.get_origin(cls) is dict and typing.get_args(cls)[0] is str


def type_name(cls: Any) -> str:
    """Name what was expected: a class, an array of them, or either or null."""
    inner = [type_name(member) for member in typing.get_args(cls) if member not in (..., type(None))]
    if not inner:
        return str(getattr(cls, "__name__", cls))
    return f"array of {inner[0]}" if is_sequence(cls) else " or ".join(inner)

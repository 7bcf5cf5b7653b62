"""What the tests of the converter share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NewType

import attrs
import pytest

from phygitals_async import (
    DecodeError,
    build_converter,
)
from support import fixture_bytes

CONVERTER = build_converter()
INVENTORY = fixture_bytes("inventory.json")

UserId = NewType("UserId", str)


def class_with(kind: Any) -> Any:
    """Return an attrs class with one field of that type, as a user would declare it."""
    return attrs.make_class("Holder", {"value": attrs.field(type=kind)}, frozen=True)


def with_nulls(plain: Any) -> Any:
    """Return a documented answer with the nulls that items always have where an example leaves a field out."""
    if isinstance(plain, list):
        return [with_nulls(member) for member in plain]
    if not isinstance(plain, dict):
        return plain
    nulls = ("type", "mint_address", "collection_address", "token_standard") if "content" in plain else ()
    return {**dict.fromkeys(nulls), **{name: with_nulls(value) for name, value in plain.items()}}


def problems_told(load: Callable[[bytes, Any], object], data: bytes, cls: Any) -> tuple[str, ...]:
    """Load what cannot be loaded, and return the problems that the error tells of."""
    with pytest.raises(DecodeError) as caught:
        load(data, cls)
    assert caught.value.status is None
    return caught.value.problems


def outcome_of(load: Callable[[bytes, Any], object], data: bytes, cls: Any) -> tuple[str, object]:
    """Return what comes of loading, to be compared."""
    try:
        value = load(data, cls)
    except DecodeError as error:
        return "refused", error.problems
    # The repr tells 1 from 1.0 and from True, and one zone from another.
    return "taken", repr(value)

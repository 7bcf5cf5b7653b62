"""What the tests of the converter share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NewType

import attrs
import pytest
from hypothesis import strategies as st

from phygitals_async import (
    DecodeError,
    build_converter,
)
from support import fixture_bytes

CONVERTER = build_converter()
INVENTORY = fixture_bytes("inventory.json")

UserId = NewType("UserId", str)

# Answers as the API sheet has them, as plain values.
TEXT = st.text(max_size=6)
_URL = st.one_of(TEXT, st.just("https://cdn.phygitals.com/cards/soto.png"))
_MAYBE_TEXT = st.one_of(st.none(), TEXT)
_TIMES = st.one_of(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda moment: moment.replace(tzinfo=None).isoformat() + "Z"
    ),
    st.sampled_from(["2026-04-18T19:05:14.000Z", "2026-04-18T21:05:14+02:00", "2026-04-18 19:05:14.123456789Z"]),
)
_PRICES = st.one_of(
    st.integers(-(10**14), 10**14),
    st.floats(-1e14, 1e14, allow_subnormal=False),
    st.decimals(-(10**14), 10**14, places=2).map(str),
)
_ATTRIBUTES = st.lists(
    st.fixed_dictionaries(
        {
            "trait_type": TEXT,
            "value": st.one_of(st.none(), TEXT, st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
        }
    ),
    max_size=2,
)
_LINKS = st.fixed_dictionaries({"image": _URL, "back_image": _MAYBE_TEXT})
_METADATA = st.fixed_dictionaries(
    {"name": TEXT, "image": st.one_of(st.none(), _URL), "back_image": _MAYBE_TEXT},
    optional={"attributes": st.one_of(st.none(), _ATTRIBUTES), "description": TEXT},
)
_ITEMS = st.fixed_dictionaries(
    {
        "id": TEXT,
        "claw_id": TEXT,
        "claw_slug": _MAYBE_TEXT,
        "buyback_price": _PRICES,
        "mint_address": _MAYBE_TEXT,
        "purchased_at": _TIMES,
        "buyback_expires_at": st.one_of(st.none(), _TIMES),
        "content": st.fixed_dictionaries({"metadata": _METADATA}, optional={"links": _LINKS}),
    },
    optional={
        "type": st.one_of(_MAYBE_TEXT, st.sampled_from(["ebay", "comic"])),
        "collection_address": _MAYBE_TEXT,
        "token_standard": _MAYBE_TEXT,
    },
)
INVENTORIES = st.fixed_dictionaries({"user_id": TEXT, "items": st.lists(_ITEMS, max_size=2)})


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

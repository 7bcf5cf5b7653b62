"""The fast path through msgspec and the explaining path through cattrs agree on everything."""

from __future__ import annotations

import copy
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from phygitals_async import (
    Attribute,
    Content,
    Inventory,
    Item,
    ItemSource,
)
from structuring_support import CONVERTER, INVENTORIES, INVENTORY, TEXT, class_with, outcome_of

_ODD_TEXTS = [
    "NaN",
    "1_0",
    " 1 ",
    "٣",
    "1e999",
    "2026-04-18T19:05:14",
    "2026-04-18T21:05:14+02:00",
    "2026-04-18",
    "0001-01-01T00:00:00+23:00",
]
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**310),
    _FLOATS,
    TEXT,
    st.sampled_from(_ODD_TEXTS),
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)),
    max_leaves=4,
)


def _places(plain: Any) -> list[tuple[Any, Any]]:
    """List every (container, key) in a document."""
    if isinstance(plain, dict):
        keys: list[Any] = list(plain)
    elif isinstance(plain, list):
        keys = list(range(len(plain)))
    else:
        return []
    return [place for key in keys for place in ((plain, key), *_places(plain[key]))]


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    """Draw an inventory with some values replaced, removed, renamed or added."""
    plain = draw(INVENTORIES)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(plain)
        if not places:
            break
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "delete", "rename", "add", "repeat"])):
            case "replace":
                parent[key] = draw(_JSON)
            case "delete":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(TEXT)] = parent.pop(key)
            case "repeat" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case _ if isinstance(parent, dict):
                parent[draw(TEXT)] = draw(_JSON)
            case _:
                parent.append(draw(_JSON))
    return json.dumps(plain, ensure_ascii=draw(st.booleans())).encode()


_TOKENS = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(
        b'" \\ { } [ ] , : null true 0 - -0 . e 1.0 1e5 NaN 1e400 1e99999999999999999999 \xff /**/'.split()
    ),
    st.sampled_from(
        b'"\\ud800" "\\ud83d\\ude00" "\xed\xa0\x80" "x":1, "x":"\xff", "x":1e99999999999999999999,'.split()
    ),
    st.sampled_from([b"\x00", b"\xef\xbb\xbf", b"\n", b"1" * 400]),
)


@st.composite
def _spliced(draw: st.DrawFn) -> bytes:
    """Draw the documented inventory with bytes replaced by others."""
    data = INVENTORY
    for _ in range(draw(st.integers(1, 2))):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(_TOKENS) + data[start + draw(st.integers(0, 12)) :]
    return data


@settings(max_examples=150)
@given(INVENTORIES)
def test_any_documented_inventory_is_taken_alike_by_both_paths(plain: dict[str, Any]) -> None:
    """Whatever the documents allow is an inventory, and reads back from what is written of it."""
    body = json.dumps(plain).encode()
    inventory = CONVERTER.loads(body, Inventory)
    assert outcome_of(CONVERTER._explain, body, Inventory) == ("taken", repr(inventory))
    assert CONVERTER.loads(CONVERTER.dumps(inventory), Inventory) == inventory
    written = CONVERTER.unstructure(inventory)
    assert [item.keys() for item in written["items"]] == [item.keys() for item in _ordered(plain["items"])]


def _ordered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [field.name for field in attrs.fields(Item)]
    return [{name: item.get(name) for name in names} for item in items]


@settings(max_examples=300)
@given(_broken())
def test_a_broken_inventory_is_judged_alike_by_both_paths(data: bytes) -> None:
    """Both take it as the same value, or both refuse it for the same reasons."""
    assert outcome_of(CONVERTER.loads, data, Inventory) == outcome_of(CONVERTER._explain, data, Inventory)


@settings(max_examples=400)
@example(INVENTORY.replace(b"8.50", b"1e99999999999999999999"))
@example(INVENTORY.replace(b"8.50", b'8.50, "x": 1e99999999999999999999'))
@example(INVENTORY.replace(b"8.50", b'"x", "x": 1e99999999999999999999'))
@example(INVENTORY.replace(b"8.50", b'8.50, "x": "\xff"'))
@example(INVENTORY.replace(b"8.50", b'8.50, "\xed\xa0\x80": 1'))
@example(INVENTORY.replace(b"8.50", b'8.50, "x": "\\ud800"'))
@example(INVENTORY + b"\x00")
@given(_spliced())
def test_spliced_bytes_are_judged_alike_by_both_paths(data: bytes) -> None:
    """Whatever the network makes of an answer, the fast path takes nothing that the other one refuses."""
    assert outcome_of(CONVERTER.loads, data, Inventory) == outcome_of(CONVERTER._explain, data, Inventory)


@settings(max_examples=200)
@given(st.binary(max_size=40), st.sampled_from([Inventory, Item, Content, Attribute, list[str], Decimal, datetime]))
def test_arbitrary_bytes_are_a_value_or_a_decode_error(data: bytes, cls: Any) -> None:
    """No bytes make the converter raise anything else."""
    assert outcome_of(CONVERTER.loads, data, cls) == outcome_of(CONVERTER._explain, data, cls)


@given(_JSON, st.sampled_from([str, bool, int, float, Decimal, datetime, ItemSource, str | int | float, list[int]]))
def test_any_value_of_any_type_is_judged_alike_by_both_paths(value: object, kind: Any) -> None:
    """The paths agree field type by field type, in a user's class without validators too."""
    assume(value is not None)
    body, holder = json.dumps({"value": value}).encode(), class_with(kind)
    assert outcome_of(CONVERTER.loads, body, holder) == outcome_of(CONVERTER._explain, body, holder)

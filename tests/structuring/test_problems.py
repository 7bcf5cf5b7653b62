"""How much is told of what is wrong with an answer, and how exactly."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from phygitals_async import (
    DecodeError,
    Inventory,
    Pack,
    build_converter,
)
from structuring_support import CONVERTER


def test_a_literal_is_one_of_its_values() -> None:
    """The value itself is taken, and `True` is not taken for 1."""
    kind = typing.cast("type[Any]", typing.Literal["a", 1])
    assert [CONVERTER.loads(b'"a"', kind), CONVERTER.loads(b"1", kind)] == ["a", 1]
    with pytest.raises(DecodeError):
        CONVERTER.loads(b"true", kind)


# How much is told of what is wrong


def test_a_body_full_of_bad_items_is_described_up_to_a_bound() -> None:
    """A hostile body of a few hundred kilobytes must not take a gigabyte to explain."""
    body = b'{"user_id":"u","items":[' + b",".join([b"{}"] * 20_000) + b"]}"
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(body, Inventory)
    problems = caught.value.problems
    assert len(problems) <= 10_001
    assert problems[0] == "$.items[0].id: missing"
    assert "more" in problems[-1]


def test_so_many_bad_places_that_the_rest_is_not_looked_at() -> None:
    """The list says so where it stops, and is complete up to there."""
    body = b'{"user_id":7,"items":[' + b",".join([b"null"] * 5_001) + b"]}"
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(body, Inventory)
    assert "$.items: so many places are bad that the rest was not looked at" in caught.value.problems
    assert "$.items[4999]: expected an object, got null" in caught.value.problems
    assert "$.user_id: expected a string, got an integer" in caught.value.problems


def test_one_item_full_of_bad_places_is_described() -> None:
    """Where the bound is met inside an item, what was described of it is not thrown away."""
    attributes = ",".join(['{"trait_type":"a","value":[]}'] * 6_000)
    item = '{"id":7,"content":{"metadata":{"name":"n","image":"i","attributes":[' + attributes + "]}}}"
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(b'{"user_id":"u","items":[%s]}' % item.encode(), Inventory)
    assert "$.items[0].id: expected a string, got an integer" in caught.value.problems
    assert len(caught.value.problems) > 5_000


def test_each_number_out_of_range_is_named() -> None:
    """A range is checked field by field: one that is exceeded hides no other."""
    body = b'[{"id":"p","name":"n","enable":true,"in_stock":true,"max_per_mint":"x","mint_price":1e20,"ev":1e20}]'
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(body, tuple[Pack, ...])
    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == [
        "$[0].ev",
        "$[0].max_per_mint",
        "$[0].mint_price",
    ]


def test_a_place_whose_name_looks_like_a_path_is_told_right() -> None:
    """Names in the vendor's objects may be anything."""
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(b'{"a @ $b": 1e999}', dict[str, float])
    assert caught.value.problems == ("$['a @ $b']: the number is out of range",)

"""Which bodies the fast path must not take: those with a text for money that is no number as JSON writes one."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import attrs
import pytest

from phygitals_async import DecodeError, Inventory, Pull, Sellback
from phygitals_async._structuring.number_texts import finder_of_odd_numbers
from phygitals_async.models import Links
from structuring_support import CONVERTER, INVENTORY, class_with
from support import fixture_bytes

_ONE: Any = class_with(Decimal | None)
_MANY: Any = tuple[_ONE, ...]


def test_ordinary_answers_take_the_fast_path() -> None:
    """Numbers, and texts that hold one as JSON writes it, are nothing odd; nor are other texts of the same name."""
    assert not finder_of_odd_numbers(Inventory)(INVENTORY)
    assert not finder_of_odd_numbers(Inventory)(INVENTORY.replace(b"8.50", b'"8.50"'))
    pulls = fixture_bytes("packs-recent-pulls.json")
    assert b'"value": "' in pulls
    assert not finder_of_odd_numbers(tuple[Pull, ...])(pulls)
    assert not finder_of_odd_numbers(Links)(b'{"image": "1_0"}')


def test_a_letter_that_is_escaped_takes_the_fast_path() -> None:
    """Serializers escape letters beyond ASCII, and those of HTML; neither hides the name of a field."""
    body = INVENTORY.replace(b"Juan", rb"Jos\u00e9 \u0026 Juan")
    assert not finder_of_odd_numbers(Inventory)(body)
    assert CONVERTER.loads(body, Inventory).items[0].name == "José & Juan Soto RC Auto /25"


@pytest.mark.parametrize(
    "field",
    [
        '"buyback_price": "1_0"',
        '"buyback_price":"1_0"',
        '"buyback_price"\n:\t " 12 "',
        r'"buyback_price": "\u0031_0"',
        r'"buyback\u005fprice": "1_0"',
        r'"\u0062uyback_price": "1_0"',
        '"bu\\u0079back_price": "\uff11\uff12"',
    ],
)
def test_however_it_is_spelt_it_is_refused(field: str) -> None:
    """JSON leaves spaces and escapes free."""
    body = INVENTORY.replace(b'"buyback_price": 8.50', field.encode())
    assert body != INVENTORY
    assert finder_of_odd_numbers(Inventory)(body)
    with pytest.raises(DecodeError) as caught:
        CONVERTER.loads(body, Inventory)
    assert caught.value.problems == ("$.items[0].buyback_price: expected a number or a numeric string, got other text",)


@pytest.mark.parametrize(
    ("cls", "value"),
    [
        (Decimal, "1_0"),
        (list[Decimal], ["1_0"]),
        (tuple[Decimal | None, ...], [None, "1_0"]),
        (dict[str, Decimal], {"a": "1_0"}),
        (class_with(list[Decimal]), {"value": ["1_0"]}),
        (class_with(dict[str, Decimal]), {"value": {"a": "1_0"}}),
        (class_with(class_with(Decimal)), {"value": {"value": "1_0"}}),
        (class_with(_MANY), {"value": [{"value": "1_0"}]}),
        (tuple[Sellback, ...], [{"success": True, "amount": "1_0"}]),
    ],
)
def test_wherever_it_stands_it_is_refused(cls: Any, value: object) -> None:
    """A name goes before a number, or none does."""
    with pytest.raises(DecodeError) as caught:
        CONVERTER.loads(json.dumps(value).encode(), cls)
    assert len(caught.value.problems) == 1
    assert "got other text" in caught.value.problems[0]


@attrs.frozen
class _Tree:
    price: Decimal
    below: _Tree | None = None


def test_a_class_that_holds_itself() -> None:
    """It is looked through once."""
    attrs.resolve_types(_Tree)
    body = b'{"price": 1, "below": {"price": 2, "below": {"price": "1_0"}}}'
    assert finder_of_odd_numbers(_Tree)(body)
    assert not finder_of_odd_numbers(_Tree)(body.replace(b"1_0", b"10"))

"""Money is the same in every decimal context that an application may have set."""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from typing import Any, Final

import pytest

from phygitals_async import Inventory, Pack, RarityTier, Sandbox, Sellback, build_converter
from phygitals_async.sandbox import SandboxOptions
from phygitals_async.sandbox.population import populate
from sandbox_support import ask

CONTEXTS: Final[dict[str, Context]] = {
    "few digits": Context(prec=6),
    "one digit": Context(prec=1, rounding=decimal.ROUND_UP),
    "traps": Context(traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation, decimal.Subnormal]),
    "small exponents": Context(Emax=1, Emin=-1),
    "clamped": Context(prec=3, Emax=2, Emin=-2, clamp=1, capitals=0),
    "no traps": Context(prec=4, traps=[]),
}
NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)


@contextmanager
def _other_default(context: Context) -> Iterator[None]:
    """Change what contexts are made from, as a program may at its start."""
    names = ("prec", "rounding", "Emax", "Emin", "capitals", "clamp")
    before = {name: getattr(decimal.DefaultContext, name) for name in names}
    traps = dict(decimal.DefaultContext.traps)
    try:
        for name in names:
            setattr(decimal.DefaultContext, name, getattr(context, name))
        decimal.DefaultContext.traps.update(context.traps)
        with localcontext(context):
            yield
    finally:
        for name, value in before.items():
            setattr(decimal.DefaultContext, name, value)
        decimal.DefaultContext.traps.update(traps)


def _money() -> list[Any]:
    """Go through everything that reckons, and return what came of it."""
    sandbox = Sandbox(seed=3, clock=lambda: NOW, options=SandboxOptions(price_factor=Decimal("1.2345678")))
    populate(sandbox, 2)
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal("123456.785"))
    pack = sandbox.packs[0]
    answers: list[Any] = [
        ask(sandbox, "GET", "/vm/available"),
        ask(sandbox, "GET", f"/vm/chase/{pack.slug}"),
        ask(sandbox, "GET", "/inventory/user_000001"),
        ask(sandbox, "GET", f"/card/{item.id}"),
        ask(sandbox, "POST", "/vm/buy/init", {"id": pack.id, "amount": 10, "user_id": "user"}),
        ask(sandbox, "GET", "/vm/recent-pulls"),
        ask(sandbox, "GET", "/inventory/user"),
        ask(sandbox, "POST", "/vm/buyback", {"item_id": item.id}),
    ]
    inventory = build_converter().loads(json.dumps(answers[6][1]).encode(), Inventory)
    odds = [chance for pack in sandbox.packs for _, chance in pack.odds]
    thirds = Pack(
        id="p", name="Pack", enable=True, in_stock=True, mint_price=Decimal(1), max_per_mint=1,
        rarity_distribution=tuple(RarityTier(id=n, name="x", weight=Decimal("1.2345678")) for n in range(3)),
    )  # fmt: skip
    return [*answers, inventory.total_buyback, odds, [str(chance) for _, chance in thirds.odds]]


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_money_is_the_same_in_every_context(context: Context) -> None:
    """The sandbox draws, prices and pays alike, and sums and odds have their digits."""
    expected = _money()
    assert {status for status, _ in expected[:8]} == {200}
    assert expected[-1] == ["0." + 28 * "3"] * 3
    with localcontext(context):
        assert _money() == expected
    with _other_default(context):
        assert _money() == expected


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("amount", ["12345.6789", '"12345.6789"', "1e-300", "0.1234567890123456789012345678901234"])
def test_amounts_are_read_and_written_exactly_in_every_context(amount: str, context: Context) -> None:
    """On either path."""
    converter = build_converter()
    body = f'{{"success": true, "amount": {amount}}}'.encode()
    expected = Decimal(amount.strip('"'))
    with localcontext(context):
        for sellback in (converter.loads(body, Sellback), converter._explain(body, Sellback)):
            assert sellback.amount == expected
            assert sellback.amount.as_tuple() == expected.as_tuple()
            assert converter.loads(converter.dumps(sellback), Sellback).amount == expected

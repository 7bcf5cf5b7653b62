"""What changed between two looks at an inventory."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import attrs
import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from phygitals_async import (
    Content,
    Destination,
    InvalidArgumentError,
    Inventory,
    InventoryDiff,
    Item,
    Metadata,
    PhygitalsClient,
    Repriced,
    Sandbox,
    Sent,
    Unreadable,
    diff_inventories,
)
from phygitals_transports import MemoryTransport

USER: Final = "user_abc123"


def _item(id: str, price: str = "8.50", claw_id: str = "pack") -> Item:  # noqa: A002 - the API's own word.
    return Item(
        id=id,
        claw_id=claw_id,
        claw_slug="topps-chrome-2024",
        buyback_price=Decimal(price),
        mint_address=None,
        purchased_at=datetime(2026, 4, 18, tzinfo=UTC),
        buyback_expires_at=None,
        content=Content(Metadata(id, "https://cdn.phygitals.com/cards/front.png", None)),
    )


def _inventory(*items: Item, user_id: str = USER) -> Inventory:
    return Inventory(user_id, items)


A, B, C = _item("a"), _item("b"), _item("c")
A_UP = _item("a", "9.00")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [], InventoryDiff((), (), ())),
        ([A, B], [A, B], InventoryDiff((), (), ())),
        ([A, B], [B, A], InventoryDiff((), (), ())),
        ([], [A], InventoryDiff((A,), (), ())),
        ([A], [C, A, B], InventoryDiff((C, B), (), ())),
        ([A], [], InventoryDiff((), (A,), ())),
        ([C, A, B], [A], InventoryDiff((), (C, B), ())),
        ([A], [A_UP], InventoryDiff((), (), (Repriced(A, A_UP),))),
        ([A, B], [A_UP, C], InventoryDiff((C,), (B,), (Repriced(A, A_UP),))),
        ([A], [B], InventoryDiff((B,), (A,), ())),
    ],
)
def test_what_was_added_removed_and_repriced(before: list[Item], after: list[Item], expected: InventoryDiff) -> None:
    """Each list holds the items in the order of the inventory that shows them."""
    diff = diff_inventories(_inventory(*before), _inventory(*after))
    assert diff == expected
    assert bool(diff) == any((expected.added, expected.removed, expected.repriced))


@pytest.mark.parametrize(
    ("before", "after", "added", "removed"),
    [
        ([A, A], [A, A], [], []),
        ([A, A], [A], [], [A]),
        ([A], [A, A], [A], []),
        ([A, A, A], [A], [], [A, A]),
        ([], [A, A], [A, A], []),
        ([A, A], [], [], [A, A]),
        ([A, B, A], [B, A, B], [B], [A]),
    ],
)
def test_one_id_several_times_is_counted(
    before: list[Item], after: list[Item], added: list[Item], removed: list[Item]
) -> None:
    """In sandbox one listing can be drawn more than once: selling one of two is a sale."""
    diff = diff_inventories(_inventory(*before), _inventory(*after))
    assert (list(diff.added), list(diff.removed), diff.repriced) == (added, removed, ())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([A, A_UP], [A_UP, A], InventoryDiff((), (), ())),
        ([A, A_UP], [A_UP], InventoryDiff((), (A,), ())),
        ([A, A_UP], [A], InventoryDiff((), (A_UP,), ())),
        ([A], [A_UP, A], InventoryDiff((A_UP,), (), ())),
    ],
)
def test_one_id_at_several_prices_is_matched_by_price_first(
    before: list[Item], after: list[Item], expected: InventoryDiff
) -> None:
    """An item that is there before and after, price and all, did not change, wherever in the list it stands."""
    assert diff_inventories(_inventory(*before), _inventory(*after)) == expected


@pytest.mark.parametrize("cents", ["8.51", "8.49", "0", "1000000"])
def test_any_other_price_is_a_change(cents: str) -> None:
    """To the cent."""
    (repriced,) = diff_inventories(_inventory(A), _inventory(_item("a", cents))).repriced
    assert (repriced.before.buyback_price, repriced.after.buyback_price) == (Decimal("8.50"), Decimal(cents))


def test_the_same_price_written_otherwise_is_no_change() -> None:
    """8.5 and 8.50 are one amount."""
    assert not diff_inventories(_inventory(A), _inventory(_item("a", "8.5")))


def test_what_else_changes_about_an_item_is_no_change() -> None:
    """An item that is minted meanwhile is the same item: no purchase, no sale."""
    minted = evolve(A, mint_address="a", purchased_at=datetime(2026, 4, 19, tzinfo=UTC))
    assert not diff_inventories(_inventory(A), _inventory(minted))


@pytest.mark.parametrize("other", ["user_abc124", "USER_ABC123", "user_abc123 ", ""])
def test_inventories_of_different_users_are_refused(other: str) -> None:
    """It would tell of purchases that nobody made."""
    with pytest.raises(InvalidArgumentError, match="the inventories are of different users") as caught:
        diff_inventories(_inventory(A), _inventory(A, user_id=other))
    assert isinstance(caught.value, ValueError)
    assert (caught.value.attempts, caught.value.sent) == (0, Sent.NEVER)


def test_a_diff_is_a_value() -> None:
    """It is frozen, hashable and shows what it holds."""
    diff = diff_inventories(_inventory(A), _inventory(B))
    assert diff == diff_inventories(_inventory(A), _inventory(B))
    assert hash(diff) == hash(diff_inventories(_inventory(A), _inventory(B)))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        diff.added = ()  # type: ignore[misc]


@pytest.mark.anyio
async def test_a_day_in_a_users_inventory_is_told() -> None:
    """A purchase adds, a sellback and an order remove, and a move of the market reprices what is left."""
    sandbox = Sandbox(seed=1)
    sold, shipped, kept = (sandbox.add_item(USER, name=n, buyback_price=Decimal("10.00")) for n in ("s", "l", "k"))
    async with PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test") as api:
        before = await api.get_inventory(USER)
        bought = await api.purchase(sandbox.packs[0].id, 2, USER)
        await api.sell_back(sold.id)
        destination = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
        quotes = await api.quote_shipping([shipped.id], destination)
        await api.request_shipping(quotes.quotes[0].id)
        sandbox.options.price_factor = Decimal("1.1")
        diff = diff_inventories(before, await api.get_inventory(USER))
    assert [item.id for item in diff.added] == [nft.id for nft in bought.nfts]
    assert {item.claw_id for item in diff.added} == {sandbox.packs[0].id}
    assert [item.id for item in diff.removed] == [sold.id, shipped.id]
    (repriced,) = diff.repriced
    assert (repriced.before.id, repriced.after.buyback_price) == (kept.id, Decimal("11.00"))


# Properties


PRICES = st.sampled_from(["1", "2.50", "2.5", "3"])
INVENTORIES = st.lists(st.builds(_item, st.sampled_from("abcd"), PRICES), max_size=8).map(lambda i: _inventory(*i))

Held = Counter[tuple[str, Decimal]]


def _held(items: tuple[Item, ...]) -> Held:
    """Count items by what a diff tells of them."""
    return Counter((item.id, item.buyback_price) for item in items)


@example(_inventory(A, A), _inventory(A))
@example(_inventory(A, A_UP), _inventory(A_UP))
@given(INVENTORIES, INVENTORIES)
def test_applying_the_diff_to_before_gives_after(before: Inventory, after: Inventory) -> None:
    """Nothing is left out and nothing made up."""
    diff = diff_inventories(before, after)
    held = _held(before.items)
    for taken in (diff.removed, tuple(r.before for r in diff.repriced)):
        assert held >= _held(taken)
        held -= _held(taken)
    held += _held(diff.added) + _held(tuple(r.after for r in diff.repriced))
    assert held == _held(after.items)


@given(INVENTORIES, INVENTORIES)
def test_a_diff_is_no_larger_than_need_be(before: Inventory, after: Inventory) -> None:
    """No id is both added and removed, and a repriced item keeps its id and changes its price."""
    diff = diff_inventories(before, after)
    assert not {item.id for item in diff.added} & {item.id for item in diff.removed}
    for repriced in diff.repriced:
        assert repriced.before.id == repriced.after.id
        assert repriced.before.buyback_price != repriced.after.buyback_price


@given(INVENTORIES.flatmap(lambda inventory: st.tuples(st.just(inventory), st.permutations(inventory.items))))
def test_the_order_of_the_items_does_not_matter(both: tuple[Inventory, list[Item]]) -> None:
    """No documentation promises an order, so another order is no change."""
    before, shuffled = both
    assert not diff_inventories(before, _inventory(*shuffled))


@given(INVENTORIES)
def test_equal_inventories_have_no_difference(inventory: Inventory) -> None:
    """The diff is false, and empty."""
    diff = diff_inventories(inventory, evolve(inventory))
    assert not diff
    assert diff == InventoryDiff((), (), ())


@given(INVENTORIES, INVENTORIES)
def test_the_way_back_is_the_reverse(before: Inventory, after: Inventory) -> None:
    """What was added one way is removed the other."""
    there, back = diff_inventories(before, after), diff_inventories(after, before)
    assert Counter(item.id for item in there.added) == Counter(item.id for item in back.removed)
    assert Counter(item.id for item in there.removed) == Counter(item.id for item in back.added)
    assert bool(there) == bool(back)


def test_inventories_with_unreadable_items_are_not_compared() -> None:
    """An item that is missing for that reason would pass for sold, and a sale be taken for made."""
    whole = Inventory("u", ())
    part = Inventory("u", (), unreadable=(Unreadable("$.items[0]", (), "{}"),))
    for before, after in ((whole, part), (part, whole), (part, part)):
        with pytest.raises(InvalidArgumentError, match="could not be read"):
            diff_inventories(before, after)

"""What changed between two looks at a user's inventory."""

from __future__ import annotations

from collections import defaultdict

from attrs import frozen

from phygitals_async.errors import InvalidArgumentError
from phygitals_async.models import Inventory, Item


@frozen
class Repriced:
    """An item whose sellback value changed.

    Attributes:
        before: The item as it was.
        after: The item as it is.
    """

    before: Item
    after: Item


@frozen
class InventoryDiff:
    """What changed between two inventories of one user.

    Attributes:
        added: Items that appeared: bought.
        removed: Items that are gone: sold back, or locked in a shipping order.
        repriced: Items whose sellback value changed.
    """

    added: tuple[Item, ...]
    removed: tuple[Item, ...]
    repriced: tuple[Repriced, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.repriced)


def diff_inventories(before: Inventory, after: Inventory) -> InventoryDiff:
    """Return what changed from `before` to `after`; false when nothing did.

    It tells the outcome of a purchase, sellback or shipping request whose answer was lost: see `OutcomeUnknown`.
    Items are told apart by id; one id several times over (sandbox only, API sheet, section 4, S7) is counted.

    Raises:
        InvalidArgumentError: The inventories are of different users, or some of their items could not be read: what is
            missing from one would pass for sold.
    """
    if before.user_id != after.user_id:
        msg = "the inventories are of different users"
        raise InvalidArgumentError(msg)
    if before.unreadable or after.unreadable:
        msg = "some items of the inventories could not be read, and would pass for bought or sold"
        raise InvalidArgumentError(msg)
    old: defaultdict[str, list[Item]] = defaultdict(list)
    for item in before.items:
        old[item.id].append(item)
    unmatched = []
    for item in after.items:
        same = next((was for was in old[item.id] if was.buyback_price == item.buyback_price), None)
        if same is None:
            unmatched.append(item)
        else:
            old[item.id].remove(same)
    added, repriced = [], []
    for item in unmatched:
        if old[item.id]:
            repriced.append(Repriced(old[item.id].pop(0), item))
        else:
            added.append(item)
    removed = [item for items in old.values() for item in items]
    return InventoryDiff(tuple(added), tuple(removed), tuple(repriced))

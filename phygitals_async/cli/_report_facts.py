"""What a report tells of a store."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypeAlias

from attrs import define, field, frozen

from phygitals_async._arithmetic import exact
from phygitals_async.models import Inventory, Item
from phygitals_async.refresh import Change, ChangeKind, Run, Store, read_changes
from phygitals_async.refresh._snapshots import decode

_PAGE: Final = 200
_MOST: Final = 20
_DAY: Final = timedelta(hours=24)
_ABOUT_USERS: Final = (ChangeKind.NEW_USER, ChangeKind.UNKNOWN_USER)

Owned: TypeAlias = tuple[Decimal, str, Item]


@frozen(eq=False)
class Facts:
    """What a report tells.

    Attributes:
        runs: Of the store, the oldest first.
        values: What all users owned after each run, in USD, in the order of the runs.
        kinds: How often each kind of change was found in each run, by the run's name.
        users: Users with a snapshot whom the API knew at the last look.
        items: What they own now.
        value: What that sells back for, in USD.
        best: The most valuable cards, as value, user and item.
        expiring: The most valuable cards whose offer ends within 24 hours.
        expiring_items: How many such cards there are.
        expiring_value: What they sell back for, in USD.
    """

    runs: Sequence[Run]
    values: Sequence[Decimal]
    kinds: Mapping[str, Counter[ChangeKind]]
    users: int
    items: int
    value: Decimal
    best: Sequence[Owned]
    expiring: Sequence[Owned]
    expiring_items: int
    expiring_value: Decimal


async def read_facts(store: Store, now: datetime) -> Facts:
    """Read a store, its changes twice. Memory grows with the users who came late or went, and with no others."""
    with exact():
        runs = list(reversed(await store.runs()))
        history = _History([run.name for run in runs])
        async for change in read_changes(store):
            history.look(change)
        async for change in read_changes(store):
            history.add(change)
        owned = _Owned(now)
        async for user_id, known, inventory in _snapshots(store):
            history.settle(user_id, inventory.total_buyback)
            if known:
                owned.add(inventory)
        return Facts(
            runs,
            history.values(),
            history.kinds,
            owned.users,
            owned.items,
            owned.value,
            _sorted(owned.best),
            _sorted(owned.expiring),
            owned.expiring_items,
            owned.expiring_value,
        )


async def _snapshots(store: Store) -> AsyncIterator[tuple[str, bool, Inventory]]:
    """Yield every snapshot, also of users who are unknown by now: they owned it once."""
    after = ""
    while page := await store.snapshot_page(after, _PAGE):
        for user, kept in page:
            yield user.user_id, user.known, decode(kept)
            after = user.user_id


@define
class _Owned:
    """What is owned now, added up while the snapshots pass by."""

    now: datetime
    users: int = 0
    items: int = 0
    value: Decimal = Decimal(0)
    expiring_items: int = 0
    expiring_value: Decimal = Decimal(0)
    best: list[tuple[Decimal, int, str, Item]] = field(factory=list)
    expiring: list[tuple[Decimal, int, str, Item]] = field(factory=list)

    def add(self, inventory: Inventory) -> None:
        """Count a user's items."""
        self.users += 1
        self.value += inventory.total_buyback
        for item in inventory.items:
            self.items += 1
            _keep(self.best, self.items, inventory.user_id, item)
            if item.sellback_open(self.now) and not item.sellback_open(self.now + _DAY):
                self.expiring_items += 1
                self.expiring_value += item.buyback_price
                _keep(self.expiring, self.items, inventory.user_id, item)


def _keep(best: list[tuple[Decimal, int, str, Item]], number: int, user_id: str, item: Item) -> None:
    # The number keeps items, which have no order, from being compared.
    entry = (item.buyback_price, -number, user_id, item)
    if len(best) < _MOST:
        heapq.heappush(best, entry)
    else:
        heapq.heappushpop(best, entry)


def _sorted(best: Sequence[tuple[Decimal, int, str, Item]]) -> list[Owned]:
    return [(price, user_id, item) for price, _, user_id, item in sorted(best, reverse=True)]


class _History:
    """What was owned after each run, found by going back from what is owned now through all that changed.

    Of users who were there from the first run on, the sum of the changes is enough. Those who came later or went are
    remembered one by one.

    Attributes:
        kinds: How often each kind of change was found in each run.
    """

    def __init__(self, runs: Sequence[str]) -> None:
        self.kinds: dict[str, Counter[ChangeKind]] = {name: Counter() for name in runs}
        self._numbers = {name: number for number, name in enumerate(runs)}
        self._values = [Decimal(0)] * len(runs)
        # Of those who were always there: what they own now, and by run what their changes were worth.
        self._now = Decimal(0)
        self._moved = [Decimal(0)] * len(runs)
        # Of the others: their changes, as run, kind and worth.
        self._others: dict[str, list[tuple[int, ChangeKind, Decimal]]] = {}

    def look(self, change: Change) -> None:
        """Count a change, and note who came late or went."""
        if change.run not in self._numbers:
            # Of a run that began while the store is read.
            return
        self.kinds[change.run][change.kind] += 1
        is_late = change.kind is ChangeKind.NEW_USER and self._numbers[change.run] > 0
        if is_late or change.kind is ChangeKind.UNKNOWN_USER:
            self._others.setdefault(change.user_id, [])

    def add(self, change: Change) -> None:
        """Take into account what a change was worth, once all were looked at; they come in their order."""
        if change.run not in self._numbers:
            return
        number, worth = self._numbers[change.run], _worth(change)
        if change.user_id in self._others:
            self._others[change.user_id].append((number, change.kind, worth))
        else:
            self._moved[number] += worth

    def settle(self, user_id: str, value: Decimal) -> None:
        """Go back from what a user's last snapshot is worth."""
        if user_id not in self._others:
            self._now += value
            return
        last = len(self._values)
        # Going back, whoever was not unknown afterwards is known.
        is_known = True
        for number, kind, worth in reversed(self._others[user_id]):
            if kind is ChangeKind.UNKNOWN_USER:
                is_known = False
            self._fill(number, last, value if is_known else Decimal(0))
            last = min(last, number)
            value -= worth
            if kind in _ABOUT_USERS:
                is_known = kind is ChangeKind.UNKNOWN_USER

    def values(self) -> list[Decimal]:
        """Return what all users owned after each run."""
        owned, values = self._now, []
        for value, moved in zip(reversed(self._values), reversed(self._moved), strict=True):
            values.append(value + owned)
            owned -= moved
        return values[::-1]

    def _fill(self, first: int, last: int, value: Decimal) -> None:
        for number in range(first, last):
            self._values[number] += value


def _worth(change: Change) -> Decimal:
    """Return what a change added to what its user owns, in USD."""
    before, after = (Decimal(0) if item is None else item.buyback_price for item in (change.before, change.after))
    return after - before

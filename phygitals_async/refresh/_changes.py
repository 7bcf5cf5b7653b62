"""What a refresh tells of a user, and how it is kept."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from attrs import frozen

from phygitals_async.errors import InvalidArgumentError
from phygitals_async.inventory_diff import diff_inventories
from phygitals_async.models import Inventory, Item
from phygitals_async.models.fields import Instant
from phygitals_async.refresh._snapshots import decompress
from phygitals_async.refresh._store import Store

_PAGE: Final = 500


class ChangeKind(enum.StrEnum):
    """What became of a user, or of one card of a user's."""

    BOUGHT = "bought"
    GONE = "gone"
    REPRICED = "repriced"
    NEW_USER = "new user"
    UNKNOWN_USER = "unknown user"


@frozen
class Change:
    """One thing that a run found changed since the user's last snapshot.

    Attributes:
        number: What to go on after, once this change is done with: `read_changes(store, after=number)`. It never
            descends. Of several changes that a run found of one user, only the last has a number of its own: after
            another of them, all of these are told again.
        run: The name of the run.
        user_id: Whose it is.
        kind: `bought` or `gone`, as `diff_inventories` tells; `repriced` for a new sellback value; `new user` for one
            whose inventory is answered for the first time, or again; `unknown user` for one whom the API does not know,
            or not any more. What a new user owns is in the snapshot, and not told as bought.
        before: The card as it was; None for one that was bought, and for users.
        after: The card as it is; None for one that is gone, and for users.
        at: When the run noticed, UTC.
    """

    number: int
    run: str
    user_id: str
    kind: ChangeKind
    before: Item | None
    after: Item | None
    at: Instant


@frozen
class Difference:
    """What a `Change` says beside whose it is and when it was noticed."""

    kind: ChangeKind
    before: Item | None = None
    after: Item | None = None


decode_differences: Final = msgspec.json.Decoder(list[Difference]).decode


def differences(before: Inventory, after: Inventory) -> list[Difference]:
    """Return what changed between two inventories of a user."""
    diff = diff_inventories(before, after)
    return [
        *(Difference(ChangeKind.BOUGHT, after=item) for item in diff.added),
        *(Difference(ChangeKind.GONE, before=item) for item in diff.removed),
        *(Difference(ChangeKind.REPRICED, pair.before, pair.after) for pair in diff.repriced),
    ]


async def read_changes(store: Store, *, since: str | None = None, after: int = 0) -> AsyncIterator[Change]:
    """Yield what a store's runs found changed, in the order in which they did; memory stays flat.

    To follow a store, ask again with the last `number` as `after`.

    Args:
        store: Where the runs were kept.
        since: The name of a run: only what later runs found. By default everything.
        after: A `Change.number`: only what came after it.

    Raises:
        InvalidArgumentError: There is no run of this name.
        StoreError: The store cannot be read.
    """
    runs = {run.number: run.name for run in await store.runs()}
    first = _number_of(since, runs)
    while page := await store.change_page(after, _PAGE, since=first):
        for stored in page:
            after = stored.number
            if stored.run not in runs:
                # It began while this was read.
                runs = {run.number: run.name for run in await store.runs()}
            found = decode_differences(decompress(stored.body))
            for left, told in zip(range(len(found) - 1, -1, -1), found, strict=True):
                # Whoever stops in the midst of a user's changes is told all of them again.
                number = after - 1 if left else after
                yield Change(number, runs[stored.run], stored.user_id, told.kind, told.before, told.after, stored.at)


def _number_of(name: str | None, runs: dict[int, str]) -> int:
    if name is None:
        return 0
    for number, known in runs.items():
        if known == name:
            return number
    msg = f"the store has no run named {name!r}"
    raise InvalidArgumentError(msg)

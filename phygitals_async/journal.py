"""What becomes of calls that move money or goods when the program dies, or their answer is lost.

Give the client a journal, `PhygitalsClient(journal=store)` with a store of `phygitals_async.refresh`, and each of these
calls is written down before it is sent and after its end. What is open then, `reconcile` holds against what the API
shows now, and `settle` closes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import evolve, frozen

from phygitals_async._calls.journal import Journal, JournalEntry
from phygitals_async._calls.rivals import find_rivals, shipped
from phygitals_async.client import PhygitalsClient
from phygitals_async.errors import DecodeError, PhygitalsError, TransactionFailed, UserNotFound
from phygitals_async.models import Inventory, Item

__all__ = ["Finding", "Journal", "JournalEntry", "Verdict", "reconcile", "settle"]

# How far the clocks of this machine and of the API may be apart.
_CLOCKS: Final = timedelta(minutes=2)
# How long a call may be under way, and production take to show what came of it.
_LAG: Final = timedelta(minutes=15)


class Verdict(enum.Enum):
    """What the state of the API says of a call whose outcome is open."""

    HAPPENED = "happened"
    DID_NOT_HAPPEN = "did not happen"
    UNDECIDED = "undecided"


@frozen
class Finding:
    """What the state of the API says of one entry.

    Attributes:
        entry: The call.
        verdict: Whether it did what it was made for.
        reason: What that is concluded from.
        items: What shows it, such as the items that were bought.
    """

    entry: JournalEntry
    verdict: Verdict
    reason: str
    items: tuple[Item, ...] = ()


async def reconcile(api: PhygitalsClient, journal: Journal) -> list[Finding]:
    """Look up what became of each call whose outcome is open, the oldest first. It reads, and changes nothing.

    It concludes from inventories, for no endpoint lists purchases or orders, and from what the journal has of other
    calls about the same item, or the same pack for the same user. One that is in no journal looks the same as the call
    in question. What is still there decides nothing within 15 minutes of the call, and a purchase whose session is
    unknown is never said not to have happened. Where a lookup fails, or the call went to another API than the client's,
    the finding says so.

    Args:
        api: Looks up. A client with the same journal will do.
        journal: What it was given.

    Raises:
        StoreError: The journal cannot be read.
    """
    root = api._engine.wire.settings.root  # noqa: SLF001 - it is not for others to rely on.
    opened = await journal.open_entries()
    looks = {entry.id: await _look(api, journal, entry, root) for entry in opened}
    # Only now: who could have done what was seen had been written down before.
    asked = [entry for entry in opened if isinstance(looks[entry.id], _Seen)]
    rivals = await find_rivals(journal, asked, asked[0].started_at - 2 * (_LAG + _CLOCKS)) if asked else {}
    return [await _conclude(api, entry, looks[entry.id], rivals.get(entry.id, ())) for entry in opened]


async def settle(journal: Journal, entry: JournalEntry, *, happened: bool) -> bool:
    """Close an entry, once it is known what became of the call; return whether it was still open.

    Args:
        journal: Where it is.
        entry: The call. One that has ended by itself meanwhile keeps the outcome it has.
        happened: Whether it did what it was made for.

    Raises:
        StoreError: The journal cannot be read or written.
    """
    kept = await journal.read_entry(entry.id)
    if kept is None or not kept.is_open:
        return False
    ended = datetime.now(UTC) if kept.ended_at is None else kept.ended_at
    await journal.write_entry(evolve(kept, ended_at=ended, outcome="done" if happened else "failed"))
    return True


@frozen
class _Seen:
    """What the inventory shows.

    Attributes:
        items: Of the items that a call was about, those that are there; for a purchase, what it may have brought.
        are_all: Whether every item is there.
    """

    items: tuple[Item, ...]
    are_all: bool = False


async def _look(api: PhygitalsClient, journal: Journal, entry: JournalEntry, root: str) -> Finding | _Seen:
    if entry.api != root:
        reason = f"it was made at {entry.api or 'an unknown place'}, and this client asks {root}"
        return Finding(entry, Verdict.UNDECIDED, reason)
    try:
        look: Finding | _Seen = await _LOOKS[entry.operation](api, journal, entry)
    except PhygitalsError as error:
        return Finding(entry, Verdict.UNDECIDED, f"it could not be looked up: {error}")
    return look


async def _look_at_purchase(api: PhygitalsClient, _: Journal, entry: JournalEntry) -> Finding | _Seen:
    if "session_id" in entry.detail:
        return await _look_at_session(api, entry, entry.detail["session_id"])
    try:
        items = (await _readable(api, entry.arguments["user_id"])).items
    except UserNotFound:
        # Unknown until the first purchase.
        items = ()
    first, last = _span(entry)
    pack_id = entry.arguments["pack_id"]
    return _Seen(tuple(item for item in items if item.claw_id == pack_id and first <= item.purchased_at <= last))


async def _look_at_session(api: PhygitalsClient, entry: JournalEntry, session_id: str) -> Finding:
    try:
        purchase = await api.get_purchase(session_id)
    except TransactionFailed as error:
        return Finding(entry, Verdict.DID_NOT_HAPPEN, f"the purchase {session_id} failed: {error.text}")
    if purchase is None:
        return Finding(entry, Verdict.UNDECIDED, f"the purchase {session_id} is pending")
    return Finding(entry, Verdict.HAPPENED, f"the purchase {session_id} is fulfilled")


async def _look_at_sellback(api: PhygitalsClient, _: Journal, entry: JournalEntry) -> Finding | _Seen:
    return await _look_at_items(api, entry, entry.arguments.get("owner"), {entry.arguments["item_id"]})


async def _look_at_shipping(api: PhygitalsClient, journal: Journal, entry: JournalEntry) -> Finding | _Seen:
    if "order_id" in entry.detail:
        order = await api.get_shipping_order(entry.detail["order_id"])
        return Finding(entry, Verdict.HAPPENED, f"the order {order.order_id} is {order.status}")
    quote = await shipped(journal, entry)
    known = {} if quote is None else quote.arguments
    return await _look_at_items(api, entry, known.get("owner"), set(known.get("item_ids", ())))


async def _look_at_items(
    api: PhygitalsClient, entry: JournalEntry, owner: str | None, item_ids: set[str]
) -> Finding | _Seen:
    if owner is None or not item_ids:
        return Finding(entry, Verdict.UNDECIDED, "nothing tells whose items they are: name the owner in the call")
    try:
        there = tuple(item for item in (await _readable(api, owner)).items if item.id in item_ids)
    except UserNotFound:
        return Finding(entry, Verdict.UNDECIDED, "the API does not know the owner")
    return _Seen(there, {item.id for item in there} == item_ids)


async def _readable(api: PhygitalsClient, user_id: str) -> Inventory:
    inventory = await api.get_inventory(user_id)
    if inventory.unreadable:
        msg = "what is looked for may be among the items that cannot be read"
        raise DecodeError(msg, problems=[problem for row in inventory.unreadable for problem in row.problems])
    return inventory


async def _conclude(
    api: PhygitalsClient, entry: JournalEntry, look: Finding | _Seen, rivals: Sequence[JournalEntry]
) -> Finding:
    if isinstance(look, Finding):
        return look
    if entry.operation != "start_purchase":
        return _about_items(entry, look, rivals)
    try:
        return await _about_purchase(api, entry, look.items, rivals)
    except PhygitalsError as error:
        return Finding(entry, Verdict.UNDECIDED, f"another purchase could not be looked up: {error}")


async def _about_purchase(
    api: PhygitalsClient, entry: JournalEntry, items: tuple[Item, ...], rivals: Sequence[JournalEntry]
) -> Finding:
    taken = await _bought_by(api, entry, rivals) if items else set()
    if taken is None:
        reason = "the user's inventory shows some of this pack, and another purchase of it is undecided, too"
        return Finding(entry, Verdict.UNDECIDED, reason, items)
    items, amount = tuple(item for item in items if item.id not in taken), entry.arguments["amount"]
    shown = f"{len(items)} of this pack were bought at that time and by no other call, and {amount} were asked for"
    if items:
        return Finding(entry, Verdict.HAPPENED if len(items) == amount else Verdict.UNDECIDED, shown, items)
    may_be = "it may take a while to show them" if _is_young(entry) else "they may have been sold or shipped"
    return Finding(entry, Verdict.UNDECIDED, f"{shown}; {may_be}")


async def _bought_by(api: PhygitalsClient, entry: JournalEntry, rivals: Sequence[JournalEntry]) -> set[str] | None:
    """Return the ids of what other purchases brought at the same time, or None where one of them cannot tell."""
    taken: set[str] = set()
    first, last = _span(entry)
    for rival in rivals:
        begins, ends = _span(rival)
        if ends < first or begins > last:
            continue
        session_id = rival.detail.get("session_id")
        if session_id is None:
            return None
        try:
            purchase = await api.get_purchase(session_id)
        except TransactionFailed:
            continue
        if purchase is None:
            return None
        taken.update(item.id for item in purchase.nfts)
    return taken


def _about_items(entry: JournalEntry, seen: _Seen, rivals: Sequence[JournalEntry]) -> Finding:
    """Conclude from whether the items are still their owner's, and who else may have sold or shipped them."""
    still, gone = "the owner's inventory still shows it", "the owner's inventory does not show it any more"
    if seen.items and _is_young(entry):
        return Finding(entry, Verdict.UNDECIDED, f"{still}; it may be under way", seen.items)
    if seen.are_all:
        return Finding(entry, Verdict.DID_NOT_HAPPEN, still, seen.items)
    for rival in rivals:
        # An item is sold or shipped once.
        if rival.outcome == "done" and not {"amount", "order_id"}.isdisjoint(rival.detail):
            reason = f"{gone}, and {rival.operation} of {rival.started_at:%Y-%m-%d %H:%M} UTC was done"
            return Finding(entry, Verdict.DID_NOT_HAPPEN, reason, seen.items)
    if seen.items:
        reason = "the owner's inventory shows some of the items, and not all"
        return Finding(entry, Verdict.UNDECIDED, reason, seen.items)
    if rivals:
        return Finding(entry, Verdict.UNDECIDED, f"{gone}; it may be {rivals[0].operation} that was done, and not this")
    return Finding(entry, Verdict.HAPPENED, gone)


def _span(entry: JournalEntry) -> tuple[datetime, datetime]:
    """Return when, at the earliest and at the latest, the API can have done what a call was made for."""
    return entry.started_at - _CLOCKS, (entry.ended_at or entry.started_at) + _LAG + _CLOCKS


def _is_young(entry: JournalEntry) -> bool:
    """Whether the call may be under way, or what it did not be shown yet."""
    return datetime.now(UTC) - (entry.ended_at or entry.started_at) < _LAG


_LOOKS: Final[dict[str, Any]] = {
    "start_purchase": _look_at_purchase,
    "sell_back": _look_at_sellback,
    "request_shipping": _look_at_shipping,
}

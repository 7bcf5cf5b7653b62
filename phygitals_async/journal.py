"""What becomes of calls that move money or goods when the program dies, or their answer is lost.

Give the client a journal, `PhygitalsClient(journal=store)` with a store of `phygitals_async.refresh`, and each of these
calls is written down before it is sent and after its end. What is open then, `reconcile` holds against what the API
shows now, and `settle` closes.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import evolve, frozen

from phygitals_async._calls.journal import Journal, JournalEntry, quote_entry
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

    It concludes from inventories, for no endpoint lists purchases or orders: another sale, order or purchase of the
    same user at the same time looks the same. What is still there decides nothing within 15 minutes of the call, and a
    purchase whose session is unknown is never said not to have happened. Where a lookup fails, or the call went to
    another API than the client's, the finding says so.

    Args:
        api: Looks up. A client with the same journal will do.
        journal: What it was given.

    Raises:
        StoreError: The journal cannot be read.
    """
    findings = []
    root = api._engine.wire.settings.root  # noqa: SLF001 - it is not for others to rely on.
    for entry in await journal.open_entries():
        if entry.api != root:
            reason = f"it was made at {entry.api or 'an unknown place'}, and this client asks {root}"
            findings.append(Finding(entry, Verdict.UNDECIDED, reason))
            continue
        try:
            findings.append(await _FINDERS[entry.operation](api, journal, entry))
        except PhygitalsError as error:
            findings.append(Finding(entry, Verdict.UNDECIDED, f"it could not be looked up: {error}"))
    return findings


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


async def _find_purchase(api: PhygitalsClient, _: Journal, entry: JournalEntry) -> Finding:
    if "session_id" in entry.detail:
        return await _find_session(api, entry, entry.detail["session_id"])
    pack_id, amount = entry.arguments["pack_id"], entry.arguments["amount"]
    first = entry.started_at - _CLOCKS
    inventory = await _inventory(api, entry.arguments["user_id"])
    items = tuple(item for item in inventory if item.claw_id == pack_id and item.purchased_at >= first)
    shown = f"the user's inventory shows {len(items)} of this pack bought since, and {amount} were asked for"
    if items:
        return Finding(entry, Verdict.HAPPENED if len(items) == amount else Verdict.UNDECIDED, shown, items)
    may_be = "it may take a while to show them" if _is_young(entry) else "they may have been sold or shipped"
    return Finding(entry, Verdict.UNDECIDED, f"{shown}; {may_be}")


async def _find_session(api: PhygitalsClient, entry: JournalEntry, session_id: str) -> Finding:
    try:
        purchase = await api.get_purchase(session_id)
    except TransactionFailed as error:
        return Finding(entry, Verdict.DID_NOT_HAPPEN, f"the purchase {session_id} failed: {error.text}")
    if purchase is None:
        return Finding(entry, Verdict.UNDECIDED, f"the purchase {session_id} is pending")
    return Finding(entry, Verdict.HAPPENED, f"the purchase {session_id} is fulfilled")


async def _find_sellback(api: PhygitalsClient, _: Journal, entry: JournalEntry) -> Finding:
    return await _find_items(api, entry, entry.arguments.get("owner"), [entry.arguments["item_id"]])


async def _find_shipping(api: PhygitalsClient, journal: Journal, entry: JournalEntry) -> Finding:
    if "order_id" in entry.detail:
        order = await api.get_shipping_order(entry.detail["order_id"])
        return Finding(entry, Verdict.HAPPENED, f"the order {order.order_id} is {order.status}")
    quote = await journal.read_entry(quote_entry(entry.arguments["quote_id"]))
    known = {} if quote is None else quote.arguments
    return await _find_items(api, entry, known.get("owner"), known.get("item_ids", []))


async def _find_items(api: PhygitalsClient, entry: JournalEntry, owner: str | None, item_ids: list[str]) -> Finding:
    """Conclude from whether the items are still their owner's."""
    if owner is None or not item_ids:
        return Finding(entry, Verdict.UNDECIDED, "nothing tells whose items they are: name the owner in the call")
    try:
        there = tuple(item for item in (await _readable(api, owner)).items if item.id in item_ids)
    except UserNotFound:
        return Finding(entry, Verdict.UNDECIDED, "the API does not know the owner")
    if not there:
        return Finding(entry, Verdict.HAPPENED, "the owner's inventory does not show it any more")
    if _is_young(entry):
        return Finding(entry, Verdict.UNDECIDED, "the owner's inventory still shows it; it may be under way", there)
    if len({item.id for item in there}) == len(set(item_ids)):
        return Finding(entry, Verdict.DID_NOT_HAPPEN, "the owner's inventory still shows it", there)
    return Finding(entry, Verdict.UNDECIDED, "the owner's inventory shows some of the items, and not all", there)


async def _inventory(api: PhygitalsClient, user_id: str) -> tuple[Item, ...]:
    try:
        return (await _readable(api, user_id)).items
    except UserNotFound:
        # Unknown until the first purchase.
        return ()


async def _readable(api: PhygitalsClient, user_id: str) -> Inventory:
    inventory = await api.get_inventory(user_id)
    if inventory.unreadable:
        msg = "what is looked for may be among the items that cannot be read"
        raise DecodeError(msg, problems=[problem for row in inventory.unreadable for problem in row.problems])
    return inventory


def _is_young(entry: JournalEntry) -> bool:
    """Whether the call may be under way, or what it did not be shown yet."""
    return datetime.now(UTC) - (entry.ended_at or entry.started_at) < _LAG


_FINDERS: Final[dict[str, Any]] = {
    "start_purchase": _find_purchase,
    "sell_back": _find_sellback,
    "request_shipping": _find_shipping,
}

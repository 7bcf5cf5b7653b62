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
from phygitals_async.models import Item

__all__ = ["Finding", "Journal", "JournalEntry", "Verdict", "reconcile", "settle"]

# How far the clocks of this machine and of the API may be apart.
_CLOCKS: Final = timedelta(minutes=2)
# How long production may take to show what was bought.
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
    same user at the same time looks the same. Where a lookup fails, the finding says so.

    Args:
        api: Looks up. A client with the same journal will do.
        journal: What it was given.

    Raises:
        StoreError: The journal cannot be read.
    """
    findings = []
    for entry in await journal.open_entries():
        try:
            findings.append(await _FINDERS[entry.operation](api, journal, entry))
        except PhygitalsError as error:
            findings.append(Finding(entry, Verdict.UNDECIDED, f"it could not be looked up: {error}"))
    return findings


async def settle(journal: Journal, entry: JournalEntry, *, happened: bool) -> None:
    """Close an entry, once it is known what became of the call.

    Args:
        journal: Where it is.
        entry: The call.
        happened: Whether it did what it was made for.

    Raises:
        StoreError: The journal cannot be written.
    """
    ended = datetime.now(UTC) if entry.ended_at is None else entry.ended_at
    await journal.write_entry(evolve(entry, ended_at=ended, outcome="done" if happened else "failed"))


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
    if datetime.now(UTC) - (entry.ended_at or entry.started_at) < _LAG:
        return Finding(entry, Verdict.UNDECIDED, f"{shown}; production may take a while to show them")
    return Finding(entry, Verdict.DID_NOT_HAPPEN, shown)


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
    there = tuple(item for item in await _inventory(api, owner) if item.id in item_ids)
    if not there:
        return Finding(entry, Verdict.HAPPENED, "the owner's inventory does not show it any more")
    if len({item.id for item in there}) == len(set(item_ids)):
        return Finding(entry, Verdict.DID_NOT_HAPPEN, "the owner's inventory still shows it", there)
    return Finding(entry, Verdict.UNDECIDED, "the owner's inventory shows some of the items, and not all", there)


async def _inventory(api: PhygitalsClient, user_id: str) -> tuple[Item, ...]:
    try:
        inventory = await api.get_inventory(user_id)
    except UserNotFound:
        # Unknown until the first purchase.
        return ()
    if inventory.unreadable:
        msg = "what is looked for may be among the items that cannot be read"
        raise DecodeError(msg, problems=[problem for row in inventory.unreadable for problem in row.problems])
    return inventory.items


_FINDERS: Final[dict[str, Any]] = {
    "start_purchase": _find_purchase,
    "sell_back": _find_sellback,
    "request_shipping": _find_shipping,
}

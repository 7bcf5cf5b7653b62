"""Other calls that may have done what the API shows: about the same item, or the same pack for the same user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

from phygitals_async._calls.journal import Journal, JournalEntry, quote_entry

_PAGE: Final = 500


async def find_rivals(
    journal: Journal, opened: Sequence[JournalEntry], since: datetime
) -> dict[str, tuple[JournalEntry, ...]]:
    """Return the rivals of each open call, by its entry's id: those that did not certainly fail.

    Args:
        journal: Has the entries.
        opened: The calls.
        since: Rivals that started before are left out.
    """
    about: dict[tuple[str, ...], list[JournalEntry]] = {}
    for entry in opened:
        for subject in await _subjects(journal, entry):
            about.setdefault(subject, []).append(entry)
    found: dict[str, dict[str, JournalEntry]] = {entry.id: {} for entry in opened}
    async for other in _entries(journal, since):
        if other.outcome == "failed":
            continue
        for subject in await _subjects(journal, other):
            for entry in about.get(subject, ()):
                if other.id != entry.id and other.api == entry.api:
                    found[entry.id][other.id] = other
    return {entry_id: tuple(others.values()) for entry_id, others in found.items()}


async def shipped(journal: Journal, entry: JournalEntry) -> JournalEntry | None:
    """Return the entry of the quote that a shipping request named: it knows the items and their owner."""
    return await journal.read_entry(quote_entry(entry.arguments["quote_id"]))


async def _entries(journal: Journal, since: datetime) -> AsyncIterator[JournalEntry]:
    after = ""
    while page := await journal.entry_page(since, after, _PAGE):
        for entry in page:
            yield entry
        since, after = page[-1].started_at, page[-1].id


async def _subjects(journal: Journal, entry: JournalEntry) -> list[tuple[str, ...]]:
    arguments = entry.arguments
    if entry.operation == "start_purchase":
        return [("pack", arguments["user_id"], arguments["pack_id"])]
    if entry.operation == "sell_back":
        return [("item", arguments["item_id"])]
    quote = await shipped(journal, entry) if entry.operation == "request_shipping" else None
    return [] if quote is None else [("item", item_id) for item_id in quote.arguments["item_ids"]]

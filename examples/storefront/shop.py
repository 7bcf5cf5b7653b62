"""What the parts of the storefront share."""

from __future__ import annotations

from contextvars import ContextVar

from attrs import frozen
from starlette.requests import Request

from phygitals_async import PhygitalsClient
from phygitals_async.journal import Journal, JournalEntry
from phygitals_async.web import Lifespan

from .deals import Deals
from .signing import Signer

# Whose call is being made, for the journal.
current_deal: ContextVar[str | None] = ContextVar("current_deal", default=None)


@frozen
class Shop:
    """The storefront while it runs.

    Attributes:
        life: Has the client, and the work that no browser ends.
        journal: What the client wrote down before each call that moves money or goods.
        deals: What users asked for.
        signer: Signs cookies and forms.
        users: Who can sign in to this demo.
        images: The only origin that pictures are loaded from, such as `https://cdn.phygitals.com`.
    """

    life: Lifespan
    journal: Journal
    deals: Deals
    signer: Signer
    users: tuple[str, ...]
    images: str

    @property
    def api(self) -> PhygitalsClient:
        """The client."""
        return self.life.api


class LinkedJournal:
    """A journal that notes on each deal which entry is its own, before the entry is written, so before a call is sent.

    After a crash every deal leads to what is known of its call, and one without an entry was never sent.
    """

    def __init__(self, journal: Journal, deals: Deals) -> None:
        self._journal = journal
        self._deals = deals
        self.read_entry = journal.read_entry
        self.open_entries = journal.open_entries
        self.entry_page = journal.entry_page

    async def write_entry(self, entry: JournalEntry) -> None:
        """Keep an entry."""
        if (deal_id := current_deal.get()) is not None:
            self._deals.change(deal_id, entry_id=entry.id)
        await self._journal.write_entry(entry)


def shop_of(request: Request) -> Shop:
    """Return the storefront that a request came to."""
    shop: Shop = request.app.state.shop
    return shop

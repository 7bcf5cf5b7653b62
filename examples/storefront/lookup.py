"""What became of deals whose answer was lost, by what the journal says and what the API shows now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from phygitals_async import PhygitalsError, TransactionFailed
from phygitals_async.journal import Finding, JournalEntry, Verdict, reconcile, settle
from phygitals_async.web import explain

from .deals import Deal
from .shop import Shop

logger = logging.getLogger("storefront")


async def keep_looking_up(shop: Shop, seconds: float) -> None:
    """Look up again and again what is unknown, until cancelled."""
    while True:
        await look_up(shop)
        await asyncio.sleep(seconds)


async def look_up(shop: Shop) -> None:
    """Look up what is unknown. It reads, and sends nothing that moves money or goods."""
    try:
        if unknown := shop.deals.in_state("unknown"):
            findings = {finding.entry.id: finding for finding in await reconcile(shop.api, shop.journal)}
            for deal in unknown:
                await _look_up(shop, deal, findings)
    except PhygitalsError as error:
        logger.warning("what is unknown could not be looked up: %s", error)


async def _look_up(shop: Shop, deal: Deal, findings: Mapping[str, Finding]) -> None:
    entry = None if deal.entry_id is None else await shop.journal.read_entry(deal.entry_id)
    if entry is None:
        shop.deals.change(deal.id, state="failed", text="It was interrupted before anything was sent.")
        return
    done = entry.outcome == "done"
    if entry.is_open:
        finding = findings.get(entry.id)
        if finding is None or finding.verdict is Verdict.UNDECIDED:
            return
        done = finding.verdict is Verdict.HAPPENED
        await settle(shop.journal, entry, happened=done)
    if not done:
        shop.deals.change(deal.id, state="failed", text="It was looked up: nothing was done, and nothing is owed.")
    elif deal.kind == "buy":
        await _look_up_purchase(shop, deal, entry)
    else:
        known = {name: entry.detail[name] for name in ("order_id", "amount") if name in entry.detail}
        shop.deals.change(deal.id, state="done", text="It was looked up: it is done.", **known)


async def _look_up_purchase(shop: Shop, deal: Deal, entry: JournalEntry) -> None:
    session_id = deal.session_id or entry.detail.get("session_id")
    if session_id is not None:
        try:
            purchase = await shop.api.get_purchase(session_id)
        except TransactionFailed as error:
            shop.deals.change(deal.id, state="failed", text=explain(error).message)
            return
        # Somebody else's: a sandbox that was reset gives its ids again.
        if purchase is None or purchase.user_id != deal.user_id:
            return
        shop.deals.keep_cards(deal.id, purchase.nfts)
    shop.deals.change(deal.id, state="done", text="It was looked up: it is done.", session_id=session_id)

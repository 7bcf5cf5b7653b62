"""What moves money or goods. It runs to its end whatever the browser does, and writes its own outcome down."""

from __future__ import annotations

import asyncio
import logging

from phygitals_async import OutcomeUnknown, PhygitalsError, PurchasePending, TransactionFailed
from phygitals_async.web import explain

from .deals import Deal
from .shop import Shop, current_deal

logger = logging.getLogger("storefront")


async def carry_out(shop: Shop, deal: Deal) -> None:
    """Do what was asked for.

    `Lifespan.start` runs it in a task of the application's, and in a context of its own.
    """
    current_deal.set(deal.id)
    try:
        await _WORK[deal.kind](shop, deal)
    except (OutcomeUnknown, PurchasePending) as error:
        shop.deals.change(deal.id, state="unknown", text=explain(error).message)
    except PhygitalsError as error:
        answer = explain(error)
        if answer.is_ours:
            logger.exception("%s of %s failed", deal.kind, deal.subject)
        shop.deals.change(deal.id, state="failed", text=answer.message)
    except (Exception, asyncio.CancelledError):
        # A bug, or the shop is shut down: the journal knows how far it came.
        shop.deals.change(deal.id, state="unknown", text="It was interrupted.")
        raise


async def _buy(shop: Shop, deal: Deal) -> None:
    # Here a shop takes the user's money first, and gives it back where the deal fails.
    shop.deals.change(deal.id, text="Buying the pack")
    # The deadlines add up to less than the shop has when it is shut down.
    started = await shop.api.start_purchase(deal.subject, deal.pulls, deal.user_id, deadline=20)
    shop.deals.change(deal.id, text="Opening it", session_id=started.session_id)
    try:
        bought = await shop.api.wait_for_purchase(started.session_id, deadline=35)
    except TransactionFailed:
        raise
    except PhygitalsError as error:
        # It was started, whatever keeps us from seeing its end.
        raise PurchasePending(session_id=started.session_id) from error
    shop.deals.keep_cards(deal.id, bought.nfts)
    shop.deals.change(deal.id, state="done", text="")


async def _sell(shop: Shop, deal: Deal) -> None:
    shop.deals.change(deal.id, text="Selling the card")
    # The owner is checked: the API itself would sell anybody's.
    paid = await shop.api.sell_back(deal.subject, owner=deal.user_id, deadline=30)
    shop.deals.change(deal.id, state="done", text="", amount=f"{paid.amount:.2f}")


async def _ship(shop: Shop, deal: Deal) -> None:
    shop.deals.change(deal.id, text="Placing the order")
    # The quote is the user's own: its id comes out of a token that was signed for them.
    placed = await shop.api.request_shipping(deal.subject, deadline=30)
    shop.deals.change(deal.id, state="done", text="", order_id=placed.order_id)


_WORK = {"buy": _buy, "sell": _sell, "ship": _ship}

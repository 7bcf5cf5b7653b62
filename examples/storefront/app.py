"""The application: its pages, and what lives as long as it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from phygitals_async import PhygitalsClient, PhygitalsError
from phygitals_async.journal import Journal
from phygitals_async.refresh import SqliteStore
from phygitals_async.web import Lifespan

from . import accounts, browse, shipping, trade
from .deals import Deals
from .lookup import keep_looking_up
from .pages import SafeHeaders, headline, show_bug, show_error, show_refusal
from .shop import LinkedJournal, Shop
from .signing import Signer, read_secret

logger = logging.getLogger("storefront")


def create_app(
    make_client: Callable[[Journal], PhygitalsClient],
    folder: Path,
    *,
    users: tuple[str, ...],
    images: str,
    look_up_every: float = 30.0,
) -> Starlette:
    """Return the storefront.

    Args:
        make_client: Makes the client, which writes what moves money or goods down in a journal.
        folder: Where the shop keeps its book, its journal and its secret.
        users: Who can sign in to this demo.
        images: The origin of the cards' pictures, such as `https://cdn.phygitals.com`.
        look_up_every: Seconds between two looks at what is unknown.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with SqliteStore(folder / "journal.db") as store:
            with closing(Deals(folder / "deals.db")) as deals:
                deals.interrupt()
                journal = LinkedJournal(store, deals)
                async with Lifespan(lambda: make_client(journal)) as life, asyncio.TaskGroup() as group:
                    signer = Signer(read_secret(folder / "secret"))
                    app.state.shop = Shop(life, journal, deals, signer, users, images)
                    looking = group.create_task(keep_looking_up(app.state.shop, look_up_every))
                    yield
                    looking.cancel()
                    if under_way := ", ".join(headline(deal) for deal in deals.in_state("under way")):
                        logger.warning("ending: waits up to a minute for what is under way: %s", under_way)

    routes = [
        Route("/", browse.packs),
        Route("/packs/{pack_id:path}", browse.pack),
        Route("/buy", trade.buy, methods=["POST"]),
        Route("/items", browse.items),
        Route("/sell", trade.confirm_sale),
        Route("/sell", trade.sell, methods=["POST"]),
        Route("/ship", shipping.ask_address),
        Route("/ship", shipping.ship, methods=["POST"]),
        Route("/ship/quotes", shipping.quotes, methods=["POST"]),
        Route("/orders/{order_id}", shipping.order),
        Route("/deals", trade.deals),
        Route("/deals/{deal_id}", trade.deal),
        Route("/deals/{deal_id}/state", trade.deal_state),
        Route("/deals/{deal_id}/look", trade.look_again, methods=["POST"]),
        Route("/sign-in", accounts.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", accounts.sign_out, methods=["POST"]),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static"),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(SafeHeaders, images=images),
            Middleware(AuthenticationMiddleware, backend=accounts.SignedCookie()),
        ],
        exception_handlers={PhygitalsError: show_error, HTTPException: show_refusal, Exception: show_bug},
        lifespan=lifespan,
    )

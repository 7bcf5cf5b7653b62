"""How pages are made: templates, their filters, error pages, and the headers that every answer has."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phygitals_async import PhygitalsError
from phygitals_async.web import explain

from .deals import Deal
from .shop import shop_of

logger = logging.getLogger("storefront")

# Starlette's words.
_PLAIN_WORDS = {
    "Not Found": "There is no such page.",
    "Method Not Allowed": "This page cannot be opened like this.",
}


def usd(amount: Decimal | str | None) -> str:
    """Return an amount in USD as people write it."""
    return "" if amount is None else f"${Decimal(amount):,.2f}"


def percent(fraction: Decimal) -> str:
    """Return a fraction as a percentage, rare ones with more places."""
    return f"{fraction:.0%}" if fraction >= Decimal("0.1") else f"{fraction:.1%}"


def time_left(until: datetime | None) -> str:
    """Return how long an offer lasts."""
    if until is None:
        return "no time limit"
    hours = (until - datetime.now(UTC)).total_seconds() / 3600
    if hours <= 0:
        return "offer ended"
    if hours < 1:
        return "less than an hour left"
    count, unit = (int(hours), "hour") if hours < 48 else (int(hours / 24), "day")
    return f"{count} {unit}{'' if count == 1 else 's'} left"


def initials(name: str) -> str:
    """Return the first letters of the first two words that begin with one."""
    return "".join(word[0] for word in name.split() if word[0].isalpha())[:2].upper()


def on_day(moment: datetime | str) -> str:
    """Return a day and a time, UTC."""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def headline(deal: Deal) -> str:
    """Return what a deal is, in a few words."""
    count = f"{deal.pulls} × " if deal.pulls > 1 else ""  # noqa: RUF001 - the sign of multiplication.
    names = {"buy": "Purchase of", "sell": "Sale of", "ship": "Shipment of"}
    return f"{names[deal.kind]} {count}{deal.title}"


def in_deal(deal: Deal) -> str:
    """Return what is said of an item that is in an open deal."""
    names = {"sell": ("Being sold", "Sale not known yet"), "ship": ("Being shipped", "Shipment not known yet")}
    return names[deal.kind][deal.state == "unknown"]


templates = Jinja2Templates(Path(__file__).parent / "templates")
templates.env.filters |= {
    "usd": usd, "percent": percent, "time_left": time_left, "on_day": on_day, "headline": headline,
    "initials": initials, "in_deal": in_deal,
}  # fmt: skip
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page.

    A picture is shown only if it is from the one origin that the page may load pictures from; else, and where it cannot
    be loaded, the card's initials are.
    """
    images = f"{shop_of(request).images}/"
    values["now"] = datetime.now(UTC)
    # There is none on the page of an error that came before it was known who it is.
    values["user"] = request.scope.get("user")
    values["picture"] = lambda url: url if url and url.startswith(images) else None
    return templates.TemplateResponse(request, name, values, status_code=status)


async def show_error(request: Request, error: Exception) -> Response:
    """Answer an error of the library's with a page that quotes nothing of it."""
    assert isinstance(error, PhygitalsError)
    answer = explain(error)
    if answer.is_ours:
        logger.error("%s", error)
    response = page(request, "error.html", status=answer.status, message=answer.message)
    response.headers.update(answer.headers)
    return response


async def show_refusal(request: Request, error: Exception) -> Response:
    """Answer what Starlette refuses, such as an address that leads nowhere."""
    assert isinstance(error, HTTPException)
    message = _PLAIN_WORDS.get(error.detail, error.detail)
    response = page(request, "error.html", status=error.status_code, message=message)
    response.headers.update(error.headers or {})
    return response


async def show_bug(request: Request, _: Exception) -> Response:
    """Answer a bug, which Starlette raises again after that, so that the server logs it."""
    response = page(
        request, "error.html", status=500, message="Something is wrong on our side. We are looking into it."
    )
    # It is made outside of all middleware.
    response.headers.update(safe_headers(shop_of(request).images))
    return response


def safe_headers(images: str) -> dict[str, str]:
    """Return what keeps a browser from doing what no page of ours asks for.

    Args:
        images: The only other origin that anything is loaded from.
    """
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; img-src 'self' {images}; style-src 'self'; script-src 'self'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }


class SafeHeaders:
    """Adds `safe_headers` to every answer."""

    def __init__(self, app: ASGIApp, images: str) -> None:
        self._app = app
        self._headers = safe_headers(images)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""

        async def add_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, add_headers)

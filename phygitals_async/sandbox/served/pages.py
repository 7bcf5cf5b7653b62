"""What each page of the console shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeAlias

import msgspec
from attrs import frozen

from phygitals_async.models import Item
from phygitals_async.sandbox.catalogue import PackStock
from phygitals_async.sandbox.served import bodies, shown
from phygitals_async.sandbox.served.admin import Admin
from phygitals_async.sandbox.served.controls import START
from phygitals_async.wrapping import METHODS

Collect: TypeAlias = Callable[[Mapping[str, str]], dict[str, Any]]

_ROWS: Final = 50
_PACKS: Final = 24
_LATEST: Final = 8
# What a page of the nav is called.
NAV: Final = {
    "": "Overview",
    "users": "Users",
    "packs": "Packs",
    "purchases": "Purchases",
    "sellbacks": "Sellbacks",
    "orders": "Orders",
    "requests": "Requests",
    "options": "Options",
}


@frozen
class Page:
    """A page: call it with the fields of the query, and it collects what its template writes.

    Attributes:
        template: The template's name.
        collect: Collects it.
    """

    template: str
    collect: Collect

    def __call__(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Collect what the template writes."""
        return self.collect(query)


@frozen
class Tile:
    """A card as it is shown.

    Attributes:
        item: The card.
        offer: How long it can still be sold back, in words.
        is_over: Whether it cannot be any more.
        facts: Its attributes, in words.
    """

    item: Item
    offer: str
    is_over: bool
    facts: str


class Pages:
    """Collects what the templates write."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._pages: dict[str, Collect] = {
            "": self._overview,
            "users": self._users,
            "packs": self._packs,
            "purchases": self._purchases,
            "sellbacks": self._sellbacks,
            "orders": self._orders,
            "requests": self._requests,
            "options": self._options,
        }

    def find(self, name: str, rest: str) -> Page | None:
        """Return a page, if there is such a page.

        Args:
            name: The first part of its path, empty for the overview.
            rest: What follows: the user or the request it is about.
        """
        if rest:
            if name == "users":
                return Page("user.html", lambda _: self._user(rest))
            return Page("request.html", lambda _: self._request(rest)) if name == "requests" else None
        return Page(f"{name or 'overview'}.html", self._pages[name]) if name in self._pages else None

    def status(self) -> dict[str, Any]:
        """Collect what stands on every page."""
        return {"state": self._admin.get_state(), "nav": NAV}

    def _overview(self, _: Mapping[str, str]) -> dict[str, Any]:
        controls = self._admin.controls
        return {
            "title": "Overview",
            "faults": controls.list_faults(),
            "snapshots": controls.list_snapshots(),
            "entries": controls.log.latest(_LATEST),
            "operations": list(METHODS),
            "start": START,
        }

    def _users(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {"title": "Users", "rows": self._admin.records.list_users(query=(page := _page(query))), "asked": page}

    def _user(self, user_id: str) -> dict[str, Any]:
        sandbox = self._admin.controls.sandbox
        now = sandbox.now()
        tiles = [_tile(item, now) for item in reversed(sandbox.ledger.inventory(user_id))]
        return {"title": user_id, "user_id": user_id, "tiles": tiles}

    def _packs(self, query: Mapping[str, str]) -> dict[str, Any]:
        page, stocks = _page(query, _PACKS), self._admin.controls.sandbox.stocks.values()
        wanted = page.search.casefold()
        found = (stock for stock in stocks if wanted in f"{stock.pack.name} {stock.pack.id}".casefold())
        rows = [_pack(stock) for stock in islice(found, page.start, page.start + page.limit)]
        return {"title": "Packs", "rows": rows, "asked": page}

    def _purchases(self, query: Mapping[str, str]) -> dict[str, Any]:
        rows = self._admin.records.list_purchases(query=(page := _page(query)))
        stocks = self._admin.controls.sandbox.stocks
        names = {row.pack_id: stocks[row.pack_id].pack.name for row in rows if row.pack_id in stocks}
        return {"title": "Purchases", "rows": rows, "names": names, "asked": page}

    def _sellbacks(self, query: Mapping[str, str]) -> dict[str, Any]:
        rows = self._admin.records.list_sellbacks(query=(page := _page(query)))
        return {"title": "Sellbacks", "rows": rows, "asked": page}

    def _orders(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {"title": "Orders", "rows": self._admin.records.list_orders(query=(page := _page(query))), "asked": page}

    def _requests(self, _: Mapping[str, str]) -> dict[str, Any]:
        return {"title": "Requests", "entries": self._admin.controls.log.latest(_ROWS)}

    def _request(self, number: str) -> dict[str, Any]:
        return {"title": f"Request {number}", "entry": self._admin.controls.log.find(number)}

    def _options(self, _: Mapping[str, str]) -> dict[str, Any]:
        return {"title": "Options", "options": self._admin.controls.get_options()}


def _page(query: Mapping[str, str], rows: int = _ROWS) -> bodies.Page:
    wanted = {name: query[name] for name in ("start", "search") if name in query}
    return msgspec.convert({**wanted, "limit": rows}, bodies.Page, strict=False)


def _tile(item: Item, now: datetime) -> Tile:
    ends = item.buyback_expires_at
    is_over = not item.sellback_open(now)
    offer = "offer ended" if is_over else "no end" if ends is None else f"{shown.lasting(ends - now)} left"
    # The year is in the name, and the grader in the grade.
    facts = [fact for fact in item.content.metadata.attributes if fact.trait_type not in ("Year", "Grader")]
    told = " · ".join(str(fact.value) for fact in facts if fact.value is not None)
    return Tile(item, offer, is_over, told)


def _pack(stock: PackStock) -> dict[str, Any]:
    """Collect a pack with its odds, and where each tier begins in a bar of 100."""
    tiers, begin = [], 0.0
    for tier, odds in stock.pack.odds:
        width = float(odds) * 100
        tiers.append({"tier": tier, "odds": odds, "begin": f"{begin:.2f}", "width": f"{width:.2f}"})
        begin += width
    return {"pack": stock.pack, "tiers": tiers, "cards": sum(len(each) for each in stock.listings.values())}

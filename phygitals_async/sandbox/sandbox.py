"""Answers requests as the documented sandbox does (API sheet, section 4)."""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, unquote

from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Operation
from phygitals_async._checks import shown
from phygitals_async._structuring.converter import build_converter
from phygitals_async.errors import ConfigurationError, ServerError
from phygitals_async.models import Attribute, Content, Item, ItemSource, Pack
from phygitals_async.sandbox.answers import Answers, feed_value
from phygitals_async.sandbox.catalogue import CDN, Listing, PackStock, default_catalogue, item_id, picture
from phygitals_async.sandbox.ledger import SELLBACK_WINDOW, Ledger
from phygitals_async.sandbox.options import RateLimit, SandboxOptions, TokenBucket
from phygitals_async.sandbox.records import Refused
from phygitals_async.sandbox.snapshot import Snapshot
from phygitals_async.sandbox.wire import json_object, no_such_route, path_and_query
from phygitals_async.transport import Request, Response


class Derive(enum.Enum):
    """Stands for a value that follows from others."""

    FROM_PACK = "from the pack"
    FROM_ID = "from the item id"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Sandbox:
    """The vendor's sandbox, kept in memory: call it with a `Request` and it returns a `Response`.

    It accepts every key that starts with `sandbox-`, at `/api/v1` and at `/_/api/v1` of any host. It holds its state
    until `wipe()` (S1).

    Args:
        clock: Returns the time now, UTC; replace it to move time in a test, or use `advance`.
        seed: Makes what it invents and draws repeatable.
        options: What only production does.
        catalogue: Makes the packs that are on offer first, three by default; `full_catalogue` of
            `phygitals_async.sandbox.market` makes as many as the vendor has.
        limit_clock: Returns the time by which `rate_limit` counts; by default the sandbox's own.
        pictures: The base URL of a picture for each card, `{pictures}/_cards/{item id}/front.svg`; by default all cards
            have the same one, at the vendor's.

    Raises:
        ConfigurationError: `options` are no `SandboxOptions`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = _utc_now,
        seed: int | None = None,
        options: SandboxOptions | None = None,
        catalogue: Callable[[random.Random], Collection[PackStock]] = default_catalogue,
        limit_clock: Callable[[], datetime] | None = None,
        pictures: str | None = None,
    ) -> None:
        self._clock = clock
        self._pictures = pictures
        self._ahead = timedelta(0)
        self._rng = random.Random(seed)  # noqa: S311 - what it draws must be repeatable, not unguessable.
        self._stocks = {stock.pack.id: stock for stock in catalogue(self._rng)}
        # Apart from what is drawn: going back to a snapshot does not make it give out the same ids again.
        self._ids = random.Random(None if seed is None else f"ids {seed}")  # noqa: S311 - as above.
        self._ledger = Ledger(
            self.now, self._rng, self._ids, SandboxOptions() if options is None else _checked(options)
        )
        self._limit_clock = limit_clock or self.now
        self._bucket: TokenBucket | None = None
        self._converter = build_converter()
        self._routes = [(operation, _path_pattern(operation)) for operation in OPERATIONS]

    @property
    def options(self) -> SandboxOptions:
        """What only production does. Change it, or replace it, at any time."""
        return self._ledger.options

    @options.setter
    def options(self, options: SandboxOptions) -> None:
        self._ledger.options = _checked(options)

    @property
    def packs(self) -> tuple[Pack, ...]:
        """The packs on offer."""
        return tuple(stock.pack for stock in self._stocks.values())

    @property
    def stocks(self) -> Mapping[str, PackStock]:
        """The packs on offer with what can be drawn from them, by the pack's id."""
        return self._stocks

    @property
    def ledger(self) -> Ledger:
        """Who owns what, to be looked at."""
        return self._ledger

    def now(self) -> datetime:
        """Return the sandbox's time, UTC, cut to the milliseconds that the API writes."""
        now = self._clock() + self._ahead
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def advance(self, by: timedelta) -> None:
        """Move the sandbox's time ahead of its clock."""
        self._ahead += by

    def wipe(self) -> None:
        """Forget users, purchases, quotes and orders, as a restart of the vendor's sandbox does (S1)."""
        self._ledger = Ledger(self.now, self._rng, self._ids, self.options)

    def snapshot(self) -> Snapshot:
        """Return all that it holds now: users, purchases, quotes, orders, packs, options, time and chance."""
        return Snapshot.of(self._ledger, self._stocks, self._ahead)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to what a `snapshot` of it holds, as often as wanted.

        It draws the same cards again, but ids that it makes up, of sessions, quotes, orders and items, are new ones.
        """
        self._ledger = snapshot.ledger(self.now, self._rng, self._ids)
        self._stocks, self._ahead = dict(snapshot.stocks), snapshot.ahead

    def add_pack(self, pack: Pack, listings: Collection[Listing] = ()) -> None:
        """Offer a pack, replacing one with the same id. Each listing goes to the tier its value falls in.

        Raises:
            ValueError: There are listings, but the pack has no rarity tier.
        """
        self._stocks[pack.id] = PackStock(pack, listings)

    def add_user(self, user_id: str) -> None:
        """Make a user known, owning nothing. A known user changes nothing."""
        self._ledger.users.setdefault(user_id, [])

    def add_item(
        self,
        user_id: str,
        *,
        name: str,
        buyback_price: Decimal,
        id: str | None = None,  # noqa: A002 - the API's own word.
        type: ItemSource | None = ItemSource.ENFT,  # noqa: A002 - the API's own word.
        claw_id: str | None = None,
        claw_slug: str | Derive | None = Derive.FROM_PACK,
        image: str | Derive = Derive.FROM_ID,
        back_image: str | Derive | None = Derive.FROM_ID,
        attributes: tuple[Attribute, ...] = (),
        purchased_at: datetime | None = None,
    ) -> Item:
        """Give a user an item, as if pulled from a pack, and return it as inventory shows it.

        An item of eBay has no mint address (S11); its sellback window is 7 days (S14).

        Args:
            user_id: The owner; becomes known if it was not.
            name: The card's name.
            buyback_price: What a sellback pays, in USD.
            id: The item id; invented by default.
            type: Where the card comes from.
            claw_id: The pack's id; by default the first pack's.
            claw_slug: The pack's slug; by default that of `claw_id`, or None where no such pack is on offer.
            image: URL of the front picture; by default see `pictures`.
            back_image: URL of the back picture, or None; by default see `pictures`.
            attributes: Facts about the card.
            purchased_at: When it was pulled, UTC; now by default.

        Raises:
            TypeError: `buyback_price` is no Decimal.
            ValueError: A value is not one that an item may have.
        """
        if not isinstance(buyback_price, Decimal):
            msg = f"buyback_price must be a Decimal, such as Decimal('8.50'), not {buyback_price.__class__.__name__}"
            raise TypeError(msg)
        pulled = purchased_at or self.now()
        pack_id = claw_id or next(iter(self._stocks))
        if isinstance(claw_slug, Derive):
            claw_slug = self._stocks[pack_id].pack.slug if pack_id in self._stocks else None
        new_id, fmv = id or item_id(self._ids, type), feed_value(buyback_price)
        listing = Listing(
            id=new_id,
            name=name,
            fmv=fmv,
            type=type,
            image=self._picture(new_id, "front") if isinstance(image, Derive) else image,
            back_image=self._picture(new_id, "back") if isinstance(back_image, Derive) else back_image,
            attributes=attributes,
        )
        item = Item(
            id=listing.id,
            claw_id=pack_id,
            claw_slug=claw_slug,
            buyback_price=buyback_price,
            mint_address=listing.mint_address,
            purchased_at=pulled,
            buyback_expires_at=pulled + SELLBACK_WINDOW,
            content=Content(listing.metadata, listing.links),
            type=type,
        )
        self._ledger.give(user_id, item, fmv)
        return item

    def put_item(self, user_id: str, item: Item) -> None:
        """Give a user exactly `item`, such as one that only production would show."""
        self._ledger.give(user_id, item, feed_value(item.buyback_price))

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        if (limit := self.options.rate_limit) is not None and (wait := self._seconds_to_wait(limit)) is not None:
            asked = {"retry-after": str(int(wait) + 1)} if limit.retry_after else {}
            return self._json(429, {"error": "Rate limit exceeded"}, asked)
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, query = path_and_query(request.url)
        is_production = self.options.strict and not path.startswith("/_/")
        if is_production or not headers.get("x-api-key", "").startswith("sandbox-"):
            return self._json(401, {"error": "Invalid API key"})
        below = re.sub(r"^(/_)?/api/v1(?=/)", "", path)
        for operation, pattern in self._routes:
            if operation.method == request.method and below != path and (found := pattern.fullmatch(below)):
                segments = {name: unquote(text) for name, text in found.groupdict().items()}
                parameters = parse_qs(query, keep_blank_values=True)
                answers = Answers(self._stocks, self._ledger)
                try:
                    self._fail_instead(operation)
                    body = json_object(headers.get("content-type", ""), request.body)
                    return self._json(200, getattr(answers, operation.name)(**segments, query=parameters, body=body))
                except Refused as refused:
                    return self._json(refused.status, refused.body)
        return no_such_route(request.method, path)

    def _picture(self, item_id: str, side: str) -> str:
        return f"{CDN}/cards/{side}.png" if self._pictures is None else picture(self._pictures, item_id, side)

    def _fail_instead(self, operation: Operation[Any]) -> None:
        """Answer the documented 500 of an operation, if it has one and the options want it."""
        for refusal in operation.refusals:
            if refusal.error is ServerError and self.options.use_up("server_errors"):
                # Of some texts, only the beginning is known.
                raise Refused(500, refusal.text.partition("{")[0])

    def _seconds_to_wait(self, limit: RateLimit) -> float | None:
        if self._bucket is None or self._bucket.limit is not limit:
            self._bucket = TokenBucket(limit, self._limit_clock())
        return self._bucket.take(self._limit_clock())

    def _json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        content_type = {"content-type": "application/json; charset=utf-8"}
        return Response(status, {**content_type, **(headers or {})}, self._converter.dumps(body))


def _checked(options: SandboxOptions) -> SandboxOptions:
    if not isinstance(options, SandboxOptions):
        msg = f"options must be SandboxOptions(...), not {shown(options)}"
        raise ConfigurationError(msg)
    return options


def _path_pattern(operation: Operation[Any]) -> re.Pattern[str]:
    """Match an operation's path; an encoded slash stays inside its segment."""
    return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", operation.path))

"""The client for programs without an event loop: scripts, and web frameworks that are not async.

Written by `python scripts/build_sync.py`: change the async client instead, and run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from phygitals_async import client
from phygitals_async._bulk.fan_out import DEFAULT_LIMIT, DEFAULT_PATIENCE
from phygitals_async._bulk.outcomes import Batch
from phygitals_async._calls.allowance import SharedRate
from phygitals_async._calls.journal import Journal
from phygitals_async._calls.retry import RetryPolicy
from phygitals_async._public import public
from phygitals_async._structuring.converter import PhygitalsConverter
from phygitals_async._sync.door import Door, own
from phygitals_async._sync.streams import FanOut
from phygitals_async.clock import SkippingClock
from phygitals_async.config import Environment
from phygitals_async.models import (
    Card,
    ChaseCard,
    Destination,
    Inventory,
    Pack,
    Pull,
    Purchase,
    Rows,
    Sellback,
    ShippingOrder,
    ShippingQuotes,
    ShippingRequest,
    StartedPurchase,
)
from phygitals_async.observer import Observer
from phygitals_async.transport import Transport

__all__ = ["FanOut", "PhygitalsClient"]


@public
class PhygitalsClient(Door):
    """The sync client: what `phygitals_async.PhygitalsClient` does, for threads that wait for it.

    Use it as a context manager, or call `close()`. One client serves any number of threads at once: its calls run in
    one event loop, in a thread that starts with the first of them and ends with `close()`. After a fork the child's
    first call starts its own; bulk runs and iterators belong to the process that made them. Observers, converters and
    transports run in that thread, and cannot use the client.

    Ctrl-C cancels the call that is waited for, and is raised once it has ended. Where the call moves money or goods,
    the `KeyboardInterrupt` has a note that says so, or the `OutcomeUnknown` as its cause. Neither is there if it comes
    in the instant in which a result is being returned: that result is lost, so without a note, too, find out.

    A `deadline` is the seconds the whole call may take, by default the client's (90 for `purchase` and
    `wait_for_purchase`, none for `watch_order`). Every method may raise, besides the errors it names:
    `InvalidArgumentError`, `ConfigurationError` and `ClientClosed` before anything is sent, `StatusError` for any other
    refusal, `TransportError` where no usable answer came, and `DecodeError` where it is not what the API documents.
    `start_purchase`, `sell_back` and `request_shipping` are sent at most once, and raise `OutcomeUnknown` instead of
    the latter three wherever the API may have acted. Sections named here are those of the API sheet, in
    `docs/api-sheet.md` of the source.

    Args:
        transport: What sends the requests, closed together with the client, or the name of an engine: `aiohttp`, which
            is the default, `httpx2` or `reqwest`.
        api_key: The partner's key; else `PHYGITALS_API_KEY`.
        environment: Else `PHYGITALS_ENVIRONMENT` (`production` or `sandbox`), else what the key tells: a key that
            starts with `sandbox-` means sandbox, any other production. One that nearly does, such as `sandbox_x`, is
            refused unless an environment or a base URL is given.
        base_url: Used as it stands, with any key unless it is the vendor's; else `PHYGITALS_BASE_URL`, else the
            environment's.
        path_prefix: Appended to the base URL. The vendor may be moving it (API sheet, section 1).
        deadline: Seconds each call may take in all, attempts, waits and pauses, unless the call names its own.
        attempt_timeout: Seconds for one attempt of a read, not counting the wait for admission.
        max_in_flight: The most requests in flight; more calls wait: calls that move money or goods go first, single
            calls next, lookups of bulk runs last.
        rate: The most requests per second, for those who know their limit; else the pace is learnt from refusals. A
            `Budget` of `phygitals_async.refresh` is one that clients of several processes share; where its store fails,
            a call that waits for its moment is not sent, and raises the `StoreError`; a bulk run waits for it.
        retry: How reads, and calls that provably never left, are repeated.
        observer: Is told of calls, attempts and bulk progress; see `Observer`.
        converter: Structures the answers; see `build_converter`.
        on_unreadable: What becomes of an answer in which some rows are not what the API documents. `refuse` raises the
            `DecodeError`, whose `partial` holds the others; `keep` returns the others, `unreadable` lists the rest, and
            a warning in the log tells how many. It concerns what reads rows: packs, chase cards, recent pulls,
            inventories, quotes, orders. A card, a purchase, and the answer of a call that moves money or goods are
            whole or refused.
        journal: Where each call that moves money or goods is written down, before it is sent and after its end: a store
            of `phygitals_async.refresh`, which is not closed with the client. A call whose intent cannot be written is
            not sent, and raises the `StoreError`. See `phygitals_async.journal`.
        clock: Moves the time in a test; see `phygitals_async.clock`.

    Raises:
        ConfigurationError: A setting is missing, malformed, or contradicts another.
    """

    def __init__(
        self,
        transport: Transport | Literal["aiohttp", "httpx2", "reqwest"] | None = None,
        *,
        api_key: str | None = None,
        environment: Environment | str | None = None,
        base_url: str | None = None,
        path_prefix: str = "/api/v1",
        deadline: float = 30.0,
        attempt_timeout: float = 15.0,
        max_in_flight: int = 100,
        rate: float | SharedRate | None = None,
        retry: RetryPolicy | None = None,
        observer: Observer | None = None,
        converter: PhygitalsConverter | None = None,
        on_unreadable: Literal["refuse", "keep"] = "refuse",
        journal: Journal | None = None,
        clock: SkippingClock | None = None,
    ) -> None:
        super().__init__(
            client.PhygitalsClient(
                transport,
                api_key=api_key,
                environment=environment,
                base_url=base_url,
                path_prefix=path_prefix,
                deadline=deadline,
                attempt_timeout=attempt_timeout,
                max_in_flight=max_in_flight,
                rate=rate,
                retry=retry,
                observer=observer,
                converter=converter,
                on_unreadable=on_unreadable,
                journal=journal,
                clock=clock,
            )
        )

    def list_packs(
        self, *, platform: str | None = None, include_repacks: bool | None = None, deadline: float | None = None
    ) -> Rows[Pack]:
        """Return the packs on offer (API sheet, 2.1).

        Args:
            platform: `mainnet`, the API's default, means first-party packs.
            include_repacks: Whether to include partner repacks; not documented for partners.
            deadline: Seconds for the whole call.
        """
        return self._call(self._api.list_packs, platform=platform, include_repacks=include_repacks, deadline=deadline)

    def list_chase_cards(self, slug: str, *, deadline: float | None = None) -> Rows[ChaseCard]:
        """Return the cards a pack is bought for (API sheet, 2.2).

        Args:
            slug: The pack's slug, not its id.
            deadline: Seconds for the whole call.

        Raises:
            NotFound: The pack is unknown or inactive.
        """
        return self._call(self._api.list_chase_cards, slug, deadline=deadline)

    def list_recent_pulls(
        self, *, claw_ids: Iterable[str] | None = None, limit: int | None = None, deadline: float | None = None
    ) -> Rows[Pull]:
        """Return what was pulled lately by anybody, newest first (API sheet, 2.3).

        Args:
            claw_ids: Pack ids to show, at least one; all packs by default. Unknown ids are no error.
            limit: 1 to 100 pulls; 20 by the API's default.
            deadline: Seconds for the whole call.
        """
        return self._call(self._api.list_recent_pulls, claw_ids=own(claw_ids), limit=limit, deadline=deadline)

    def get_card(self, item_id: str, *, deadline: float | None = None) -> Card:
        """Return a card's details, its fair market value in USD among them (API sheet, 2.4).

        Args:
            item_id: An item's id.
            deadline: Seconds for the whole call.

        Raises:
            CardNotFound: The id is neither a listing nor a mint address.
        """
        return self._call(self._api.get_card, item_id, deadline=deadline)

    def start_purchase(
        self, pack_id: str, amount: int, user_id: str, *, deadline: float | None = None
    ) -> StartedPurchase:
        """Buy pulls of a pack for one of your users. **Moves money**, and is sent at most once (API sheet, 2.5).

        Record the intent and the user's inventory before; keep the `session_id` after.

        Args:
            pack_id: The pack's id, not its slug.
            amount: Pulls to buy, 1 to the pack's `max_per_mint`.
            user_id: Who owns the pulls; becomes known to the API with the first purchase.
            deadline: Seconds for the whole call.

        Raises:
            OutcomeUnknown: The answer was lost: see there how to find out.
            OutOfStock: The pack cannot be bought now.
            AmountOutOfRange: The amount is above the pack's `max_per_mint`.
            PackNotFound: The pack id is unknown.
        """
        return self._call(self._api.start_purchase, pack_id, amount, user_id, deadline=deadline)

    def get_purchase(self, session_id: str, *, deadline: float | None = None) -> Purchase | None:
        """Return a purchase with its items, or None while it is pending or has none yet (API sheet, 2.6).

        The API may hold the request for about 6 seconds. Sandbox purchases are never pending.

        Args:
            session_id: From `start_purchase`.
            deadline: Seconds for the whole call.

        Raises:
            TransactionFailed: The purchase failed; in sandbox, the session is unknown.
        """
        return self._call(self._api.get_purchase, session_id, deadline=deadline)

    def wait_for_purchase(self, session_id: str, *, deadline: float = 90.0, interval: float = 1.0) -> Purchase:
        """Poll a purchase until it is fulfilled, through passing failures, at growing and jittered intervals.

        See `get_purchase` (API sheet, 2.6).

        Args:
            session_id: From `start_purchase`.
            deadline: Seconds to wait in all.
            interval: Seconds before the second poll; later pauses grow to 5 s.

        Raises:
            PurchasePending: The deadline passed; it is unknown, not failed, and can be waited for again.
            TransactionFailed: The purchase failed; in sandbox, the session is unknown.
        """
        return self._call(self._api.wait_for_purchase, session_id, deadline=deadline, interval=interval)

    def purchase(
        self, pack_id: str, amount: int, user_id: str, *, deadline: float = 90.0, interval: float = 1.0
    ) -> Purchase:
        """Start a purchase and wait for it: `start_purchase`, then `wait_for_purchase`. **Moves money**.

        The start is sent at most once (API sheet, 2.5 and 2.6). To survive a crash in between, make the two calls and
        store the session id yourself: an exception that ends the waiting names it in a note,
        and every `PhygitalsError` of it in `error.arguments`.

        Args:
            pack_id: The pack's id, not its slug.
            amount: Pulls to buy, 1 to the pack's `max_per_mint`.
            user_id: Who owns the pulls; becomes known to the API with the first purchase.
            deadline: Seconds in all. The start has the client's deadline at most.
            interval: Seconds before the second poll; later pauses grow to 5 s.

        Raises:
            OutcomeUnknown: The answer to the start was lost: see there how to find out.
            PurchasePending: The deadline passed after the start, or the client was closed; wait again with the
                session id.
            TransactionFailed: The purchase failed.
            OutOfStock: The pack cannot be bought now.
            AmountOutOfRange: The amount is above the pack's `max_per_mint`.
            PackNotFound: The pack id is unknown.
        """
        return self._call(self._api.purchase, pack_id, amount, user_id, deadline=deadline, interval=interval)

    def sell_back(self, item_id: str, *, owner: str | None = None, deadline: float | None = None) -> Sellback:
        """Sell an item back to Phygitals. **Moves money**, and is sent at most once (API sheet, 2.8).

        The amount paid may differ from any price shown before: production prices at the moment of the sale.

        Args:
            item_id: The item's id; it alone decides whose sellback it is.
            owner: The user whose item it has to be. **Nothing else keeps one user from selling another's item**: the
                API asks for no user. Their inventory is read first, by a call of `get_inventory` that may take half of
                the deadline; its errors come out as they are, and nothing was sold then.
            deadline: Seconds for the whole call.

        Raises:
            NotOwned: The owner's inventory does not show the item; nothing was sold.
            OutcomeUnknown: The answer was lost: see there how to find out.
            ItemNotFound: Unknown, already sold, locked in a shipping order, or not a tracked user's.
            ItemExpired: The sellback offer has ended.
            SellbackInProgress: Another sellback of this item is under way.
            TransactionFailed: The sellback failed.
        """
        return self._call(self._api.sell_back, item_id, owner=owner, deadline=deadline)

    def quote_shipping(
        self,
        item_ids: Iterable[str],
        destination: Destination,
        *,
        owner: str | None = None,
        deadline: float | None = None,
    ) -> ShippingQuotes:
        """Return what it costs to ship items to a destination; reserves and charges nothing (API sheet, 2.9).

        Args:
            item_ids: At least one item id.
            destination: Where to; the country as two letters.
            owner: The user whose items they have to be. **Nothing else keeps one user from shipping another's items**:
                the API asks for no user. Their inventory is read first, by a call of `get_inventory` that may take half
                of the deadline; its errors come out as they are.
            deadline: Seconds for the whole call.

        Raises:
            NotOwned: The owner's inventory does not show all of the items; nothing was quoted.
            AddressRejected: The address is not valid; carries the vendor's suggestion, ready to be quoted.
            CountryNotSupported: The country is not serviced.
            ItemNotFound: An id is unknown or belongs to another partner's user.
            NothingShippable: None of the items can be shipped.
        """
        return self._call(self._api.quote_shipping, own(item_ids), destination, owner=owner, deadline=deadline)

    def request_shipping(self, quote_id: str, *, deadline: float | None = None) -> ShippingRequest:
        """Ship the items of a quote. **Moves goods, bills the partner, cannot be cancelled** (API sheet, 2.10).

        Sent at most once. Record the intent before; keep the `order_id` after: no endpoint lists orders.

        Args:
            quote_id: The id of one quote, not of the quote session.
            deadline: Seconds for the whole call.

        Raises:
            OutcomeUnknown: The answer was lost: see there how to find out.
            MissingField: It is no quote id.
            QuoteExpired: The quote is past its expiry or unknown.
            ItemAlreadyShipped: An item is locked in another order.
            ShippingRequestFailed: The vendor's reserved failure.
        """
        return self._call(self._api.request_shipping, quote_id, deadline=deadline)

    def get_shipping_order(self, order_id: str, *, deadline: float | None = None) -> ShippingOrder:
        """Return where a shipping order stands (API sheet, 2.11).

        Args:
            order_id: From `request_shipping`.
            deadline: Seconds for the whole call.

        Raises:
            OrderNotFound: Unknown, or another partner's.
        """
        return self._call(self._api.get_shipping_order, order_id, deadline=deadline)

    def watch_order(
        self, order_id: str, *, interval: float = 60.0, deadline: float | None = None
    ) -> Iterator[ShippingOrder]:
        """Yield a shipping order now, and again at each change of its status, until it is terminal.

        It polls on through passing failures, unless a `Retry-After` asks for more than an hour; each poll has the
        client's deadline (API sheet, 2.11). Sandbox orders stay queued, so give a deadline where that matters.

        Args:
            order_id: From `request_shipping`.
            interval: Seconds between polls, spread by a quarter either way.
            deadline: Seconds to watch in all, also counting what the loop's body takes; without end by default.

        Raises:
            DeadlineExceeded: The deadline passed first; its `__cause__` is the last poll's error, if it had one.
            OrderNotFound: Unknown, or another partner's.
            RateLimited: The server asked to stay away for more than an hour.
        """
        return self._iterate(self._api.watch_order(order_id, interval=interval, deadline=deadline))

    def get_inventory(self, user_id: str, *, deadline: float | None = None) -> Inventory:
        """Return what a user owns now (API sheet, 2.7).

        Args:
            user_id: The id the partner gave when buying; any non-empty text but `.` and `..`.
            deadline: Seconds for the whole call.

        Raises:
            UserNotFound: The user is unknown to this partner, or never bought.
        """
        return self._call(self._api.get_inventory, user_id, deadline=deadline)

    def stream_inventories(
        self,
        user_ids: Iterable[str],
        *,
        limit: int = DEFAULT_LIMIT,
        distinct: bool = False,
        deadline: float | None = None,
        patience: float = DEFAULT_PATIENCE,
    ) -> FanOut[str, Inventory]:
        """Look up many users' inventories, yielding each outcome as it completes (API sheet, 2.7).

        Use it as `with api.stream_inventories(ids) as outcomes: for outcome in outcomes: ...`; see
        `fan_out` for what it promises. Memory stays flat however many ids there are.

        Args:
            user_ids: Any iterable, read lazily.
            limit: The most lookups in flight; lowered to the client's `max_in_flight`, which is logged.
            distinct: Look a repeated id up only once, at the price of remembering every id.
            deadline: Seconds for each lookup from its turn on; by default the client's.
            patience: Seconds that one outage, or a limit, may last before the rest is given up; 0 to wait for none.

        Raises:
            ConfigurationError: `limit` is not a whole number of at least 1, or a time not a number of seconds.
            InvalidArgumentError: `user_ids` is a single string, or cannot be iterated.
        """
        return self._stream(
            lambda keys: self._api.stream_inventories(
                keys, limit=limit, distinct=distinct, deadline=deadline, patience=patience
            ),
            user_ids,
        )

    def get_inventories(
        self,
        user_ids: Iterable[str],
        *,
        limit: int = DEFAULT_LIMIT,
        deadline: float | None = None,
        patience: float = DEFAULT_PATIENCE,
    ) -> Batch[str, Inventory]:
        """Look up many users' inventories and return every outcome, in the order of the ids (API sheet, 2.7).

        A repeated id is looked up once and has its outcome at each of its places. All outcomes are held
        in memory: for very many users, use `stream_inventories`.

        Args:
            user_ids: Any iterable.
            limit: The most lookups in flight; lowered to the client's `max_in_flight`, which is logged.
            deadline: Seconds for each lookup from its turn on; by default the client's.
            patience: Seconds that one outage, or a limit, may last before the rest is given up; 0 to wait for none.

        Raises:
            ConfigurationError: `limit` is not a whole number of at least 1, or a time not a number of seconds.
            InvalidArgumentError: `user_ids` is a single string, cannot be iterated, or holds something
                unhashable.
        """
        return self._call(self._api.get_inventories, own(user_ids), limit=limit, deadline=deadline, patience=patience)

"""Calls of the sync client: what comes back, from which thread, and in which context."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import anyio
import pytest

from phygitals_async import (
    Call,
    ConfigurationError,
    DecodeError,
    Destination,
    Failed,
    Found,
    InvalidArgumentError,
    Observer,
    OrderStatus,
    OutcomeUnknown,
    Response,
    UserNotFound,
)
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import AiohttpTransport, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from sync_support import KEY, Api, in_threads, loops, open_api

WHERE = Destination(name="Jane Doe", line1="123 Main St", city="Austin", postal_code="78701", country="US")


def test_the_whole_life_of_a_card() -> None:
    """Every operation, in the order of an application."""
    with open_api() as it:
        api = it.api
        pack = next(pack for pack in api.list_packs() if pack.purchasable)
        assert pack.slug is not None
        assert api.list_chase_cards(pack.slug)
        started = api.start_purchase(pack.id, 1, "b")
        assert api.wait_for_purchase(started.session_id) == api.get_purchase(started.session_id)
        assert len(api.purchase(pack.id, 1, "b").nfts) == 1
        assert api.list_recent_pulls(claw_ids=iter([pack.id]), limit=5)
        sold, shipped = api.get_inventory("b").items
        assert api.get_card(sold.id).id
        assert api.sell_back(sold.id).success
        quotes = api.quote_shipping(iter([shipped.id]), WHERE)
        request = api.request_shipping(quotes.quotes[0].id)
        assert api.get_shipping_order(request.order_id).status == OrderStatus.QUEUED
        order = next(api.watch_order(request.order_id))
        assert order.order_id == request.order_id
        batch = api.get_inventories(iter(["a", "b", "nobody"]))
        assert [type(outcome) for outcome in batch] == [Found, Found, Failed]


def test_watching_ends_with_the_order() -> None:
    """The iterator of a terminal order ends."""
    order = (
        b'{"order_id": "o", "status": "delivered", "destination": {}, "items": [], '
        b'"created_at": "2026-01-01T00:00:00Z"}'
    )
    with PhygitalsClient(MemoryTransport(lambda _: Response(200, {}, order)), api_key=KEY) as api:
        assert [order.status for order in api.watch_order("o")] == [OrderStatus.DELIVERED]


def test_forty_threads_at_once() -> None:
    """One client serves them all, the first calls included; there is one loop."""
    with open_api() as it:
        for number in range(40):
            it.sandbox.add_item(f"user{number}", name="Card", buyback_price=Decimal(number + 1))
        results = in_threads(40, lambda number: [it.api.get_inventory(f"user{number}") for _ in range(5)])
        assert [[found.items[0].buyback_price for found in five] for five in results] == [  # type: ignore[union-attr]
            [number + 1] * 5 for number in range(40)
        ]
        assert len(loops()) == 1


def test_forty_threads_over_sockets() -> None:
    """The same over real HTTP."""
    it = Api()

    async def main() -> list[Any]:
        async with serve(it.sandbox) as url:
            with PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=f"{url}/_") as api:
                return await asyncio.to_thread(in_threads, 40, lambda _: api.get_inventory("a").items[0].id)

    assert asyncio.run(main()) == [it.item.id] * 40
    assert not loops()


def test_within_a_running_event_loop() -> None:
    """A notebook's thread has a loop already; the client's is another one."""

    async def main() -> str:
        with open_api() as it:
            return it.api.get_inventory("a").items[0].id

    assert asyncio.run(main())


def test_within_trio() -> None:
    """What the caller's context says of the async library that runs is not true of the client's loop."""

    async def main() -> str:
        with open_api() as it:
            return it.api.get_inventory("a").items[0].id

    assert anyio.run(main, backend="trio")


_request_id: ContextVar[str] = ContextVar("request_id", default="none")


def test_a_call_runs_in_the_context_of_its_thread() -> None:
    """An observer sees the context variables of the caller: the id of the web request, the span of a tracer."""
    seen: list[str] = []

    class Noting(Observer):
        def started(self, call: Call) -> None:
            seen.append(_request_id.get())

    with open_api(observer=Noting()) as it:

        def work(number: int) -> None:
            _request_id.set(str(number))
            it.api.get_inventory("a")
            assert [type(one) for one in it.api.get_inventories(["a"])] == [Found]

        assert in_threads(8, work) == [None] * 8
    assert sorted(seen) == sorted(str(number) for number in range(8) for _ in range(2))


def test_iterables_are_read_in_the_calling_thread() -> None:
    """A cursor or a lazy query may refuse another thread, or one with a running event loop."""

    def ids() -> Iterator[str]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        yield "a"

    with open_api() as it:
        assert [type(outcome) for outcome in it.api.get_inventories(ids())] == [Found]
        with pytest.raises(InvalidArgumentError, match="claw_ids must be a collection of ids, not a single str"):
            it.api.list_recent_pulls(claw_ids="abc")


def test_an_error_shows_the_caller_and_little_else() -> None:
    """The traceback leads from the caller to the client, and not through threads and loops."""
    with open_api() as it:
        with pytest.raises(UserNotFound) as caught:
            it.api.get_inventory("nobody")
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[0].name == "test_an_error_shows_the_caller_and_little_else"
        assert len(frames) == 2
        assert (caught.value.operation, caught.value.attempts) == ("get_inventory", 1)
        with pytest.raises(InvalidArgumentError, match="get_inventory: user_id must not be empty"):
            it.api.get_inventory("")


def test_a_cause_is_kept() -> None:
    """What is behind an error is there as with the async client."""
    with (
        PhygitalsClient(MemoryTransport(lambda _: Response(200, {}, b"{")), api_key=KEY) as api,
        pytest.raises(OutcomeUnknown) as caught,
    ):
        api.sell_back("item")
    assert isinstance(caught.value.__cause__, DecodeError)


def test_a_bug_keeps_its_frames() -> None:
    """What is no error of this library shows where it comes from."""

    class Broken(Observer):
        def started(self, call: Call) -> None:
            raise SystemExit(3)

    with open_api(observer=Broken()) as it:
        with pytest.raises(SystemExit) as caught:
            it.api.get_inventory("a")
        assert "started" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        # The loop has survived it.
        with pytest.raises(SystemExit):
            it.api.get_inventory("a")


def test_a_wrong_setting_is_refused_where_the_client_is_made() -> None:
    """No thread starts for it, and the half-made client has a repr."""
    with pytest.raises(ConfigurationError, match="deadline must be"):
        PhygitalsClient(MemoryTransport(print), api_key=KEY, deadline=0)  # type: ignore[arg-type]
    assert repr(PhygitalsClient.__new__(PhygitalsClient)) == "<sync PhygitalsClient, not configured>"
    assert not loops()


def test_repr() -> None:
    """It shows where the client goes, that it is the sync one, and never the key."""
    it = Api()
    assert repr(it.api) == "<sync PhygitalsClient sandbox at https://api.phygitals.com/_/api/v1>"
    it.api.close()
    assert repr(it.api) == "<sync PhygitalsClient sandbox at https://api.phygitals.com/_/api/v1, closed>"

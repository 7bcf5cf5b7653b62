"""The clock on which pauses take no time, and whatever they are for still happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    DecodeError,
    Destination,
    ItemExpired,
    NotAttempted,
    OutcomeUnknown,
    PhygitalsClient,
    PurchasePending,
    RateLimited,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    Sent,
)
from phygitals_async.clock import SkippingClock
from phygitals_async.sandbox import RateLimit
from phygitals_transports import AiohttpTransport, CachingTransport, FaultTransport, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from support import empty_inventories
from virtual import backend_options, no_task_left, settle
from wrapper_support import KEY, Gate, json_answer

HOME = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")


@pytest.fixture(params=["asyncio", "trio", "virtual asyncio", "virtual trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    """Run on both event loops, in their own time and in one that jumps."""
    virtual, _, name = request.param.rpartition(" ")
    return name, backend_options(name) if virtual else {}


@pytest.fixture
def clock() -> SkippingClock:
    """Return a clock."""
    return SkippingClock()


@pytest.fixture
def sandbox(clock: SkippingClock) -> Sandbox:
    """Return a sandbox whose time is the clock's."""
    made = Sandbox(seed=1, clock=clock.utc_now)
    made.add_item("ann", id="card", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
    return made


@asynccontextmanager
async def client_of(clock: SkippingClock, handler: Any, **settings: Any) -> AsyncIterator[PhygitalsClient]:
    """Give a client on the clock, and check that it leaves no task behind."""
    with no_task_left():
        async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, clock=clock, **settings) as api:
            yield api
        # On trio, a timer that was stopped is a task that takes a turn to end.
        await settle()


# Pauses


@pytest.mark.anyio
async def test_a_purchase_through_pending_polls(clock: SkippingClock, sandbox: Sandbox) -> None:
    """Each pause is skipped, and each poll made: three pauses of at least three quarters of 1, 1.5 and 2.25 s."""
    sandbox.options.pending_polls = 3
    async with client_of(clock, sandbox) as api:
        bought = await api.purchase(sandbox.packs[0].id, 1, "ann")
    assert bought.nfts
    assert 3.5 < clock.ahead < 6


@pytest.mark.anyio
async def test_a_pause_that_the_server_asks_for(clock: SkippingClock, sandbox: Sandbox) -> None:
    """The sandbox's own time goes by, so its limit lets the repeat in."""
    sandbox.options.rate_limit = RateLimit(per_second=0.05, burst=1)
    async with client_of(clock, sandbox) as api:
        await api.get_inventory("ann")
        assert len((await api.get_inventory("ann")).items) == 1
    assert 19 < clock.ahead < 22


@pytest.mark.anyio
async def test_seven_days(clock: SkippingClock, sandbox: Sandbox) -> None:
    """`advance` moves the sandbox, and the client goes on as before."""
    before = clock.utc_now()
    async with client_of(clock, sandbox) as api:
        clock.advance(timedelta(days=7))
        with pytest.raises(ItemExpired):
            await api.sell_back("card")
    assert timedelta(days=7) <= clock.utc_now() - before < timedelta(days=7, hours=1)
    assert clock.utc_now().tzinfo is UTC
    with pytest.raises(ConfigurationError, match="forward"):
        clock.advance(timedelta(seconds=-1))


@pytest.mark.anyio
async def test_an_order_is_watched_for_days(clock: SkippingClock, sandbox: Sandbox) -> None:
    """The sandbox moves it on as the time skips from poll to poll."""
    sandbox.options.order_stage = timedelta(days=2)
    async with client_of(clock, sandbox) as api:
        quotes = await api.quote_shipping(["card"], HOME)
        order = await api.request_shipping(quotes.quotes[0].id)
        seen = [each.status async for each in api.watch_order(order.order_id, interval=6 * 3600)]
        assert len(seen) > 2
        assert seen[-1].is_terminal
    assert 5 * 86400 < clock.ahead < 30 * 86400


@pytest.mark.anyio
async def test_an_order_that_never_moves_is_watched_until_the_deadline(clock: SkippingClock, sandbox: Sandbox) -> None:
    """A day of the clock, to the second."""

    async def watch(api: PhygitalsClient, order_id: str) -> None:
        async for _ in api.watch_order(order_id, interval=3600, deadline=86400):
            pass

    async with client_of(clock, sandbox) as api:
        quotes = await api.quote_shipping(["card"], HOME)
        order = await api.request_shipping(quotes.quotes[0].id)
        with pytest.raises(DeadlineExceeded, match="86400 s"):
            await watch(api, order.order_id)
    assert 86390 < clock.ahead <= 86400


@pytest.mark.anyio
async def test_pauses_before_repeats_and_in_an_outage(clock: SkippingClock) -> None:
    """A bulk run waits for the server as long as it says, and finds everybody."""
    down_until = clock.utc_now() + timedelta(minutes=4)

    def handler(request: Request) -> Response:
        return json_answer(503) if clock.utc_now() < down_until else empty_inventories(request)

    async with client_of(clock, handler) as api:
        batch = await api.get_inventories([f"user-{number}" for number in range(40)], limit=8, patience=600)
        assert len(batch.found) == 40
        assert 230 < clock.ahead < 300


@pytest.mark.anyio
async def test_an_outage_longer_than_patience(clock: SkippingClock) -> None:
    """It ends as it would in real time."""
    async with client_of(clock, lambda _: json_answer(503)) as api:
        batch = await api.get_inventories([f"user-{number}" for number in range(40)], limit=8, patience=100)
    assert len(batch.failed) == 40
    assert any(isinstance(failed.error, NotAttempted) for failed in batch.failed)
    assert 90 < clock.ahead < 140


@pytest.mark.anyio
async def test_a_limit_of_the_clients_own(clock: SkippingClock) -> None:
    """A hundred requests at 2 a second take 50 seconds of the clock."""
    async with client_of(clock, empty_inventories, rate=2.0) as api:
        batch = await api.get_inventories([f"user-{number}" for number in range(101)], limit=8)
    assert len(batch.found) == 101
    assert 45 < clock.ahead <= 51


@pytest.mark.anyio
async def test_pauses_end_in_their_order(clock: SkippingClock) -> None:
    """The shortest first, whoever began; what was skipped for one is gone for the others."""
    ended: list[float] = []
    started = clock.now()

    async def pause(seconds: float) -> None:
        await clock.sleep(seconds)
        ended.append(seconds)
        if seconds == 5:
            await pause(7)

    async with anyio.create_task_group() as group:
        with clock.under_way():
            for seconds in (20, 5, 3600, 0):
                group.start_soon(pause, seconds)
            await settle()
    assert ended == [0, 5, 7, 20, 3600]
    assert 3600 <= clock.now() - started < 3610


@pytest.mark.anyio
async def test_nothing_is_skipped_while_a_request_is_under_way(clock: SkippingClock) -> None:
    """Its deadline would pass with it. Once it is answered, the pause is skipped."""
    gate = Gate()
    paused = anyio.Event()

    async def pause() -> None:
        await clock.sleep(3600)
        paused.set()

    async def look() -> None:
        with pytest.raises(DecodeError):
            await api.get_inventory("ann")

    async with client_of(clock, gate) as api, anyio.create_task_group() as group:
        group.start_soon(look)
        await settle()
        group.start_soon(pause)
        # Longer than it would take to be skipped.
        await anyio.sleep(0.02)
        assert (clock.ahead, paused.is_set()) == (0, False)
        gate.opened[0].set()
        await paused.wait()
    assert clock.ahead > 3500


@pytest.mark.anyio
async def test_a_pause_within_a_request(clock: SkippingClock) -> None:
    """A server that holds a poll for 6 seconds takes none."""

    async def holds(request: Request) -> Response:
        await clock.sleep(6)
        return empty_inventories(request)

    async with client_of(clock, holds) as api:
        async with anyio.create_task_group() as group:
            for user in ("ann", "bob"):
                group.start_soon(api.get_inventory, user)
        assert 5.9 < clock.ahead <= 12


# Deadlines


@pytest.mark.anyio
async def test_a_deadline_passes_with_what_is_skipped(clock: SkippingClock, sandbox: Sandbox) -> None:
    """A purchase that stays pending is given up after 90 seconds of the clock."""
    sandbox.options.pending_polls = 1000
    async with client_of(clock, sandbox) as api:
        started = await api.start_purchase(sandbox.packs[0].id, 1, "ann")
        with pytest.raises(PurchasePending, match="after 90 s"):
            await api.wait_for_purchase(started.session_id)
    assert 80 < clock.ahead < 91


@pytest.mark.anyio
async def test_advancing_ends_what_is_under_way(clock: SkippingClock) -> None:
    """As if the answer had not come for so long."""
    gate = Gate()
    async with client_of(clock, gate) as api:

        async def sell() -> None:
            with pytest.raises(OutcomeUnknown) as caught:
                await api.sell_back("card", deadline=30)
            assert isinstance(caught.value.__cause__, DeadlineExceeded)

        async with anyio.create_task_group() as group:
            group.start_soon(sell)
            await settle()
            clock.advance(timedelta(seconds=20))
            await settle()
            clock.advance(timedelta(seconds=20))


@pytest.mark.anyio
async def test_a_deadline_still_ends_what_hangs(clock: SkippingClock) -> None:
    """The clock never stands still: a server that answers nothing takes the real time of the deadline."""
    async with client_of(clock, Gate()) as api:
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await api.get_inventory("ann", deadline=0.05)
    assert clock.ahead == 0


@pytest.mark.anyio
async def test_delays_of_a_fault(clock: SkippingClock, sandbox: Sandbox) -> None:
    """They take no time either, and the deadline ends them where it should."""
    faults = FaultTransport(MemoryTransport(sandbox), sleep=clock.sleep)
    async with PhygitalsClient(faults, api_key=KEY, clock=clock) as api:
        faults.delay("sell_back", 60)
        with pytest.raises(DeadlineExceeded) as caught:
            await api.sell_back("card", deadline=50)
        assert caught.value.sent is Sent.NEVER
        await api.sell_back("card", deadline=70)
    assert 109 < clock.ahead <= 110


@pytest.mark.anyio
async def test_the_lifetime_of_a_cache(clock: SkippingClock, sandbox: Sandbox) -> None:
    """It goes by with the clock."""
    inner = MemoryTransport(sandbox)
    caching = CachingTransport(inner, lifetime=60, clock=clock.now)
    async with PhygitalsClient(caching, api_key=KEY, clock=clock) as api:
        for seconds, sent in [(0, 1), (50, 1), (20, 2)]:
            clock.advance(timedelta(seconds=seconds))
            await api.get_inventory("ann")
            assert len(inner.sent) == sent


@pytest.mark.anyio
async def test_a_pause_that_the_policy_does_not_allow(clock: SkippingClock, sandbox: Sandbox) -> None:
    """What a client would not wait for in real time, it does not wait for on the clock."""
    sandbox.options.rate_limit = RateLimit(per_second=0.001, burst=1)
    async with client_of(clock, sandbox, retry=RetryPolicy(longest=20)) as api:
        await api.list_packs()
        with pytest.raises(RateLimited):
            await api.list_packs()
    assert clock.ahead == 0


# The life of a clock


@pytest.mark.anyio
async def test_closing_a_client_that_pauses(clock: SkippingClock) -> None:
    """The pause ends at once, and nothing is skipped for it any more."""
    async with client_of(clock, Gate()) as other:
        api = PhygitalsClient(MemoryTransport(lambda _: json_answer(503)), api_key=KEY, clock=clock)
        ended: list[type[BaseException]] = []

        async def look() -> None:
            try:
                await api.get_inventory("ann")
            except ClientClosed as error:
                ended.append(type(error))

        async with anyio.create_task_group() as group:
            # A request of another client keeps the pause from being skipped.
            scope = anyio.CancelScope()

            async def hang() -> None:
                with scope:
                    await other.get_inventory("ann")

            group.start_soon(hang)
            await settle()
            group.start_soon(look)
            await settle()
            await api.aclose()
            await settle()
            assert ended == [ClientClosed]
            scope.cancel()
    assert clock.ahead == 0


@pytest.mark.anyio
async def test_a_cancelled_pause(clock: SkippingClock) -> None:
    """Nothing is left of it, within a request or not."""

    async def holds(request: Request) -> Response:
        await clock.sleep(10**6)
        return empty_inventories(request)

    async with client_of(clock, holds) as api:
        works: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: clock.sleep(10**6),
            lambda: api.get_inventory("ann"),
        ]
        for work in works:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(work)
                    await anyio.lowlevel.checkpoint()
                    scope.cancel()
    assert (clock._pauses, clock._scopes, clock._timers, clock._under_way) == (set(), set(), set(), set())
    assert clock._stop_looking is None


def test_one_event_loop_after_another() -> None:
    """A loop that was left in the middle of something leaves nothing behind."""
    clock = SkippingClock()
    api = PhygitalsClient(MemoryTransport(empty_inventories), api_key=KEY, clock=clock, rate=0.001)

    async def leave_in_the_middle() -> None:
        await api.get_inventory("ann")
        task = asyncio.ensure_future(api.get_inventory("ann", deadline=5000))
        await asyncio.sleep(0)
        assert not task.done()

    async def look() -> None:
        await api.get_inventory("ann")

    asyncio.run(leave_in_the_middle())
    for backend in ("trio", "asyncio"):
        before = clock.ahead
        anyio.run(look, backend=backend)
        assert clock.ahead == before


def test_two_event_loops_at_once() -> None:
    """They are refused: no time is that of both."""
    clock = SkippingClock()

    async def elsewhere() -> None:
        with pytest.raises(ConfigurationError, match="this clock is in use by another event loop"):
            clock.now()

    async def main() -> None:
        clock.now()
        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere))

    anyio.run(main)


@pytest.mark.asyncio
async def test_over_sockets() -> None:
    """A server of real HTTP in the same loop is waited for, and the pauses between its answers are not."""
    clock = SkippingClock()
    made = Sandbox(seed=1, clock=clock.utc_now)
    made.options.pending_polls = 5
    async with (
        serve(made) as url,
        PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=f"{url}/_", clock=clock) as api,
    ):
        bought = await api.purchase(made.packs[0].id, 1, "ann")
        assert bought.nfts
    assert 8 < clock.ahead < 20


@pytest.mark.parametrize("clock", [datetime.now, SkippingClock, "now"])
def test_what_is_no_clock(clock: Any) -> None:
    """It is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="clock must be a SkippingClock"):
        PhygitalsClient(MemoryTransport(empty_inventories), api_key=KEY, clock=clock)

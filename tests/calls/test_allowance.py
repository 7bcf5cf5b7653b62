"""A rate that clients share: requests leave at reserved moments, and whoever waits for one reserves it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    NotAttempted,
    PhygitalsClient,
    Request,
    Response,
    Sent,
    StoreError,
    StoreUnavailable,
)
from phygitals_async._calls.admission import Admission
from phygitals_async._calls.lanes import Priority
from phygitals_async._calls.shared_pacer import SharedPacer
from phygitals_async.clock import SkippingClock
from phygitals_async.refresh import Budget, MemoryStore
from phygitals_transports import MemoryTransport
from support import ONCE, inventory_of, last_segment
from virtual import no_task_left, run_virtually, settle, virtual_backend

anyio_backend = virtual_backend
pytestmark = pytest.mark.anyio
MONEY, SINGLE, BULK = Priority


class Shelf(MemoryStore):
    """A store in virtual time that takes `seconds` for a reservation, fails when it is told to, and counts."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(clock=anyio.current_time)
        self.seconds = seconds
        self.fails = False
        self.asked: list[float] = []
        self.moments = 0
        self.busy = 0

    async def reserve(self, name: str, seconds: float) -> float:
        """Reserve after a while, or fail."""
        assert not self.busy, "two of one client reserve at once"
        self.busy += 1
        self.asked.append(anyio.current_time())
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.busy -= 1
        if self.fails:
            msg = "the store is gone"
            raise StoreUnavailable(msg)
        self.moments += 1
        return await super().reserve(name, seconds)


async def turn() -> None:
    """Let a task that was just started reach what it waits for; trio starts several in any order."""
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


class Log:
    """A client that shares a rate, and when each of its requests left."""

    def __init__(
        self, store: Any, rate: float, handler: Callable[[Request], Awaitable[Any]] | None = None, **options: Any
    ) -> None:
        self.left: list[tuple[float, str]] = []
        self.handler = handler
        options.setdefault("retry", ONCE)
        self.api = PhygitalsClient(
            MemoryTransport(self.answer), api_key="sandbox-test", rate=Budget(store, rate), **options
        )

    async def answer(self, request: Request) -> Response:
        """Note the time, and answer."""
        self.left.append((anyio.current_time(), last_segment(request)))
        if self.handler is not None:
            other: Response | None = await self.handler(request)
            if other is not None:
                return other
        if request.method == "POST":
            return Response(200, {}, b'{"session_id":"s"}')
        return inventory_of(last_segment(request))

    @property
    def moments(self) -> list[float]:
        """When they left, in seconds since the first."""
        return [moment - self.left[0][0] for moment, _ in self.left]

    @property
    def allowance(self) -> Any:
        """What it has in hand."""
        return self.api._engine.admission._allowance


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.05])
async def test_requests_leave_evenly_however_long_the_store_takes(seconds: float) -> None:
    """The next moments are reserved while those in hand are used up; the first of all is waited for."""
    store = Shelf(seconds)
    log = Log(store, 100.0)
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(log.api.get_inventory, f"user_{number}")
            await turn()
    assert log.left[0][0] - start == pytest.approx(seconds)
    assert log.moments[10:] == pytest.approx([nth * 0.01 + log.moments[10] for nth in range(90)], abs=1e-6)
    assert log.moments[10] <= 0.1 + 4 * seconds
    # They came first come, first served.
    assert [who for _, who in log.left] == [f"user_{number}" for number in range(100)]
    # Those in flight when it failed, and some probes.
    assert sum(asked < 60 for asked in store.asked) < 64 + 40


async def test_several_clients_share_one_rate() -> None:
    """All moments are somebody's, and each has its share."""
    store = Shelf()
    store.reserve = MemoryStore(clock=anyio.current_time).reserve  # type: ignore[method-assign]  # For this test.
    logs = [Log(store, 200.0) for _ in range(4)]
    async with anyio.create_task_group() as group:
        for log in logs:
            group.start_soon(log.api.get_inventories, [f"user_{number}" for number in range(100)])
    every = sorted(moment for log in logs for moment, _ in log.left)
    assert [later - sooner for sooner, later in pairwise(every)] == pytest.approx([0.005] * 399, abs=1e-6)
    halfway = every[200]
    for log in logs:
        assert 40 <= sum(moment < halfway for moment, _ in log.left) <= 60


async def test_other_budgets_of_a_store_are_others() -> None:
    """Such as those of two keys."""
    store = MemoryStore(clock=anyio.current_time)
    assert await Budget(store, 1.0, "one").reserve(5) == 0.0
    assert await Budget(store, 1.0, "two").reserve(5) == 0.0
    assert await Budget(store, 2.0, "two").reserve(1) == 5.0


async def test_a_client_reserves_no_more_than_it_has_use_for() -> None:
    """So single calls take nothing from others."""
    store = MemoryStore(clock=anyio.current_time)
    log = Log(store, 200.0)
    for _ in range(5):
        await log.api.get_inventory("u")
        await anyio.sleep(1)
    assert log.allowance.first(anyio.current_time()) == float("inf")
    assert log.moments == pytest.approx([0, 1, 2, 3, 4])
    assert await store.reserve("default", 1.0) == 0.0


async def test_money_goes_first_then_single_calls_then_bulk_runs() -> None:
    """Whoever came first, and whoever reserved."""
    log = Log(MemoryStore(clock=anyio.current_time), 10.0)
    async with anyio.create_task_group() as group:
        group.start_soon(log.api.get_inventory, "first")
        group.start_soon(log.api.get_inventories, ["b1", "b2"])
        await settle()
        group.start_soon(log.api.get_inventory, "single")
        group.start_soon(log.api.start_purchase, "p", 1, "u")
    assert [who for _, who in log.left] == ["first", "init", "single", "b1", "b2"]
    assert log.moments == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_another_reserves_where_the_one_who_does_gives_up(how: str) -> None:
    """Cancelled or at its deadline: it was never sent, and the others go on."""
    store = Shelf(5.0)
    log = Log(store, 10.0)
    start = anyio.current_time()
    errors: list[DeadlineExceeded] = []

    async def give_up() -> None:
        if how == "cancelled":
            with anyio.move_on_after(1):
                await log.api.get_inventory("gives up")
            return
        with pytest.raises(DeadlineExceeded, match="not sent within 1 s") as caught:
            await log.api.get_inventory("gives up", deadline=1.0)
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await settle()
        assert store.busy
        for number in range(3):
            group.start_soon(log.api.get_inventory, f"user_{number}")
            await turn()
    assert [who for _, who in log.left] == ["user_0", "user_1", "user_2"]
    assert store.asked[:2] == [start, start + 1]
    assert log.left[0][0] - start == pytest.approx(6)
    assert all((error.sent, error.attempts) == (Sent.NEVER, 0) for error in errors)
    assert log.api._engine.admission.in_flight == 0


async def test_who_is_cancelled_before_it_has_begun_to_reserve_is_replaced() -> None:
    """In the moment between being appointed and running."""
    store = Shelf()
    log = Log(store, 10.0)
    admission = log.api._engine.admission
    lane = admission.lane("get_inventory")
    scope = anyio.CancelScope()

    async def give_up() -> None:
        with scope:
            await admission.enter(lane, SINGLE)

    async with anyio.create_task_group() as group:
        store.seconds = 1.0
        for waiter in (admission.enter, admission.enter):
            group.start_soon(waiter, lane, SINGLE)
            await settle()
        group.start_soon(give_up)
        await settle()
        # The first reserves; the last in line comes next.
        await anyio.sleep(1)
        scope.cancel()
    assert admission.in_flight == 2
    assert not lane.waiting[SINGLE]


async def test_who_is_let_in_while_it_reserves_sends_after_that() -> None:
    """Who came before gave up, and its moment is the next one's."""
    store = Shelf()
    log = Log(store, 10.0)
    await log.api.get_inventory("first")
    scope = anyio.CancelScope()

    async def give_up() -> None:
        with scope:
            await log.api.get_inventory("gives up")

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await settle()
        store.seconds = 1.0
        group.start_soon(log.api.get_inventory, "reserves")
        await settle()
        assert store.busy
        scope.cancel()
        await anyio.sleep(0.5)
        assert store.busy
        assert log.api._engine.admission.in_flight == 1
    assert [who for _, who in log.left] == ["first", "reserves"]
    assert log.moments == pytest.approx([0, 1])
    # Its reservation is there for the next.
    assert log.allowance.first(anyio.current_time()) == pytest.approx(log.left[1][0])


async def test_who_is_let_in_before_it_has_begun_to_reserve_need_not() -> None:
    """In the moment between being appointed and running, here by the end of the client."""
    store = Shelf(1.0)
    admission = Admission(10, Budget(store, 10.0))
    lane = admission.lane("get_inventory")
    scope = anyio.CancelScope()

    async def give_up() -> None:
        with scope:
            await admission.enter(lane, SINGLE)
        admission.close()

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await settle()
        group.start_soon(admission.enter, lane, SINGLE)
        await settle()
        scope.cancel()
    assert admission.in_flight == 1
    assert len(store.asked) == 1


async def test_a_store_that_fails_costs_one_call_at_a_time() -> None:
    """That one was never sent; the others wait, try again after a while, and go on when the store is back."""
    store = Shelf()
    store.fails = True
    log = Log(store, 10.0)
    start = anyio.current_time()
    errors: list[StoreError] = []

    async def call(number: int) -> None:
        try:
            await log.api.get_inventory(f"user_{number}")
        except StoreError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(call, number)
            await settle()
        await anyio.sleep(1.1)
        store.fails = False
    assert len(errors) == 5
    assert [asked - start for asked in store.asked[:6]] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0, 1.25])
    assert [str(error) for error in errors] == ["get_inventory: the store is gone"] * 5
    assert all((error.sent, error.attempts) == (Sent.NEVER, 0) for error in errors)
    assert len(log.left) == 15
    assert log.api._engine.admission.in_flight == 0


async def test_a_purchase_whose_moment_cannot_be_reserved_was_never_sent() -> None:
    """No `OutcomeUnknown`."""
    store = Shelf()
    store.fails = True
    log = Log(store, 10.0)
    with pytest.raises(StoreUnavailable) as caught:
        await log.api.start_purchase("p", 1, "u")
    assert (caught.value.sent, caught.value.attempts, log.left) == (Sent.NEVER, 0, [])


async def test_a_further_attempt_takes_a_moment_too() -> None:
    """And where it gets none, the error says what became of the attempt before."""
    store = Shelf()

    async def fail(_: Request) -> Response:
        store.fails = len(log.left) == 2
        return Response(503, {"retry-after": "0.01"}, b"{}")

    log = Log(store, 1.0, fail, retry=None)
    with pytest.raises(StoreUnavailable) as caught:
        await log.api.get_inventory("u")
    assert log.moments == pytest.approx([0, 1])
    assert (caught.value.sent, caught.value.attempts) == (Sent.YES, 2)


async def test_a_bug_of_a_shared_rate_is_raised() -> None:
    """It is nobody's outage."""

    class Broken:
        interval = 0.1

        async def reserve(self, count: int) -> float:
            raise ZeroDivisionError

    api = PhygitalsClient(MemoryTransport(inventory_of), api_key="sandbox-test", rate=Broken())  # type: ignore[arg-type]  # Wrong on purpose.
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await api.get_inventory("u")


async def test_moments_that_nobody_used_are_lost() -> None:
    """They make no burst later."""
    log = Log(MemoryStore(clock=anyio.current_time), 200.0)

    async def call_and_give_up() -> None:
        with anyio.move_on_after(0.001):
            await log.api.get_inventory("gives up")

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(call_and_give_up)
    assert [who for _, who in log.left] == ["gives up"]
    allowance = log.allowance
    assert len(allowance._moments) == 3
    # One that is late by less is used at once.
    await anyio.sleep(0.3)
    assert log.api._engine.admission.enter_at_once(
        log.api._engine.admission.lane("get_inventory"), SINGLE, anyio.current_time()
    )
    await anyio.sleep(0.3)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(log.api.get_inventory, "u")
    moments = [moment for moment, who in log.left if who == "u"]
    assert [later - sooner for sooner, later in pairwise(moments)] == pytest.approx([0.005, 0.005])


async def test_a_moment_beyond_the_deadline_is_not_waited_for() -> None:
    """A call fails at once where all know that its turn comes later."""
    log = Log(MemoryStore(clock=anyio.current_time), 0.1)
    async with anyio.create_task_group() as group:
        await log.api.get_inventory("first")
        group.start_soon(log.api.get_inventory, "second")
        await settle()
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded, match="not sent within 5 s") as caught:
            await log.api.get_inventory("third", deadline=5.0)
        assert caught.value.sent is Sent.NEVER
        assert anyio.current_time() == start
    assert log.moments == pytest.approx([0, 10])


async def test_a_pause_holds_and_nothing_is_reserved_in_it() -> None:
    """What the server asked for goes before what was reserved."""
    store = Shelf()

    async def refuse(_: Request) -> Response | None:
        return Response(429, {"retry-after": "20"}, b"{}") if len(log.left) == 10 else None

    log = Log(store, 10.0, refuse, retry=None)
    outcomes = await log.api.get_inventories([f"user_{number}" for number in range(20)])
    assert len(outcomes.found) == 20
    assert log.moments[9] == pytest.approx(0.9)
    assert log.moments[10] >= 20.9
    began = log.left[0][0]
    assert not any(1.1 < asked - began < 20.7 for asked in store.asked)


async def test_a_lookup_of_a_bulk_run_waits_for_its_moment_beyond_its_deadline() -> None:
    """As for a pace: the time until its turn is the run's."""
    log = Log(MemoryStore(clock=anyio.current_time), 1.0)
    outcomes = await log.api.get_inventories([f"user_{number}" for number in range(20)], deadline=2.0)
    assert len(outcomes.found) == 20
    assert log.moments == pytest.approx(list(range(20)))


async def test_a_bulk_run_waits_for_the_store() -> None:
    """However many keys there are: it costs time, and no key."""
    store = Shelf()
    log = Log(store, 10.0)

    async def recover() -> None:
        await anyio.sleep(60)
        store.fails = False

    store.fails = True
    ids = [f"user_{number}" for number in range(100)]
    async with anyio.create_task_group() as group:
        group.start_soon(recover)
        batch = await log.api.get_inventories(ids)
        assert [found.key for found in batch.found] == ids
    # Those in flight when it failed, and some probes.
    assert sum(asked < 60 for asked in store.asked) < 64 + 40


async def test_a_store_that_stays_away_ends_a_bulk_run() -> None:
    """Once patience is at its end: what was looked up fails by the store, the others are not attempted."""
    store = Shelf()
    store.fails = True
    log = Log(store, 10.0)
    began = anyio.current_time()
    batch = await log.api.get_inventories([f"user_{number}" for number in range(100)], limit=8, patience=60)
    assert anyio.current_time() - began == pytest.approx(60, abs=6)
    kinds = Counter(type(failed.error) for failed in batch.failed)
    assert set(kinds) == {StoreUnavailable, NotAttempted}
    assert kinds.total() == 100
    assert log.left == []


async def test_closing_while_somebody_reserves_leaves_nothing_behind() -> None:
    """Everybody finds the client closed, and no task is left."""
    store = Shelf(1.0)
    log = Log(store, 10.0)
    errors: list[ClientClosed] = []

    async def call() -> None:
        with pytest.raises(ClientClosed) as caught:
            await log.api.get_inventory("u")
        errors.append(caught.value)

    with no_task_left():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
            await settle()
            assert store.busy
            await log.api.aclose()
        assert log.left == []
    assert [error.sent for error in errors] == [Sent.NEVER] * 5
    assert log.api._engine.admission.in_flight == 0


@pytest.mark.parametrize("seed", range(3))
def test_storms_of_cancelled_calls_leave_all_places_free(seed: int) -> None:
    """Cancelled while they queue, reserve, or send, and with a store that fails now and then."""
    rng = random.Random(seed)

    async def main() -> None:
        store = Shelf(0.01)

        async def moody(_: Request) -> Response:
            await anyio.sleep(rng.random() / 10)
            return Response(rng.choice([200, 200, 200, 429, 500]), {}, b'{"user_id":"u","items":[]}')

        log = Log(store, 100.0, moody, max_in_flight=5)

        async def call() -> None:
            store.fails = rng.random() < 0.1
            with anyio.move_on_after(rng.random()):
                await log.api.get_inventories(["u"])

        async with anyio.create_task_group() as group:
            for _ in range(500):
                group.start_soon(call)
                await anyio.sleep(rng.random() / 50)
        store.fails = False
        admission = log.api._engine.admission
        assert admission.in_flight == admission._waiting == 0
        await anyio.sleep(60)
        log.handler = None
        assert len((await log.api.get_inventories([str(n) for n in range(20)])).found) == 20

    run_virtually(main, seed=seed)


async def test_on_a_skipping_clock_the_moments_take_no_time() -> None:
    """With a store that goes by the same clock."""
    clock = SkippingClock()
    transport = MemoryTransport(lambda request: inventory_of(last_segment(request)))
    budget = Budget(MemoryStore(clock=clock.now), 1.0)
    api = PhygitalsClient(transport, api_key="sandbox-test", rate=budget, clock=clock)
    start = clock.now()
    assert len((await api.get_inventories([str(number) for number in range(20)])).found) == 20
    assert clock.now() - start == pytest.approx(19, abs=0.5)


@pytest.mark.parametrize("rate", [MemoryStore(), Budget, "200"])
def test_a_shared_rate_is_a_budget(rate: Any) -> None:
    """Not its store, and not the class."""
    with pytest.raises(ConfigurationError, match="rate must be a positive, finite number"):
        PhygitalsClient(MemoryTransport(inventory_of), api_key="sandbox-test", rate=rate)  # type: ignore[arg-type]  # Wrong on purpose.


async def test_a_stray_429_costs_a_pause_and_no_pace() -> None:
    """It says nothing of this client's share; with or without Retry-After."""
    refused: list[int] = []

    async def refuse(_: Request) -> Response | None:
        if len(log.left) not in (30, 31, 100):
            return None
        refused.append(len(log.left))
        return Response(429, {"retry-after": "1"} if len(log.left) < 100 else {}, b"{}")

    log = Log(MemoryStore(clock=anyio.current_time), 100.0, refuse, retry=None)
    batch = await log.api.get_inventories([f"user_{number}" for number in range(200)])
    assert len(batch.found) == 200
    assert refused == [30, 31, 100]
    # Two pauses of a second, for the second is of another burst; after 0.2 seconds the moments in hand are used up.
    assert log.moments[-1] == pytest.approx(203 * 0.01 + 2.0, abs=0.2)
    for began in (30, 31):
        later = log.moments[began : began + 20]
        assert later[0] - log.moments[began - 1] >= 1
    assert log.api._engine.admission.lane("get_inventory").pacer.rate is None


async def test_where_the_server_goes_on_refusing_the_pace_is_learnt() -> None:
    """The shared rate is faster than it allows."""
    bucket = [10.0, 0.0]

    async def limit(_: Request) -> Response | None:
        now = anyio.current_time()
        bucket[:] = [min(10.0, bucket[0] + (now - bucket[1]) * 20.0), now]
        if bucket[0] < 1:
            return Response(429, {}, b"{}")
        bucket[0] -= 1
        return None

    log = Log(MemoryStore(clock=anyio.current_time), 100.0, limit, retry=None)
    batch = await log.api.get_inventories([f"user_{number}" for number in range(1000)])
    assert len(batch.found) == 1000
    assert log.moments[-1] < 1.2 * 1000 / 20
    assert log.api._engine.admission.lane("get_inventory").pacer.rate == pytest.approx(20, rel=0.2)
    assert len(log.left) < 1050


async def test_a_429_of_the_same_burst_is_no_news() -> None:
    """The others of it left before anybody knew."""
    pacer = SharedPacer()
    assert pacer.throttled(10.0, 9.9, 5.0)
    assert not pacer.throttled(10.1, 9.95, 5.0)
    assert pacer.due(11.0) == pytest.approx(15.1)


async def test_moments_that_are_late_are_not_used_all_at_once() -> None:
    """After a pause, or where the machine was busy, they are used at twice the rate."""

    async def refuse(_: Request) -> Response | None:
        return Response(429, {"retry-after": "0.2"}, b"{}") if len(log.left) == 50 else None

    log = Log(MemoryStore(clock=anyio.current_time), 200.0, refuse, retry=None)
    assert len((await log.api.get_inventories([f"user_{number}" for number in range(200)])).found) == 200
    resumed = log.moments[50:]
    assert resumed[0] == pytest.approx(log.moments[49] + 0.2)
    assert max(sum(moment <= each < moment + 0.02 for each in resumed) for moment in resumed) <= 14
    assert sum(each < resumed[0] + 0.05 for each in resumed) >= 15


async def test_nothing_is_reserved_for_calls_that_the_server_asked_to_wait() -> None:
    """Calls of another operation go on, and take what they need alone."""

    async def refuse(request: Request) -> Response | None:
        return Response(429, {"retry-after": "5"}, b"{}") if len(log.left) == 1 else None

    log = Log(MemoryStore(clock=anyio.current_time), 200.0, refuse, retry=None)
    async with anyio.create_task_group() as group:
        group.start_soon(log.api.get_inventory, "u")
        await settle()
        for _ in range(4):
            group.start_soon(log.api.get_inventory, "u")
        await settle()
        await anyio.sleep(1)
        await log.api.start_purchase("p", 1, "u")
        assert not log.allowance._moments
    assert [round(moment, 1) for moment in log.moments] == [0, 1, 5, 5, 5, 5, 5]

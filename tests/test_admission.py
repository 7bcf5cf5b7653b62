"""No more in flight than allowed, in the order they came, and no place is ever lost or invented."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from phygitals_async import ConfigurationError, DeadlineExceeded, PhygitalsClient, Request, Response, Sent
from phygitals_async._calls.admission import Admission
from phygitals_transports import MemoryTransport

T = TypeVar("T")

EMPTY = Response(200, {}, b'{"user_id":"u","items":[]}')


def simulate(main: Callable[[], Awaitable[T]], *, seed: int = 0) -> T:
    """Run `main` in simulated time, which jumps to whatever is waited for."""
    random.seed(seed)
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def never(_: Request) -> Response:
    """Answer nothing."""
    await trio.sleep_forever()


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


def paced(limit: int, rate: float) -> Admission:
    """Return an admission that lets `rate` a second pass."""
    admission = Admission(limit)
    admission.pacer.rate = rate
    return admission


@pytest.mark.anyio
async def test_the_limit_is_never_exceeded() -> None:
    """Many tasks, few places: the places are all used, and none twice."""
    admission = Admission(3)
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        await admission.enter()
        inside += 1
        most = max(most, inside)
        await settle()
        inside -= 1
        admission.leave()

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(work)
    assert most == 3
    assert admission.in_flight == 0


@pytest.mark.anyio
async def test_places_go_to_who_waits_longest() -> None:
    """First come, first served; nobody slips in between a leaving and the next in line."""
    admission = Admission(1)
    assert admission.enter_at_once(0.0)
    order: list[int] = []

    async def work(number: int) -> None:
        await admission.enter()
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, number)
            await settle()
        for _ in range(5):
            admission.leave()
            # The place is already the waiter's, although it has not run yet.
            assert not admission.enter_at_once(0.0)
            await settle()
    assert order == [0, 1, 2, 3, 4]
    admission.leave()
    assert admission.in_flight == 0
    assert admission.enter_at_once(0.0)


@pytest.mark.anyio
async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    """The place goes to the next one."""
    admission = Admission(1)
    assert admission.enter_at_once(0.0)
    scope = anyio.CancelScope()
    entered: list[str] = []

    async def give_up() -> None:
        with scope:
            await admission.enter()
            entered.append("cancelled")

    async def stay() -> None:
        await admission.enter()
        entered.append("stayed")

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await settle()
        group.start_soon(stay)
        await settle()
        scope.cancel()
        await settle()
        admission.leave()
    assert entered == ["stayed"]
    assert admission.in_flight == 1


@pytest.mark.anyio
async def test_a_waiter_cancelled_just_as_it_is_handed_the_place_hands_it_on() -> None:
    """The moment between being called and running is the one where places get lost."""
    admission = Admission(1)
    assert admission.enter_at_once(0.0)
    scope = anyio.CancelScope()
    entered: list[str] = []

    async def give_up() -> None:
        with scope:
            await admission.enter()
            entered.append("cancelled")
            admission.leave()

    async def stay() -> None:
        await admission.enter()
        entered.append("stayed")
        admission.leave()

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        await settle()
        group.start_soon(stay)
        await settle()
        admission.leave()
        scope.cancel()
    assert "stayed" in entered
    assert admission.in_flight == 0


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(5))
async def test_cancelling_at_any_moment_loses_and_invents_no_place(seed: int) -> None:
    """A thousand tasks, cancelled at random while queued, while waiting for the pace, and while inside."""
    rng = random.Random(seed)
    admission = paced(4, 20_000.0)
    inside, most = 0, 0

    async def work(scope: anyio.CancelScope) -> None:
        nonlocal inside, most
        with scope:
            if not admission.enter_at_once(anyio.current_time()):
                await admission.enter()
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(rng.randrange(4)):
                    await anyio.lowlevel.checkpoint()
            finally:
                inside -= 1
                admission.leave()

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            scope = anyio.CancelScope()
            group.start_soon(work, scope)
            if rng.random() < 0.3:
                await anyio.lowlevel.checkpoint()
            if rng.random() < 0.5:
                scope.cancel()
        await anyio.lowlevel.checkpoint()
    assert most <= 4
    assert inside == 0
    assert admission.in_flight == 0
    admission.pacer.rate = None
    assert [admission.enter_at_once(anyio.current_time() + 60) for _ in range(5)] == [True] * 4 + [False]


def test_cancelled_while_waiting_for_its_slot_a_call_gives_its_place_back() -> None:
    """The place is free again at once."""

    async def main() -> None:
        admission = paced(1, 0.1)
        await admission.enter()
        admission.leave()
        with trio.move_on_after(1):
            await admission.enter()
        assert admission.in_flight == 0
        start = trio.current_time()
        await admission.enter()
        assert trio.current_time() - start < 25

    simulate(main)


def test_who_is_overtaken_by_a_pause_waits_for_its_end() -> None:
    """A 429 that arrives while calls wait for their slot holds them back."""

    async def main() -> None:
        admission = paced(10, 1.0)
        entered: list[float] = []

        async def work() -> None:
            await admission.enter()
            entered.append(trio.current_time())

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(work)
            await trio.sleep(0.5)
            admission.pacer.throttled(trio.current_time(), trio.current_time(), 30.0)
        assert entered[0] == start
        assert all(moment - start >= 30.5 for moment in entered[1:])
        assert len(set(entered)) == 3

    simulate(main)


def test_calls_that_wait_for_the_pace_enter_in_order() -> None:
    """Also where a pause comes between, and where a newcomer finds the moment free."""

    async def main() -> None:
        admission = paced(100, 10.0)
        order: list[int] = []

        async def work(number: int) -> None:
            if not admission.enter_at_once(trio.current_time()):
                await admission.enter()
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(work, number)
                await trio.sleep(0.01)
                if number == 20:
                    admission.pacer.throttled(trio.current_time(), trio.current_time(), 0.35)
                    admission.pacer.rate = 10.0
        assert order == sorted(order)

    simulate(main)


@pytest.mark.anyio
async def test_idle_means_that_nobody_is_inside() -> None:
    """Any number of tasks can wait for it, and all are told."""
    admission = Admission(2)
    await admission.wait_until_idle()
    assert admission.enter_at_once(0.0)
    assert admission.enter_at_once(0.0)
    told: list[int] = []

    async def wait(number: int) -> None:
        await admission.wait_until_idle()
        told.append(number)

    with anyio.move_on_after(5):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(wait, number)
            await settle()
            admission.leave()
            await settle()
            assert told == []
            admission.leave()
    assert sorted(told) == [0, 1, 2]


# --- in calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
def test_max_in_flight_is_a_count(limit: int) -> None:
    """Anything else is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        PhygitalsClient(MemoryTransport(lambda _: EMPTY), api_key="sandbox-test", max_in_flight=limit)


@pytest.mark.anyio
async def test_all_calls_of_a_client_share_its_places() -> None:
    """Single calls, bulk runs and purchases together stay below `max_in_flight`."""
    inside, most = 0, 0

    async def answer(request: Request) -> Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await settle()
        inside -= 1
        return EMPTY if request.method == "GET" else Response(200, {}, b'{"session_id":"s"}')

    api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test", max_in_flight=3)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(api.get_inventory, "u")
            group.start_soon(api.start_purchase, "p", 1, "u")
            group.start_soon(api.get_inventories, ["a", "b", "c", "d"])
    assert most == 3
    assert inside == 0


def test_waiting_for_a_place_does_not_eat_into_an_attempts_limit() -> None:
    """Each answer takes 2 s and each attempt may take 3: the fourth in line is answered all the same."""

    async def answer(request: Request) -> Response:
        await trio.sleep(2)
        return EMPTY

    async def main() -> None:
        api = PhygitalsClient(
            MemoryTransport(answer), api_key="sandbox-test", max_in_flight=1, attempt_timeout=3.0, deadline=60.0
        )
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(api.get_inventory, "u")
        assert trio.current_time() - start == pytest.approx(10.0)

    simulate(main)


@pytest.mark.parametrize("money", [False, True])
def test_waiting_for_a_place_eats_into_the_deadline(money: bool) -> None:
    """A call that never got a place was never sent: no `OutcomeUnknown`, no attempt, and it says so."""
    transport = MemoryTransport(never)

    async def main() -> None:
        api = PhygitalsClient(transport, api_key="sandbox-test", max_in_flight=1, attempt_timeout=50.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.get_inventory, "stuck")
            await trio.sleep(0.1)
            start = trio.current_time()
            call = api.start_purchase("p", 1, "u", deadline=5.0) if money else api.get_inventory("u", deadline=5.0)
            with pytest.raises(DeadlineExceeded, match="not sent within 5 s") as caught:
                await call
            # A call that moves money keeps a quarter of its time for the answer.
            assert trio.current_time() - start == pytest.approx(3.75 if money else 5.0)
            assert caught.value.sent is Sent.NEVER
            assert caught.value.attempts == 0
            nursery.cancel_scope.cancel()
        assert api._engine.admission.in_flight == 0

    simulate(main)
    assert len(transport.sent) == 1


def test_waiting_for_the_end_of_a_pause_eats_into_the_deadline() -> None:
    """A read that was refused before says that it was sent; one that was not, that it never was."""
    transport = MemoryTransport(lambda _: Response(429, {"retry-after": "10"}, b"{}"))

    async def main() -> None:
        api = PhygitalsClient(transport, api_key="sandbox-test")
        start = trio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await api.get_inventory("u", deadline=5.0)
        assert caught.value.sent is Sent.YES
        assert caught.value.attempts == 1
        with pytest.raises(DeadlineExceeded) as caught:
            await api.start_purchase("p", 1, "u", deadline=1.0)
        assert caught.value.sent is Sent.NEVER
        assert caught.value.attempts == 0
        # A pause that outlasts the deadline is not waited for.
        assert trio.current_time() == start

    simulate(main)
    assert len(transport.sent) == 1


@pytest.mark.parametrize("seed", range(3))
def test_storms_of_cancelled_calls_leave_all_places_free(seed: int) -> None:
    """Cancelled while queued, paced, sending or pausing: afterwards the client is as good as new."""
    rng = random.Random(seed)

    async def answer(request: Request) -> Response:
        await trio.sleep(rng.random() / 10)
        return Response(rng.choice([200, 200, 200, 429, 500]), {}, EMPTY.body)

    async def main() -> None:
        api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test", max_in_flight=5)

        async def call() -> None:
            with trio.move_on_after(rng.random()):
                await api.get_inventories(["u"])

        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(call)
                await trio.sleep(rng.random() / 50)
        assert api._engine.admission.in_flight == 0
        await trio.sleep(60)
        assert len((await api.get_inventories([str(n) for n in range(20)])).found) > 0

    simulate(main, seed=seed)


def test_a_place_handed_over_at_the_very_end_of_the_deadline_is_not_used() -> None:
    """No time is left to wait for an answer: a purchase would be of unknown outcome for nothing."""
    transport = MemoryTransport(lambda _: Response(200, {}, b'{"session_id":"s"}'))
    clock = trio.testing.MockClock(autojump_threshold=0.01)

    async def main() -> None:
        api = PhygitalsClient(transport, api_key="sandbox-test", max_in_flight=1)
        await api.get_inventories([])
        await api.start_purchase("p", 1, "u")
        admission = api._engine.admission
        assert admission.enter_at_once(trio.current_time())
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(DeadlineExceeded) as caught:
                    await api.start_purchase("p", 1, "u", deadline=5.0)
                assert caught.value.sent is Sent.NEVER

            await trio.testing.wait_all_tasks_blocked()
            admission.leave()
            clock.jump(10.0)
        assert admission.in_flight == 0

    trio.run(main, clock=clock)
    assert len(transport.sent) == 1

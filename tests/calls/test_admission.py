"""No more in flight than allowed, money first, in the order they came, and no place is ever lost or invented."""

from __future__ import annotations

import asyncio
import json
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from phygitals_async import (
    ConfigurationError,
    DeadlineExceeded,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sent,
)
from phygitals_async._calls.admission import Admission
from phygitals_async._calls.lanes import Priority
from phygitals_transports import MemoryTransport
from virtual import EarlyLoop, run_virtually, settle, virtual_backend

anyio_backend = virtual_backend
MONEY, SINGLE, BULK = Priority


def answer(request: Request) -> Response:
    """Answer any call of these tests."""
    if request.method == "POST":
        return Response(200, {}, b'{"session_id":"s"}')
    return Response(200, {}, json.dumps({"user_id": request.url.rpartition("/")[2], "items": []}).encode())


def client(handler: Callable[[Request], object], **settings: object) -> PhygitalsClient:
    """Return a client of a handler."""
    return PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test", **settings)  # type: ignore[arg-type]


class Door:
    """An admission, as one operation sees it."""

    def __init__(self, admission: Admission, operation: str = "get_inventory", priority: Priority = SINGLE) -> None:
        self.admission = admission
        self.lane = admission.lane(operation)
        self.priority = priority

    def enter_at_once(self) -> bool:
        """Enter if that takes no waiting."""
        return self.admission.enter_at_once(self.lane, self.priority, anyio.current_time())

    async def enter(self) -> None:
        """Enter."""
        await self.admission.enter(self.lane, self.priority)

    def leave(self) -> None:
        """Leave."""
        self.admission.leave(self.lane, self.priority)


@pytest.mark.anyio
@pytest.mark.parametrize("priority", [SINGLE, MONEY])
async def test_the_limit_is_never_exceeded(priority: Priority) -> None:
    """Many tasks, few places: the places are all used, and none twice."""
    door = Door(Admission(3, None), priority=priority)
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        await door.enter()
        inside += 1
        most = max(most, inside)
        await settle()
        inside -= 1
        door.leave()

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(work)
    assert most == 3
    assert door.admission.in_flight == 0


@pytest.mark.anyio
async def test_places_go_to_who_waits_longest() -> None:
    """First come, first served; nobody slips in between a leaving and the next in line."""
    admission = Admission(1, None)
    doors = [Door(admission, f"operation {number % 2}") for number in range(5)]
    assert doors[0].enter_at_once()
    order: list[int] = []

    async def work(number: int) -> None:
        await doors[number].enter()
        order.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, number)
            await settle()
        for _ in range(5):
            doors[0].leave()
            # The place is already the waiter's, although it has not run yet.
            assert not doors[0].enter_at_once()
            await settle()
    assert order == [0, 1, 2, 3, 4]
    doors[0].leave()
    assert admission.in_flight == 0
    assert doors[0].enter_at_once()


@pytest.mark.anyio
@pytest.mark.parametrize("rate", [None, 10.0])
async def test_money_goes_first_then_single_calls_then_bulk_runs(rate: float | None) -> None:
    """Whoever came first, whether it is a place or a moment that all of them wait for."""
    admission = Admission(1 if rate is None else 100, rate)
    first = Door(admission)
    assert first.enter_at_once()
    order: list[Priority] = []

    async def work(priority: Priority) -> None:
        door = Door(admission, f"operation of {priority.name}", priority)
        await door.enter()
        order.append(priority)
        await settle()
        door.leave()

    async with anyio.create_task_group() as group:
        for priority in (BULK, BULK, SINGLE, BULK, MONEY, SINGLE, MONEY):
            group.start_soon(work, priority)
            await settle()
        first.leave()
    assert order == sorted(order)


@pytest.mark.anyio
@pytest.mark.parametrize("is_handed", [False, True])
async def test_a_waiter_that_is_cancelled_leaves_the_place_to_the_next(is_handed: bool) -> None:
    """Also in the moment between being handed the place and running, where places get lost."""
    door = Door(Admission(1, None))
    assert door.enter_at_once()
    scope = anyio.CancelScope()
    entered: list[str] = []

    async def give_up() -> None:
        with scope:
            await door.enter()
            entered.append("cancelled")
            door.leave()

    async def stay() -> None:
        await door.enter()
        entered.append("stayed")
        door.leave()

    async with anyio.create_task_group() as group:
        for waiter in (give_up, stay):
            group.start_soon(waiter)
            await settle()
        if is_handed:
            door.leave()
            scope.cancel()
        else:
            scope.cancel()
            await settle()
            door.leave()
    # Who has been handed the place may go on, if that comes first.
    assert entered == ["stayed"] or (is_handed and entered == ["cancelled", "stayed"])
    assert door.admission.in_flight == 0


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(5))
async def test_cancelling_at_any_moment_loses_and_invents_no_place(seed: int) -> None:
    """A thousand tasks, cancelled at random while queued, while waiting for the pace, and while inside."""
    rng = random.Random(seed)
    admission = Admission(4, 20_000.0)
    inside, most = 0, 0

    async def work(scope: anyio.CancelScope) -> None:
        nonlocal inside, most
        door = Door(admission, rng.choice("abc"), rng.choice([MONEY, SINGLE, BULK]))
        with scope:
            if not door.enter_at_once():
                await door.enter()
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(rng.randrange(4)):
                    await anyio.lowlevel.checkpoint()
            finally:
                inside -= 1
                door.leave()

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
    assert inside == admission.in_flight == 0
    assert all(lane.bulk_in_flight == 0 and not any(lane.waiting) for lane in admission._lanes.values())
    doors = [Door(admission) for _ in range(5)]
    entered = []
    for door in doors:
        await anyio.sleep(1)
        entered.append(door.enter_at_once())
    assert entered == [True] * 4 + [False]


@pytest.mark.anyio
async def test_cancelling_very_many_costs_each_the_same() -> None:
    """Those in the middle of the line too: nobody searches it."""
    door = Door(Admission(1, None))
    assert door.enter_at_once()
    looked_at = before = 0

    class Counting(OrderedDict[Any, None]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked_at
            looked_at += 1
            return super().__iter__()

    door.lane.waiting = tuple(Counting() for _ in Priority)
    async with anyio.create_task_group() as group:
        for _ in range(3000):
            group.start_soon(door.enter)
        await settle()
        before = looked_at
        group.cancel_scope.cancel()
    assert looked_at == before
    assert not any(door.lane.waiting)
    door.leave()
    assert door.admission.in_flight == 0


@pytest.mark.anyio
async def test_cancelled_while_waiting_for_its_moment_a_call_takes_nothing_along() -> None:
    """Place and moment are the next one's."""
    door = Door(Admission(1, 0.1))
    await door.enter()
    door.leave()
    start = anyio.current_time()
    with anyio.move_on_after(1):
        await door.enter()
    assert door.admission.in_flight == 0
    await door.enter()
    assert anyio.current_time() - start == pytest.approx(10.0)


@pytest.mark.anyio
async def test_who_is_overtaken_by_a_pause_waits_for_its_end() -> None:
    """A 429 that arrives while calls wait for their moment holds them back."""
    door = Door(Admission(10, 1.0))
    entered: list[float] = []

    async def work() -> None:
        await door.enter()
        entered.append(anyio.current_time())

    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(work)
        await anyio.sleep(0.5)
        now = anyio.current_time()
        assert door.admission.throttled(door.lane, now, now, 30.0, is_shared=True)
    assert entered[0] == start
    assert all(moment - start >= 30.5 for moment in entered[1:])
    assert len(set(entered)) == 3


@pytest.mark.anyio
async def test_as_many_moments_are_handed_out_as_are_due() -> None:
    """A timer that rings late costs no moment: those that are due by then go at once."""
    door = Door(Admission(1000, 2000.0))
    entered: list[float] = []

    async def work() -> None:
        await door.enter()
        entered.append(anyio.current_time())

    await door.enter()
    loop = door.admission._loop
    call_at = loop.call_at
    loop.call_at = lambda when, callback: call_at(when + 0.01, callback)  # type: ignore[method-assign]
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(work)
    # One at a time would take 2 s.
    assert 0.04 <= entered[-1] - start <= 0.12


def test_a_timer_that_rings_early_admits_whom_it_was_set_for() -> None:
    """It is not set again and again until the clock has gone on."""

    async def main() -> None:
        door = Door(Admission(100, 1.0))
        for _ in range(5):
            await door.enter()
        # The first need not wait.
        assert cast("EarlyLoop", asyncio.get_running_loop()).timers == 4

    anyio.run(main, backend_options={"loop_factory": EarlyLoop})


@pytest.mark.anyio
async def test_idle_means_that_nobody_is_inside() -> None:
    """Any number of tasks can wait for it, and all are told."""
    door = Door(Admission(2, None))
    await door.admission.wait_until_idle()
    assert door.enter_at_once()
    assert door.enter_at_once()
    told: list[int] = []

    async def wait(number: int) -> None:
        await door.admission.wait_until_idle()
        told.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(wait, number)
        await settle()
        door.leave()
        await settle()
        assert told == []
        door.leave()
    assert sorted(told) == [0, 1, 2]


@pytest.mark.anyio
async def test_closing_lets_everybody_in_and_counts_them() -> None:
    """They find the client closed, and leave; only then is it idle."""
    admission = Admission(1, 0.001)
    doors = [Door(admission, name, priority) for name in "ab" for priority in Priority]
    assert doors[0].enter_at_once()
    async with anyio.create_task_group() as group:
        for door in doors:
            group.start_soon(door.enter)
        await settle()
        assert admission.in_flight == 1
        admission.close()
        assert admission.in_flight == 7
    for door in doors:
        door.leave()
    assert admission.in_flight == 1
    doors[0].leave()
    assert admission.in_flight == 0


# ---------------------------------------------------------------------------------------------------------- in calls


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None])
def test_max_in_flight_is_a_count(limit: object) -> None:
    """Anything else is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        client(answer, max_in_flight=limit)


@pytest.mark.parametrize("rate", [0, -1, True, "1", float("inf"), float("nan")])
def test_the_rate_is_a_number_of_requests_per_second(rate: object) -> None:
    """Anything else is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="rate must be"):
        client(answer, rate=rate)


@pytest.mark.anyio
async def test_all_calls_of_a_client_share_its_places() -> None:
    """Single calls, bulk runs and purchases together stay below `max_in_flight`."""
    inside, most = 0, 0

    async def slow(request: Request) -> Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await settle()
        inside -= 1
        return answer(request)

    api = client(slow, max_in_flight=3)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(api.get_inventory, "u")
            group.start_soon(api.start_purchase, "p", 1, "u")
            group.start_soon(api.get_inventories, ["a", "b", "c", "d"])
    assert most == 3
    assert inside == 0


@pytest.mark.anyio
async def test_waiting_for_a_place_does_not_eat_into_an_attempts_limit() -> None:
    """Each answer takes 2 s and each attempt may take 3: the fifth in line is answered all the same."""

    async def slow(request: Request) -> Response:
        await anyio.sleep(2)
        return answer(request)

    api = client(slow, max_in_flight=1, attempt_timeout=3.0, deadline=60.0)
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(api.get_inventory, "u")
    assert anyio.current_time() - start == pytest.approx(10.0)


@pytest.mark.anyio
@pytest.mark.parametrize("money", [False, True])
async def test_waiting_for_a_place_eats_into_the_deadline(money: bool) -> None:
    """A call that never got a place was never sent: no `OutcomeUnknown`, no attempt, and it says so."""
    sent = 0

    async def never(_: Request) -> Response:
        nonlocal sent
        sent += 1
        await anyio.sleep_forever()
        raise AssertionError

    api = client(never, max_in_flight=1, attempt_timeout=50.0)
    async with anyio.create_task_group() as group:
        group.start_soon(api.get_inventory, "stuck")
        await anyio.sleep(0.1)
        start = anyio.current_time()
        call = api.start_purchase("p", 1, "u", deadline=5.0) if money else api.get_inventory("u", deadline=5.0)
        with pytest.raises(DeadlineExceeded, match="not sent within 5 s") as caught:
            await call
        # A call that moves money keeps a quarter of its time for the answer.
        assert anyio.current_time() - start == pytest.approx(3.75 if money else 5.0)
        assert caught.value.sent is Sent.NEVER
        assert caught.value.attempts == 0
        group.cancel_scope.cancel()
    assert api._engine.admission.in_flight == 0
    assert sent == 1


@pytest.mark.anyio
async def test_waiting_for_the_end_of_a_pause_eats_into_the_deadline() -> None:
    """A read that was refused before says that it was sent; one that was not, that it never was."""
    sent = 0

    def refuse(_: Request) -> Response:
        nonlocal sent
        sent += 1
        return Response(429, {"retry-after": "10"}, b"{}")

    api = client(refuse)
    start = anyio.current_time()
    for was_sent, attempts in ((Sent.YES, 1), (Sent.NEVER, 0)):
        with pytest.raises(DeadlineExceeded) as caught:
            await api.get_inventory("u", deadline=5.0)
        assert caught.value.sent is was_sent
        assert caught.value.attempts == attempts
    # A pause that outlasts the deadline is not waited for.
    assert anyio.current_time() == start
    assert sent == 1


@pytest.mark.parametrize("seed", range(3))
def test_storms_of_cancelled_calls_leave_all_places_free(seed: int) -> None:
    """Cancelled while queued, paced, sending or pausing: afterwards the client is as good as new."""
    rng = random.Random(seed)

    async def moody(request: Request) -> Response:
        await anyio.sleep(rng.random() / 10)
        return Response(rng.choice([200, 200, 200, 429, 500]), {}, answer(request).body)

    async def main() -> None:
        api = client(moody, max_in_flight=5)

        async def call() -> None:
            with anyio.move_on_after(rng.random()):
                await api.get_inventories(["u"])

        async with anyio.create_task_group() as group:
            for _ in range(500):
                group.start_soon(call)
                await anyio.sleep(rng.random() / 50)
        assert api._engine.admission.in_flight == 0
        await anyio.sleep(60)
        assert len((await api.get_inventories([str(n) for n in range(20)])).found) > 0

    run_virtually(main, seed=seed)


@pytest.mark.anyio
async def test_a_place_handed_over_at_the_very_end_of_the_deadline_is_not_used() -> None:
    """No time is left to wait for an answer: a purchase would be of unknown outcome for nothing."""
    posts = 0

    async def handler(request: Request) -> Response:
        nonlocal posts
        posts += request.method == "POST"
        # The place becomes free in the very moment in which the purchase gives up.
        await anyio.sleep(3.75)
        return answer(request)

    api = client(handler, max_in_flight=1)
    errors: list[PhygitalsError] = []

    async def buy() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await api.start_purchase("p", 1, "u", deadline=5.0)
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(api.get_inventory, "u")
        await settle()
        group.start_soon(buy)
    assert errors[0].sent is Sent.NEVER
    assert posts == 0
    assert api._engine.admission.in_flight == 0


def test_a_place_that_comes_with_the_end_of_the_deadline_is_given_back() -> None:
    """Where a busy loop brings both at once, nothing is sent: no time is left to wait for an answer."""
    transport = MemoryTransport(answer)
    clock = trio.testing.MockClock(autojump_threshold=0.01)

    async def main() -> None:
        api = PhygitalsClient(transport, api_key="sandbox-test", max_in_flight=1)
        await api.start_purchase("p", 1, "u")
        door = Door(api._engine.admission)
        assert door.enter_at_once()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(DeadlineExceeded) as caught:
                    await api.start_purchase("p", 1, "u", deadline=5.0)
                assert caught.value.sent is Sent.NEVER

            await trio.testing.wait_all_tasks_blocked()
            door.leave()
            clock.jump(10.0)
        assert api._engine.admission.in_flight == 0

    trio.run(main, clock=clock)
    assert len(transport.sent) == 1

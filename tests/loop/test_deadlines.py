"""One deadline for each call, told apart from every other way to run out of time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import pickle
from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import trio

from phygitals_async import (
    ConfigurationError,
    DeadlineExceeded,
    Failed,
    Found,
    Inventory,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    Sent,
    TransportError,
    fan_out_all,
)
from phygitals_async._loop.deadlines import Deadlines
from phygitals_transports import MemoryTransport
from support import ON_VIRTUAL_ASYNCIO, noting
from virtual import EarlyLoop, no_task_left, run_virtually, virtual_backend

anyio_backend = virtual_backend

TINY = 0.001
NO_SECONDS: list[Any] = [0, 0.0, -1, math.nan, math.inf, -math.inf, True, "3", 3j]


class Stuck:
    """A server that never answers some users, and says whether it was let go."""

    def __init__(self, *user_ids: str) -> None:
        self.waiting = 0
        self.let_go = 0
        self._sandbox = Sandbox(seed=1)
        self._sandbox.add_user("a")
        self._stuck = user_ids

    async def __call__(self, request: Request) -> Response:
        """Answer, or wait for ever."""
        if request.url.rpartition("/")[2] in self._stuck:
            self.waiting += 1
            try:
                await anyio.Event().wait()
            finally:
                self.let_go += 1
        return self._sandbox(request)


def client(handler: Any, **options: Any) -> PhygitalsClient:
    """Return a client whose requests `handler` answers."""
    return PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test", **options)


def check_exceeded(error: DeadlineExceeded, server: Stuck) -> None:
    """Check what a passed deadline tells, and that the request was let go."""
    assert isinstance(error, TimeoutError)
    assert (error.operation, error.attempts, error.sent) == ("get_inventory", 1, Sent.UNKNOWN)
    assert str(error) == "get_inventory: no answer within 0.001 s"
    assert error.__cause__ is None
    assert error.__context__ is None
    assert server.waiting == server.let_go


@pytest.mark.anyio
async def test_the_clients_deadline() -> None:
    """A call that outlasts the client's deadline raises `DeadlineExceeded`, and the transport is cancelled."""
    server = Stuck("u")
    with pytest.raises(DeadlineExceeded) as caught:
        await client(server, deadline=TINY).get_inventory("u")
    check_exceeded(caught.value, server)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - its own pickle.
    assert (type(copy), str(copy), copy.attempts) == (DeadlineExceeded, str(caught.value), 1)


@pytest.mark.anyio
async def test_a_calls_own_deadline_wins() -> None:
    """A call may be shorter, or longer, than the client's deadline."""
    server = Stuck("u")
    with pytest.raises(DeadlineExceeded) as caught:
        await client(server).get_inventory("u", deadline=TINY)
    check_exceeded(caught.value, server)

    async def slow(request: Request) -> Response:
        await anyio.sleep(5 * TINY)
        return server._sandbox(request)

    assert (await client(slow, deadline=TINY).get_inventory("a", deadline=60)).items == ()


@pytest.mark.anyio
async def test_in_bulk_each_lookup_has_its_own_deadline() -> None:
    """A lookup that runs out of time is a failure of its key alone."""
    server = Stuck("u")
    api = client(server)
    (failed,) = (await api.get_inventories(["u"], deadline=TINY)).failed
    assert isinstance(failed.error, DeadlineExceeded)
    check_exceeded(failed.error, server)

    def look_up(user_id: str) -> Awaitable[Inventory]:
        return api.get_inventory(user_id, deadline=TINY if user_id == "u" else 60)

    batch = await fan_out_all(look_up, ["u", "a"], limit=1)
    assert [type(outcome) for outcome in batch] == [Failed, Found]
    assert (await api.get_inventories(["a"], deadline=60)).failed == ()


@pytest.mark.anyio
async def test_nothing_of_a_passed_deadline_is_left_behind() -> None:
    """After `DeadlineExceeded` the task can go on awaiting, and nothing of the call runs on."""
    server = Stuck("u")
    api = client(server)
    before = {task.id for task in anyio.get_running_tasks()}
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            await api.get_inventory("u", deadline=TINY)
        await anyio.lowlevel.checkpoint()
    assert server.waiting == server.let_go
    assert {task.id for task in anyio.get_running_tasks()} == before
    assert (await api.get_inventory("a")).user_id == "a"


@pytest.mark.anyio
@pytest.mark.parametrize("error", [TimeoutError("the transport's own"), OSError("broken"), KeyError("bug")])
async def test_the_transports_own_error_is_not_taken_for_the_deadline(error: Exception) -> None:
    """What the transport raises, a `TimeoutError` included, is a failure of the transport."""

    async def broken(request: Request) -> Response:
        await anyio.lowlevel.checkpoint()
        raise error

    with pytest.raises(TransportError) as caught:
        await client(broken).get_inventory("a")
    assert type(caught.value) is TransportError
    assert caught.value.text == f"the transport failed: {type(error).__name__}"


@pytest.mark.anyio
async def test_an_answer_in_time_is_returned() -> None:
    """`Deadlines.within` hands the argument to the call, and its result back."""

    async def double(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * number

    assert await Deadlines().within(60, double, 21) == 42


@pytest.mark.anyio
async def test_an_outer_cancellation_wins() -> None:
    """A cancelled scope around a call is not turned into `DeadlineExceeded`, even when both are due."""
    server = Stuck("u")
    raised: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await client(server, deadline=1e-9).get_inventory("u")
        except BaseException as error:
            raised = error
            raise
    assert scope.cancelled_caught
    assert isinstance(raised, anyio.get_cancelled_exc_class())
    assert server.waiting == server.let_go


@pytest.mark.anyio
async def test_an_outer_scope_cancels_a_call_under_way() -> None:
    """Cancelling a call that waits for its answer raises the bare cancellation."""
    server = Stuck("u")
    raised: list[BaseException] = []

    async with anyio.create_task_group() as group:
        group.start_soon(noting, raised, client(server).get_inventory("u"))
        while not server.waiting:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert [type(error) for error in raised] == [anyio.get_cancelled_exc_class()]
    assert server.let_go == 1


@pytest.mark.anyio
async def test_an_outer_timeout_of_anyio_wins() -> None:
    """`anyio.fail_after` around a call raises its own `TimeoutError`."""
    server = Stuck("u")
    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(TINY):
            await client(server).get_inventory("u")
    assert not isinstance(caught.value, DeadlineExceeded)
    assert server.waiting == server.let_go


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
async def test_an_outer_timeout_of_asyncio_wins() -> None:
    """`asyncio.timeout` around a call raises its own `TimeoutError`, and the task is not left half cancelled."""
    server = Stuck("u")
    timeout = asyncio.timeout(TINY)
    with pytest.raises(TimeoutError) as caught:
        async with timeout:
            await client(server).get_inventory("u")
    assert timeout.expired()
    assert not isinstance(caught.value, DeadlineExceeded)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
async def test_a_passed_deadline_inside_a_longer_outer_timeout() -> None:
    """The shorter, inner deadline leaves the outer timeout alone."""
    server = Stuck("u")
    async with asyncio.timeout(60) as timeout:
        with pytest.raises(DeadlineExceeded) as caught:
            await client(server, deadline=TINY).get_inventory("u")
        await asyncio.sleep(0)
    assert not timeout.expired()
    check_exceeded(caught.value, server)


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
async def test_task_cancel_is_no_deadline() -> None:
    """`task.cancel()` of a call raises `CancelledError`, even if the transport is slow to let go."""

    async def slow_to_let_go(request: Request) -> Response:
        try:
            never: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            return await never
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2 * TINY)

    task = asyncio.ensure_future(client(slow_to_let_go, deadline=TINY).get_inventory("u"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", NO_SECONDS)
async def test_what_is_no_deadline_is_refused(seconds: Any) -> None:
    """Only a positive, finite number of seconds is a deadline; nothing is sent otherwise."""
    transport = MemoryTransport(Sandbox())
    text = "deadline must be a positive, finite number of seconds"
    with pytest.raises(ConfigurationError, match=text):
        PhygitalsClient(transport, api_key="sandbox-test", deadline=seconds)
    api = PhygitalsClient(transport, api_key="sandbox-test")
    with pytest.raises(ConfigurationError, match=text) as caught:
        await api.get_inventory("a", deadline=seconds)
    assert (caught.value.operation, caught.value.attempts, caught.value.sent) == ("get_inventory", 0, Sent.NEVER)
    assert transport.sent == []


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [1, 0.5, 1e-300, 1e300])
async def test_any_positive_number_of_seconds_is_a_deadline(seconds: float) -> None:
    """Whole and broken, tiny and huge: none of them breaks the call in another way than by its deadline."""
    sandbox = Sandbox()
    sandbox.add_user("a")
    try:
        inventory = await client(sandbox, deadline=seconds).get_inventory("a")
    except DeadlineExceeded:
        assert seconds < 1e-9
    else:
        assert inventory.user_id == "a"


def run_as_guest(main: Callable[[], Awaitable[None]]) -> None:
    """Run trio in a loop of asyncio."""

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        (await done).unwrap()

    asyncio.run(host())


def test_trio_as_a_guest_of_asyncio() -> None:
    """Under trio's guest mode a loop of asyncio is there but not the one that runs the call."""
    server = Stuck("u")

    async def guest() -> None:
        api = client(server)
        assert (await api.get_inventory("a")).user_id == "a"
        with pytest.raises(DeadlineExceeded):
            await api.get_inventory("u", deadline=TINY)

    run_as_guest(guest)
    assert server.waiting == server.let_go


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
async def test_one_timer_serves_awaits_of_every_length() -> None:
    """Each ends at its own time, whatever order they came in, and none is cancelled twice."""
    deadlines = Deadlines()
    cancellations: list[str] = []

    async def forever(name: str, clean_up: float) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancellations.append(name)
            # The timer rings for others meanwhile.
            await asyncio.sleep(clean_up)
            raise

    async def bounded(name: str, seconds: float, clean_up: float) -> str:
        try:
            await deadlines.within(seconds, forever, name, clean_up)
        except DeadlineExceeded:
            return name
        return "ended"

    async def quick() -> str:
        return await deadlines.within(3600, asyncio.sleep, 0, "quick")

    names = await asyncio.gather(
        bounded("second", 0.02, 0.0), bounded("first", 0.01, 0.05), bounded("third", 0.03, 0.0), quick()
    )
    assert list(names) == ["second", "first", "third", "quick"]
    assert cancellations == ["first", "second", "third"]
    assert not deadlines._watches
    deadlines.stop()
    assert deadlines._timer is None


def test_trio_as_a_guest_keeps_its_own_time() -> None:
    """The hosting loop has another clock: a pause asked for is as long as asked, neither nothing nor for ever."""
    times: list[float] = []

    def handler(_: Request) -> Response:
        times.append(trio.current_time())
        return Response(429, {"retry-after": "0.1"}, b"") if len(times) == 1 else Response(200, {}, b"[]")

    async def guest() -> None:
        assert await client(handler, deadline=60.0).list_packs() == ()

    run_as_guest(guest)
    first, second = times
    assert second - first >= 0.1


async def spin() -> None:
    """Never wait for anything, and never end."""
    while True:  # noqa: ASYNC110 - it is to be always ready.
        await asyncio.sleep(0)


@pytest.mark.parametrize("scope_first", [False, True])
@pytest.mark.parametrize(("seconds", "call"), [(0.0, spin), (0.0, anyio.sleep_forever), (5.0, anyio.sleep_forever)])
def test_a_scope_that_ends_in_the_very_turn_of_a_deadline_catches_its_own(
    scope_first: bool, seconds: float, call: Callable[[], Awaitable[None]]
) -> None:
    """Whichever of the two comes first: anyio knows its cancellation by the message, which the other overwrites."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines()
        ends = loop.time() + seconds
        with anyio.CancelScope() as scope:
            if scope_first:
                loop.call_at(ends, scope.cancel)
            else:
                # The deadline's timer is set in the call, and this one a moment later for the same time.
                loop.call_soon(lambda: loop.call_at(ends, scope.cancel))
            with contextlib.suppress(DeadlineExceeded):
                await deadlines.within(seconds, call)
            await anyio.sleep(1)
        assert scope.cancelled_caught
        assert cast("asyncio.Task[None]", asyncio.current_task()).cancelling() == 0

    run_virtually(main)


def test_a_timer_that_rings_early_ends_what_it_was_set_for() -> None:
    """It is not set again and again until the clock has gone on."""

    async def main() -> None:
        deadlines = Deadlines()
        with pytest.raises(DeadlineExceeded):
            await deadlines.within(5, anyio.Event().wait)
        assert cast("EarlyLoop", asyncio.get_running_loop()).timers == 1

    anyio.run(main, backend_options={"loop_factory": EarlyLoop})


def test_calls_of_a_loop_that_ended_leave_no_deadline_to_the_next() -> None:
    """Its timers never ring: a deadline that waited for one of them would not come."""
    api = client(Stuck("u"))

    async def leave_behind() -> None:
        call = asyncio.create_task(cast("Any", api.get_inventory("u", deadline=5)))
        await asyncio.sleep(1)
        assert not call.done()

    async def main() -> None:
        before = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await api.get_inventory("u", deadline=10)
        assert anyio.current_time() - before == pytest.approx(10)

    run_virtually(leave_behind)
    run_virtually(main)


@pytest.mark.anyio
async def test_a_client_that_is_closed_leaves_no_timer() -> None:
    """Nor a task, which a timer is on trio: what a call left behind goes with the client."""
    with no_task_left():
        api = client(Stuck("u"))
        with anyio.move_on_after(1):
            await api.get_inventory("u", deadline=200)
        await api.aclose()
    with contextlib.suppress(RuntimeError):  # Under trio there are no timers of asyncio's to look at.
        loop: Any = asyncio.get_running_loop()
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]

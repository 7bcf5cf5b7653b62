"""Cancelled at any moment, in any way, a run leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from bulk_support import Keys, Lookups, drain
from phygitals_async import (
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sandbox,
    UserNotFound,
    fan_out,
    fan_out_all,
)
from phygitals_transports import MemoryTransport
from support import ON_VIRTUAL_ASYNCIO
from virtual import no_task_left, settle

CancelPoint = Callable[[], Awaitable[None]]


# ---------------------------------------------------------------- cancellation


class Turns:
    """Counts awaits, and cancels a scope at the n-th."""

    def __init__(self, n: int) -> None:
        self.scope = anyio.CancelScope()
        self.count = 0
        self._n = n

    async def __call__(self) -> None:
        """Await once."""
        self.count += 1
        if self.count == self._n:
            self.scope.cancel()
        await anyio.lowlevel.checkpoint()

    @property
    def cancelled(self) -> bool:
        """Whether the n-th await was reached."""
        return self.count >= self._n


class Words:
    """Six words, each after an await. Not a generator: nothing has to close it when it is left midway."""

    def __init__(self, turn: CancelPoint) -> None:
        self._turn = turn
        self._words = iter(("a", "bb", "ccc", "dddd", "eeeee", "ffffff"))

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await self._turn()
        for word in self._words:
            return word
        raise StopAsyncIteration


class Job:
    """Something long made of a bulk run, with a count of the lookups that are open."""

    def __init__(self, turn: CancelPoint) -> None:
        self.turn = turn
        self.open = 0
        self.opened = 0
        self.left = False

    async def fetch(self, key: str) -> str:
        """Look `key` up over several awaits, with clean-up that takes awaits too."""
        self.open += 1
        self.opened += 1
        try:
            for _ in range(1 + len(key) % 3):
                await self.turn()
            if key == "bb":
                raise UserNotFound(status=404)
            return key
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.open -= 1

    def keys(self) -> AsyncIterable[str]:
        """Give keys after an await each."""
        return Words(self.turn)

    async def stream(self) -> None:
        """Iterate a run over an async source, with awaits of the consumer's own."""
        async with fan_out(self.fetch, self.keys(), limit=2) as outcomes:
            async for _ in outcomes:
                await self.turn()

    async def stream_plain(self) -> None:
        """Iterate a run over a plain source."""
        async with fan_out(self.fetch, ["a", "bb", "ccc", "dddd"], limit=3) as outcomes:
            async for _ in outcomes:
                pass

    async def leave_early(self) -> None:
        """Leave a run after the first outcome."""
        async with fan_out(self.fetch, self.keys(), limit=3) as outcomes:
            await anext(outcomes)

    async def batch(self) -> None:
        """Look all keys up."""
        await fan_out_all(self.fetch, self.keys(), limit=2)

    async def client(self) -> None:
        """Make real calls over a transport whose answers take awaits."""
        sandbox = Sandbox(seed=1)
        sandbox.add_user("a")

        async def handler(request: Request) -> Response:
            await self.fetch("a")
            await self.turn()
            return sandbox(request)

        async with PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test") as api:
            await api.get_inventories(["a", "b", "c"], limit=2)
            await drain(fan_out(api.get_inventory, ["a", "b"], limit=2))


JOBS = [Job.stream, Job.stream_plain, Job.leave_early, Job.batch, Job.client]


@pytest.mark.anyio
@pytest.mark.parametrize("body", JOBS)
async def test_cancellation_at_every_await(body: Callable[[Job], Awaitable[None]]) -> None:
    """Cancelled at its n-th await, for every n, a run raises the bare cancellation and leaves nothing behind."""
    for n in itertools.count(1):
        turns = Turns(n)
        job = Job(turns)
        raised: BaseException | None = None
        with no_task_left():
            with turns.scope:
                try:
                    await body(job)
                    # Whoever found ready all that was left never waited again: then the next to wait is cancelled.
                    await anyio.lowlevel.checkpoint()
                    job.left = True
                except BaseException as error:
                    raised = error
                    raise
            assert job.open == 0
        if not turns.cancelled:
            assert job.left
            assert n > 4
            return
        assert not job.left
        assert turns.scope.cancelled_caught
        assert isinstance(raised, anyio.get_cancelled_exc_class())


@pytest.mark.asyncio
@pytest.mark.parametrize("body", JOBS)
async def test_task_cancel_at_every_turn_of_the_loop(body: Callable[[Job], Awaitable[None]]) -> None:
    """`task.cancel()` after n turns of the loop, for every n, always ends the task as cancelled."""
    before = asyncio.all_tasks()
    for n in itertools.count():
        job = Job(anyio.lowlevel.checkpoint)
        task = asyncio.ensure_future(body(job))
        for _ in range(n):
            await asyncio.sleep(0)
        if task.done():
            await task
            assert n > 4
            return
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert job.open == 0
        assert asyncio.all_tasks() == before


@pytest.mark.asyncio
@pytest.mark.parametrize("body", JOBS)
async def test_two_task_cancels_at_every_turn_of_the_loop(body: Callable[[Job], Awaitable[None]]) -> None:
    """A second `task.cancel()`, during the clean-up after the first, leaves no lookup open either."""
    before = asyncio.all_tasks()
    for n in itertools.count(1):
        job = Job(anyio.lowlevel.checkpoint)
        task = asyncio.ensure_future(body(job))
        for _ in range(n):
            await asyncio.sleep(0)
        if task.done():
            await task
            return
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert job.open == 0
        assert asyncio.all_tasks() == before


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
async def test_asyncio_timeout_around_a_run() -> None:
    """`asyncio.timeout` around a run raises its `TimeoutError`, and the task is not left half cancelled."""
    lookups = Lookups()
    lookups.hold(*range(9))
    before = asyncio.all_tasks()
    timeout = asyncio.timeout(0.001)
    with pytest.raises(TimeoutError):
        async with timeout:
            await drain(fan_out(lookups, range(9), limit=4))
    assert timeout.expired()
    assert lookups.running == 0
    assert asyncio.all_tasks() == before
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
async def test_asyncio_timeout_around_a_client_call_in_bulk() -> None:
    """An outer timeout wins over the deadlines of the calls, which would be longer."""

    async def never(request: Request) -> Response:
        never_set: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        return await never_set

    api = PhygitalsClient(MemoryTransport(never), api_key="sandbox-test")
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.001):
            await api.get_inventories(["a", "b"], limit=2)
    assert not isinstance(caught.value, PhygitalsError)
    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_a_task_group_of_asyncio_around_a_run() -> None:
    """A sibling that fails cancels a run inside `asyncio.TaskGroup`, and only the sibling's error is raised."""
    lookups = Lookups()
    lookups.hold(*range(9))

    async def sibling() -> None:
        await settle()
        assert lookups.running == 4
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as group:
            group.create_task(drain(fan_out(lookups, range(9), limit=4)))
            group.create_task(sibling())
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert lookups.running == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [None, ZeroDivisionError(), UserNotFound(status=404)])
async def test_no_cancellation_is_left_pending(error: Exception | None) -> None:
    """After a run, however it ended, the task is not being cancelled."""
    lookups = Lookups({} if error is None else {0: error})
    lookups.hold(5)
    try:
        async with fan_out(lookups, range(9), limit=4) as outcomes:
            await anext(outcomes)
    except ZeroDivisionError:
        assert error is not None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await settle()


@pytest.mark.anyio
async def test_a_run_that_is_done_leaves_an_outer_scope_alone() -> None:
    """An enclosing deadline that did not pass is not taken for cancelled after a run was left early."""
    with anyio.fail_after(60) as scope:
        async with fan_out(Lookups(), Keys(), limit=3) as outcomes:
            await anext(outcomes)
        await anyio.lowlevel.checkpoint()
    assert not scope.cancel_called

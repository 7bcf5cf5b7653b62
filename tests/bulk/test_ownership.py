"""A run belongs to nobody's task: entered, read and ended from any, it ends its own lookups and harms nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from phygitals_async import (
    ClientClosed,
    Failed,
    FanOut,
    Found,
    Outcome,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    Sellback,
    fan_out,
    fan_out_all,
)
from phygitals_transports import MemoryTransport
from virtual import VirtualLoop, no_task_left, run_virtually, settle, virtual_backend


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let what a test leaves to the garbage collector be collected here, and not in the middle of something else."""
    yield
    gc.collect()


K = TypeVar("K")
V = TypeVar("V")

anyio_backend = virtual_backend


class Lookups:
    """Lookups that take a second, and some for their clean-up, which they shield.

    Args:
        clean_up: Seconds that a lookup takes to clean up once it is cancelled.
    """

    def __init__(self, clean_up: float = 0.0) -> None:
        self.started: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self._clean_up = clean_up

    @property
    def running(self) -> int:
        """How many are running now."""
        return len(self.started) - len(self.ended)

    async def __call__(self, key: int) -> int:
        """Look a key up."""
        self.started.append(key)
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(key)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self._clean_up)
            raise
        finally:
            self.ended.append(key)
        return key


def numbers() -> Iterator[int]:
    """Yield numbers without end."""
    number = 0
    while True:
        yield number
        number += 1


@asynccontextmanager
async def unharmed() -> AsyncIterator[None]:
    """Check that no task outlives the block, and that neither its own task nor a bystander's is cancelled."""
    cancelled: list[str] = []

    async def bystander() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append("bystander")
            raise

    with no_task_left():
        async with anyio.create_task_group() as group:
            group.start_soon(bystander)
            await settle()
            yield
            await settle()
            assert not cancelled
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    if (task := current_asyncio_task()) is not None:
        assert task.cancelling() == 0


def current_asyncio_task() -> asyncio.Task[Any] | None:
    """Return the task of asyncio that runs, if it is one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def in_a_task(function: Callable[[], Awaitable[Any]]) -> Any:
    """Await something in a task of its own."""
    results: list[Any] = []

    async def work() -> None:
        results.append(await function())

    async with anyio.create_task_group() as group:
        group.start_soon(work)
    return results[0]


def keys_of(outcomes: list[Outcome[int, int]]) -> list[int]:
    """Return the keys, sorted."""
    return sorted(outcome.key for outcome in outcomes)


# ---------------------------------------------------------------- a generator that holds a run


def shop() -> tuple[PhygitalsClient, MemoryTransport, str]:
    """Return a client of a sandbox that takes its time, its transport, and an item to sell."""
    sandbox = Sandbox(seed=1)
    item = sandbox.add_item("seller", name="a card", buyback_price=Decimal("8.50"))
    for number in range(200):
        sandbox.add_user(f"u{number}")

    async def answer(request: Request) -> Response:
        await anyio.sleep(1)
        response = sandbox(request)
        await anyio.sleep(1)
        return response

    transport = MemoryTransport(answer)
    return PhygitalsClient(transport, api_key="sandbox-test"), transport, item.id


async def found(api: PhygitalsClient) -> AsyncIterator[Any]:
    """Hold a run open over yields, as a generator of one's own does."""
    async with api.stream_inventories([f"u{number}" for number in range(200)], limit=8) as outcomes:
        async for outcome in outcomes:
            yield outcome


# Trio warns of a generator that it has to finalise; asyncio does not.
dropped_generators = pytest.mark.filterwarnings("ignore:.*was garbage collected before it had been exhausted")


@dropped_generators
@pytest.mark.anyio
@pytest.mark.parametrize("collects", [False, True])
async def test_a_generator_left_by_break_does_not_end_the_sale_that_comes_after_it(collects: bool) -> None:
    """Whenever it is finalised: the sale completes, and the run is over."""
    async with unharmed():
        api, transport, item = shop()
        async for _ in found(api):
            break
        if collects:
            gc.collect()
        sale = await api.sell_back(item)
        assert sale == Sellback(success=True, amount=sale.amount)
        assert sum(request.method == "POST" for request in transport.sent) == 1
        gc.collect()
        await settle()
        in_flight = api._engine.admission.in_flight
        assert in_flight == 0


@dropped_generators
@pytest.mark.anyio
async def test_a_generator_that_is_finalised_in_the_middle_of_a_sale_leaves_it_alone() -> None:
    """Its last reference goes while the sale is under way."""
    async with unharmed():
        api, _, item = shop()
        kept: list[Any] = [found(api)]
        await anext(kept[0])
        sales: list[Sellback] = []

        async def sell() -> None:
            sales.append(await api.sell_back(item))

        async with anyio.create_task_group() as group:
            group.start_soon(sell)
            await anyio.sleep(0.5)
            kept.clear()
            gc.collect()
        assert [sale.success for sale in sales] == [True]


@pytest.mark.anyio
async def test_a_generator_read_in_one_task_and_closed_in_another() -> None:
    """As frameworks do with the generators of their handlers."""
    async with unharmed():
        api, _, _ = shop()
        generator: Any = found(api)
        first = await in_a_task(lambda: anext(generator))
        assert isinstance(first, Found)
        await in_a_task(generator.aclose)
        assert api._engine.admission.in_flight == 0


@pytest.mark.anyio
async def test_a_fixture_that_is_entered_in_one_task_and_left_in_another() -> None:
    """Some plugins of pytest run the two halves of an async fixture in tasks of their own."""
    lookups = Lookups()

    async def fixture() -> AsyncIterator[FanOut[int, int]]:
        async with fan_out(lookups, numbers(), limit=3) as outcomes:
            yield outcomes

    async with unharmed():
        generator = fixture()
        run = await in_a_task(lambda: anext(generator))
        taken = [await anext(run) for _ in range(10)]
        assert await in_a_task(lambda: anext(generator, None)) is None
        assert len(set(keys_of(taken))) == 10
        assert lookups.running == 0


# ---------------------------------------------------------------- ended from any task


@pytest.mark.anyio
@pytest.mark.parametrize("clean_up", [0.0, 5.0])
@pytest.mark.parametrize("entered_elsewhere", [False, True])
async def test_a_run_is_ended_from_another_task(clean_up: float, entered_elsewhere: bool) -> None:
    """By `aclose`, which returns once all lookups have ended, their clean-up included."""
    lookups = Lookups(clean_up)
    async with unharmed():
        run = fan_out(lookups, numbers(), limit=5)
        if entered_elsewhere:
            await in_a_task(run.__aenter__)
        else:
            await run.__aenter__()
        assert (await anext(run)).key < 5
        before = anyio.current_time()
        await in_a_task(run.aclose)
        assert lookups.running == 0
        assert len(lookups.cancelled) == 5
        assert anyio.current_time() - before == clean_up
        with pytest.raises(RuntimeError, match="left before all of its keys"):
            await anext(run)


@pytest.mark.anyio
async def test_a_run_is_left_by_an_exit_stack_in_another_task() -> None:
    """Beside other things on the same stack."""
    lookups = Lookups()
    order: list[str] = []
    async with unharmed():
        stack = AsyncExitStack()
        stack.callback(order.append, "first")
        run = await stack.enter_async_context(fan_out(lookups, numbers(), limit=5))
        stack.callback(order.append, "last")
        await anext(run)
        await in_a_task(stack.aclose)
        assert order == ["last", "first"]
        assert lookups.running == 0


@pytest.mark.anyio
async def test_a_run_outlives_the_task_that_entered_it() -> None:
    """And the scopes that were open there: they are not the run's."""
    lookups = Lookups()
    async with unharmed():
        run = fan_out(lookups, range(20), limit=5)

        async def enter() -> None:
            with anyio.move_on_after(0.5):
                async with anyio.create_task_group() as group:
                    await run.__aenter__()
                    group.cancel_scope.cancel()

        await in_a_task(enter)
        await anyio.sleep(10)
        taken = await in_a_task(lambda: read(run))
        await run.aclose()
        assert keys_of(taken) == list(range(20))
        assert not lookups.cancelled


async def read(run: FanOut[K, V]) -> list[Outcome[K, V]]:
    """Return all outcomes that are left."""
    return [outcome async for outcome in run]


@pytest.mark.anyio
async def test_scopes_around_a_run_that_was_moved_to_another_task_are_left_alone() -> None:
    """The task that ends it sits in scopes of its own, and goes on in them."""
    lookups = Lookups()
    async with unharmed():
        run = fan_out(lookups, numbers(), limit=5)
        with anyio.CancelScope() as entering:
            await run.__aenter__()
        with anyio.CancelScope() as ending, anyio.fail_after(100):
            await anext(run)
            await run.__aexit__(None, None, None)
            await anyio.sleep(1)
        assert not entering.cancel_called
        assert not ending.cancel_called
        assert lookups.running == 0


# ---------------------------------------------------------------- read from any task


@pytest.mark.anyio
async def test_each_outcome_can_be_awaited_in_a_task_of_its_own() -> None:
    """As `ensure_future(anext(run))` does; several may wait at once."""
    async with unharmed(), fan_out(Lookups(), range(20), limit=5) as run:
        taken: list[Outcome[int, int]] = []

        async def take() -> None:
            taken.append(await anext(run))

        for _ in range(4):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(take)
        assert keys_of(taken) == list(range(20))


def test_ensure_future_of_the_next_outcome() -> None:
    """And cancelling it ends the waiting alone: the run goes on, and nothing is lost."""

    async def main() -> None:
        with no_task_left():
            async with fan_out(Lookups(), range(20), limit=5) as run:
                taken: list[Outcome[int, int]] = []
                for number in itertools.count():
                    if len(taken) == 20:
                        break
                    future: asyncio.Future[Outcome[int, int]] = asyncio.ensure_future(anext(run))
                    if number % 3 == 2:
                        await asyncio.sleep(0)
                        future.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        taken.append(await future)
                assert keys_of(taken) == list(range(20))
                with pytest.raises(StopAsyncIteration):
                    await anext(run)

    run_virtually(main)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 0.999, 1.0, 1.001, 3.0])
def test_waiting_for_the_next_outcome_for_some_time_alone_loses_nothing(seconds: float) -> None:
    """`asyncio.wait_for` on 3.11 awaits it in a task of its own."""

    async def main() -> None:
        lookups = Lookups()
        with no_task_left():
            async with fan_out(lookups, range(20), limit=5) as run:
                taken: list[Outcome[int, int]] = []
                timeouts = 0
                while len(taken) < 20:
                    try:
                        taken.append(await asyncio.wait_for(anext(run), seconds))
                    except TimeoutError:
                        timeouts += 1
                        assert timeouts < 1000
                        await asyncio.sleep(0.01)
        assert keys_of(taken) == list(range(20))
        assert not lookups.cancelled
        assert bool(timeouts) is (seconds < 1.001)

    run_virtually(main)


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0, 1.001])
async def test_a_scope_around_the_next_outcome_loses_nothing(seconds: float) -> None:
    """Whenever it ends."""
    lookups = Lookups()
    async with unharmed(), fan_out(lookups, range(20), limit=5) as run:
        taken: list[Outcome[int, int]] = []
        while len(taken) < 20:
            with anyio.move_on_after(seconds):
                taken.append(await anext(run))
            await anyio.sleep(0.01)
        assert keys_of(taken) == list(range(20))
        assert not lookups.cancelled


@pytest.mark.anyio
@pytest.mark.parametrize("count", [2, 7])
async def test_several_consumers_share_the_outcomes(count: int) -> None:
    """Each outcome goes to one of them, and all of them see the end."""
    async with unharmed(), fan_out(Lookups(), range(100), limit=10) as run:
        taken: list[list[Outcome[int, int]]] = []

        async def consume() -> None:
            taken.append(await read(run))

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(consume)
        assert len(taken) == count
        assert keys_of([outcome for each in taken for outcome in each]) == list(range(100))


@pytest.mark.anyio
async def test_of_several_consumers_one_that_goes_takes_nothing_along() -> None:
    """Cancelled while it waits, also in the turn in which an outcome comes."""
    for when in (0.5, 1.0, 1.5, 2.0):
        async with unharmed(), fan_out(Lookups(), range(40), limit=4) as run:
            taken: list[Outcome[int, int]] = []

            async def consume(seconds: float, taken: list[Outcome[int, int]], run: FanOut[int, int]) -> None:
                with anyio.move_on_after(seconds):
                    async for outcome in run:
                        taken.append(outcome)  # noqa: PERF401 - what was taken before the end counts.

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(consume, when, taken, run)
                group.start_soon(consume, 1e6, taken, run)
            assert keys_of(taken) == list(range(40))


# ---------------------------------------------------------------- ended more than once, or from within


@pytest.mark.anyio
async def test_ending_twice_does_nothing() -> None:
    """Nor does ending a run that was read to its end, or leaving one that was ended."""
    async with unharmed():
        async with fan_out(Lookups(), numbers(), limit=5) as run:
            await run.aclose()
            await run.aclose()
        await run.aclose()
        async with fan_out(Lookups(), range(5), limit=5) as run:
            assert len(await read(run)) == 5
            await run.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(run)
        await run.aclose()


@pytest.mark.anyio
async def test_a_run_that_was_ended_before_it_began_cannot_be_entered() -> None:
    """And reads no key."""
    keys = numbers()
    run = fan_out(Lookups(), keys)
    await run.aclose()
    with pytest.raises(RuntimeError, match="only once"):
        await run.__aenter__()
    assert next(keys) == 0


@pytest.mark.anyio
async def test_ending_while_it_is_being_ended_waits_for_the_same_end() -> None:
    """All who end it return once it is over, and none before."""
    lookups = Lookups(clean_up=5)
    returned: list[tuple[float, int]] = []
    async with unharmed():
        run = fan_out(lookups, numbers(), limit=4)
        await run.__aenter__()
        await settle()
        began = anyio.current_time()

        async def end(after: float) -> None:
            await anyio.sleep(after)
            await run.aclose()
            returned.append((anyio.current_time() - began, lookups.running))

        async with anyio.create_task_group() as group:
            for after in (0, 0, 1, 4.9, 7):
                group.start_soon(end, after)
    assert sorted(returned) == [(5, 0)] * 4 + [(7, 0)]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["directly", "in a child task", "in a nested run", "shielded"])
@pytest.mark.parametrize("limit", [1, 4])
async def test_a_lookup_may_end_its_own_run(how: str, limit: int) -> None:
    """It cannot wait for its own end: it is cancelled like the others."""
    lookups = Lookups()

    async def fetch(key: int) -> int:
        if key == 9:
            if how == "directly":
                await run.aclose()
            elif how == "in a child task":
                await in_a_task(run.aclose)
            elif how == "shielded":
                with anyio.CancelScope(shield=True):
                    await run.aclose()
            else:
                await fan_out_all(lambda _: run.aclose(), [1])
        return await lookups(key)

    async with unharmed():
        with anyio.fail_after(1000):
            run = fan_out(fetch, numbers(), limit=limit)
            taken = []
            with pytest.raises(RuntimeError, match="left before all of its keys"):  # noqa: PT012
                async with run:
                    async for outcome in run:
                        taken.append(outcome)  # noqa: PERF401 - what came before the end counts.
        assert set(range(9)) >= {outcome.key for outcome in taken}
        assert lookups.running == 0


@pytest.mark.anyio
async def test_a_source_may_end_the_run_that_reads_it() -> None:
    """An async generator that finds it has nothing more to give."""
    run: FanOut[int, int]
    closed: list[int] = []

    async def keys() -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
            await run.aclose()
            yield 2
        finally:
            closed.append(1)

    async with unharmed():
        with anyio.fail_after(1000):
            run = fan_out(Lookups(), keys(), limit=4)
            with contextlib.suppress(RuntimeError):
                async with run:
                    await read(run)
        assert closed == [1]


@pytest.mark.anyio
async def test_the_client_is_closed_while_a_run_is_open() -> None:
    """What is in flight gets its answer, within the grace; the rest is told that the client was closed."""
    api, transport, _ = shop()
    async with unharmed():
        async with api.stream_inventories([f"u{number}" for number in range(200)], limit=8) as run:
            await anext(run)
            await in_a_task(api.aclose)
            taken = await read(run)
        assert len(taken) == 199
        failed = [outcome for outcome in taken if isinstance(outcome, Failed)]
        assert {type(outcome.error) for outcome in failed} == {ClientClosed}
        assert len(taken) - len(failed) >= 7
        assert len(transport.sent) == 200 - len(failed)


@pytest.mark.anyio
async def test_a_run_is_left_after_its_client_was_closed() -> None:
    """Nobody waits for anybody."""
    api, _, _ = shop()
    async with unharmed(), api:
        run = api.stream_inventories([f"u{number}" for number in range(200)], limit=8)
        await run.__aenter__()
        await anext(run)
        before = anyio.current_time()
        await api.aclose(grace=0.1)
        await run.aclose()
        assert anyio.current_time() - before < 3


# ---------------------------------------------------------------- who ends it is cancelled


@pytest.mark.anyio
async def test_who_ends_a_run_and_is_cancelled_waits_for_its_end_all_the_same() -> None:
    """Lookups that clean up are never left behind; the cancellation comes out when they are done."""
    lookups = Lookups(clean_up=5)
    async with unharmed():
        run = fan_out(lookups, numbers(), limit=4)
        await run.__aenter__()
        await settle()
        before = anyio.current_time()
        with anyio.move_on_after(1) as scope:
            await run.aclose()
            await anyio.sleep(1)
        assert scope.cancelled_caught
        assert anyio.current_time() - before == 5
        assert lookups.running == 0


def test_who_ends_a_run_and_is_cancelled_by_asyncio_waits_for_its_end_all_the_same() -> None:
    """However often, and the cancellation comes out, once."""

    async def main() -> None:
        lookups = Lookups(clean_up=5)
        with no_task_left():
            run = fan_out(lookups, numbers(), limit=4)
            await run.__aenter__()
            await settle()
            before = anyio.current_time()
            task = asyncio.create_task(run.aclose())
            for _ in range(3):
                await asyncio.sleep(1)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert anyio.current_time() - before == 5
            assert lookups.running == 0
            assert task.cancelled()

    run_virtually(main)


@pytest.mark.anyio
async def test_a_block_that_is_cancelled_is_left_by_the_cancellation() -> None:
    """Once all lookups have ended."""
    lookups = Lookups(clean_up=5)
    async with unharmed():
        before = anyio.current_time()
        with anyio.move_on_after(1.5) as scope:
            async with fan_out(lookups, numbers(), limit=4) as run:
                async for _ in run:
                    pass
        assert scope.cancelled_caught
        assert anyio.current_time() - before == 6.5
        assert lookups.running == 0


def test_a_timeout_of_asyncio_around_a_run_stays_its_own() -> None:
    """It comes out as `TimeoutError` and nothing else."""

    async def main() -> None:
        with no_task_left():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5), fan_out(Lookups(5), numbers(), limit=4) as run:
                    await read(run)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(1)

    run_virtually(main)


# ---------------------------------------------------------------- bugs


@pytest.mark.anyio
async def test_a_bug_in_a_lookup_is_raised_where_the_run_is_left() -> None:
    """By who was in the block all the time, and by who had no part in it."""
    bug = ZeroDivisionError()

    async def fetch(key: int) -> int:
        await anyio.sleep(1)
        if key == 3:
            raise bug
        return key

    for elsewhere in (False, True):
        async with unharmed():
            run = fan_out(fetch, numbers(), limit=4)
            await run.__aenter__()
            await anyio.sleep(10)

            async def leave(run: FanOut[int, int] = run) -> None:
                with pytest.raises(ZeroDivisionError) as caught:
                    await run.__aexit__(None, None, None)
                assert caught.value is bug

            await (in_a_task(leave) if elsewhere else leave())


@pytest.mark.anyio
@pytest.mark.parametrize("reads", [False, True])
async def test_a_bug_in_a_lookup_ends_the_others_at_once(reads: bool) -> None:
    """Nobody waits for lookups of a run that has failed."""
    ended: list[float] = []

    async def fetch(key: int) -> int:
        if key == 3:
            await anyio.sleep(1)
            raise ZeroDivisionError
        try:
            await anyio.sleep(1000)
        finally:
            ended.append(anyio.current_time())
        return key

    async with unharmed():
        before = anyio.current_time()
        with pytest.raises(ZeroDivisionError):
            async with fan_out(fetch, numbers(), limit=4) as run:
                await (read(run) if reads else anyio.sleep(10))
        assert [moment - before for moment in ended] == [1, 1, 1]


@pytest.mark.anyio
async def test_a_bug_in_a_lookup_is_raised_to_every_consumer() -> None:
    """None of them takes the run for complete."""
    seen: list[type[BaseException]] = []

    async def fetch(key: int) -> int:
        await anyio.sleep(1)
        if key == 3:
            raise ZeroDivisionError
        return key

    async def consume(run: FanOut[int, int]) -> None:
        try:
            await read(run)
        except ZeroDivisionError as error:
            seen.append(type(error))

    async with unharmed():
        run = fan_out(fetch, numbers(), limit=4)
        await run.__aenter__()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(consume, run)
        with pytest.raises(ZeroDivisionError):
            await run.__aexit__(None, None, None)
    assert seen == [ZeroDivisionError] * 3


@pytest.mark.anyio
async def test_a_cancellation_that_meets_a_bug_does_not_hide_it() -> None:
    """As a task group of anyio does: the bug comes out of the block."""

    async def fetch(_: int) -> int:
        await anyio.sleep(1)
        raise ZeroDivisionError

    async with unharmed():
        with anyio.CancelScope() as scope:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with fan_out(fetch, numbers(), limit=1):
                    await anyio.sleep(2)
                    scope.cancel()
                    await anyio.sleep(2)


@pytest.mark.anyio
@pytest.mark.parametrize("same", [False, True])
async def test_an_exception_that_meets_a_bug_keeps_it_company(same: bool) -> None:
    """Unless it is the bug itself."""
    bug = ZeroDivisionError()

    async def fetch(_: int) -> int:
        await anyio.sleep(1)
        raise bug

    async with unharmed():
        with pytest.raises(BaseException) as caught:  # noqa: PT011, PT012 - which one is told below.
            async with fan_out(fetch, numbers(), limit=1):
                await anyio.sleep(2)
                raise (bug if same else KeyError("another"))
        if same:
            assert caught.value is bug
        else:
            assert isinstance(caught.value, BaseExceptionGroup)
            assert [type(error) for error in caught.value.exceptions] == [KeyError, ZeroDivisionError]


def test_a_lookup_that_is_cancelled_from_outside_ends_the_run_with_an_error() -> None:
    """Its outcome is lost, and must not be missed in silence; a bare `CancelledError` would cancel the reader."""

    async def main() -> None:
        tasks: dict[int, asyncio.Task[Any] | None] = {}

        async def fetch(key: int) -> int:
            tasks[key] = asyncio.current_task()
            await asyncio.sleep(10)
            return key

        with no_task_left():
            with pytest.raises(RuntimeError, match="cancelled from outside") as caught:  # noqa: PT012
                async with fan_out(fetch, numbers(), limit=4) as run:
                    await settle()
                    victim = tasks[2]
                    assert victim is not None
                    victim.cancel()
                    await read(run)
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(1)

    run_virtually(main)


# ---------------------------------------------------------------- the loop ends


def ended_in_time(main: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """Run `main` as `asyncio.run` does, in virtual time, and return what came out; the loop's end must not hang."""
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())  # type: ignore[arg-type]
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt too is what is asked for.
        return error
    return None


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize("holds", ["the run", "a generator", "a task"])
@pytest.mark.parametrize("clean_up", [0.0, 5.0])
def test_a_loop_that_ends_with_a_run_open_ends(turns: int, holds: str, clean_up: float) -> None:
    """`asyncio.run` cancels all tasks, whatever they are at: those that have not started yet too."""
    kept: list[Any] = []
    lookups = Lookups(clean_up)

    async def generator() -> AsyncIterator[int]:
        async with fan_out(lookups, numbers(), limit=3) as run:
            yield 0
            async for outcome in run:
                yield outcome.key

    async def consume() -> None:
        async with fan_out(lookups, numbers(), limit=3) as run:
            await read(run)

    async def main() -> None:
        if holds == "the run":
            run = fan_out(lookups, numbers(), limit=3)
            kept.append(run)
            await run.__aenter__()
        elif holds == "a generator":
            kept.append(generator())
            await anext(kept[0])
        else:
            kept.append(asyncio.create_task(consume()))
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)

    assert ended_in_time(main) is None
    assert lookups.running == 0
    if holds == "the run":
        assert not kept[0]._workers.tasks


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 50])
def test_a_run_of_a_loop_that_ended_can_still_be_ended(turns: int) -> None:
    """In the next loop, where nothing of it is left to wait for."""
    runs: list[FanOut[int, int]] = []

    async def main() -> None:
        runs.append(fan_out(Lookups(), numbers(), limit=3))
        await runs[0].__aenter__()
        for _ in range(turns):
            await asyncio.sleep(0)

    assert ended_in_time(main) is None
    assert ended_in_time(runs[0].aclose) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_lookup_ends_the_program_as_everywhere(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It comes out of `asyncio.run`, and every lookup has ended by then."""
    lookups = Lookups(clean_up=5)

    async def fetch(key: int) -> int:
        if key == 3:
            await asyncio.sleep(0.5)
            raise error
        return await lookups(key)

    async def main() -> None:
        async with fan_out(fetch, numbers(), limit=5) as run:
            await read(run)

    assert type(ended_in_time(main)) is error
    assert lookups.running == 0
    # Nor does asyncio say later that nobody asked a worker how it ended; of `main` it does, as of everybody's.
    gc.collect()
    assert not [record for record in caplog.records if "spawn" in record.getMessage()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_lookup_ends_a_run_of_trio_as_everywhere(error: type[BaseException]) -> None:
    """It comes out of the block, and is no internal error of trio's."""
    lookups = Lookups(clean_up=5)

    async def fetch(key: int) -> int:
        if key == 3:
            await trio.sleep(0.5)
            raise error
        return await lookups(key)

    async def main() -> None:
        async with fan_out(fetch, numbers(), limit=5) as run:
            await read(run)

    with pytest.raises(error):
        run_virtually(main, "trio")
    assert lookups.running == 0


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_a_trio_program_that_ends_with_a_run_open_ends(steps: int) -> None:
    """The lookups are cancelled as its last tasks are."""
    lookups = Lookups(clean_up=5)
    kept: list[FanOut[int, int]] = []

    async def main() -> None:
        kept.append(fan_out(lookups, numbers(), limit=3))
        await kept[0].__aenter__()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()

    run_virtually(main, "trio")
    assert lookups.running == 0
    assert not kept[0]._workers.tasks


def test_a_run_left_in_another_nursery_of_trio_harms_neither() -> None:
    """Entered in a nursery that is over, left in one that is cancelled."""

    async def main() -> None:
        lookups = Lookups(clean_up=5)
        with no_task_left():
            run = fan_out(lookups, numbers(), limit=3)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.__aenter__)
            async with trio.open_nursery() as nursery:
                await run.__anext__()
                nursery.start_soon(run.aclose)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert lookups.running == 0

    run_virtually(main, "trio")

"""Bulk runs: bounded, lazy, one outcome for each key, and nothing left behind."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from decimal import Decimal
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from phygitals_async import (
    AuthenticationError,
    Batch,
    ConfigurationError,
    DecodeError,
    Failed,
    FanOut,
    Found,
    InvalidArgumentError,
    Inventory,
    NotAttempted,
    Outcome,
    PhygitalsClient,
    PhygitalsError,
    Progress,
    Request,
    Response,
    Sandbox,
    ServerError,
    UserNotFound,
    fan_out,
    fan_out_all,
)
from phygitals_async._calls.lookups import Counts
from phygitals_async._loop.wait_queue import WaitQueue
from phygitals_transports import MemoryTransport

NO_COUNT: list[Any] = [0, -1, True, 1.5, "3", None]
NO_KEYS: list[Any] = ["user_a", b"user_a", 7, None]
SOURCE_ERRORS = [ZeroDivisionError("source"), UserNotFound(status=404), ExceptionGroup("source", [OSError()])]
CancelPoint = Callable[[], Awaitable[None]]


class Lookups:
    """A lookup for tests: it counts, waits at a gate while that is closed, and fails as told.

    `errors` maps a key to what its lookup raises; a key's lookup takes `steps` checkpoints.
    """

    def __init__(self, errors: dict[int, BaseException] | None = None, *, steps: int = 1) -> None:
        self.errors = errors or {}
        self.steps = steps
        self.started: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.finished: list[int] = []
        self.most = 0
        self.gates: dict[int, anyio.Event] = {}

    @property
    def running(self) -> int:
        """How many lookups are running now."""
        return len(self.started) - len(self.ended)

    def hold(self, *keys: int) -> None:
        """Let the lookups of `keys` wait until they are let go."""
        self.gates.update({key: anyio.Event() for key in keys})

    def let_go(self, key: int) -> None:
        """Let the lookup of `key` go on."""
        self.gates[key].set()

    async def __call__(self, key: int) -> str:
        """Look `key` up."""
        self.started.append(key)
        self.most = max(self.most, self.running)
        try:
            for _ in range(self.steps):
                await anyio.lowlevel.checkpoint()
            if key in self.gates:
                await self.gates[key].wait()
            if key in self.errors:
                raise self.errors[key]
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(key)
            raise
        finally:
            self.ended.append(key)
        self.finished.append(key)
        return f"value {key}"


class Keys:
    """Whole numbers from 0 on, counted as they are read; endless unless told where to end or to fail."""

    def __init__(self, stop: int | None = None, error: BaseException | None = None) -> None:
        self.read = 0
        self.reads_after_end = 0
        self._stop = stop
        self._error = error
        self._over = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._over:
            self.reads_after_end += 1
        if self.read == 10_000:
            msg = "the source is read on and on"
            raise OverflowError(msg)
        if self.read == self._stop:
            self._over = True
            if self._error is not None:
                raise self._error
            raise StopIteration
        self.read += 1
        return self.read - 1


class AsyncKeys:
    """`Keys` behind a checkpoint; it refuses to be read twice at once, as an async generator does."""

    def __init__(self, stop: int | None = None, error: BaseException | None = None) -> None:
        self.keys = Keys(stop, error)
        self._reading = False

    @property
    def read(self) -> int:
        """How many keys were read."""
        return self.keys.read

    @property
    def reads_after_end(self) -> int:
        """How often it was read again after it had ended."""
        return self.keys.reads_after_end

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        assert not self._reading
        self._reading = True
        try:
            await anyio.lowlevel.checkpoint()
            for key in self.keys:
                return key
            raise StopAsyncIteration
        finally:
            self._reading = False


@pytest.fixture(params=[Keys, AsyncKeys])
def keys_class(request: pytest.FixtureRequest) -> type[Keys | AsyncKeys]:
    """Run a test with a plain and with an asynchronous source of keys."""
    return cast("type[Keys | AsyncKeys]", request.param)


async def settle() -> None:
    """Let all other tasks go on until each waits for something that will not come by itself."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


@contextmanager
def no_task_left() -> Iterator[None]:
    """Check that no task outlives the block."""
    before = {task.id for task in anyio.get_running_tasks()}
    yield
    assert {task.id for task in anyio.get_running_tasks()} == before


async def drain(run: FanOut[Any, Any]) -> list[Outcome[Any, Any]]:
    """Enter a run and return all its outcomes."""
    async with run as outcomes:
        return [outcome async for outcome in outcomes]


def counts(progress: Progress) -> tuple[int, int, int]:
    """Return what is found, failed and in flight."""
    return progress.found, progress.failed, progress.in_flight


def world(*user_ids: str) -> tuple[PhygitalsClient, MemoryTransport]:
    """Return a client of a sandbox where these users own a card each, and its transport."""
    sandbox = Sandbox(seed=1)
    for user_id in user_ids:
        sandbox.add_item(user_id, name=f"card of {user_id}", buyback_price=Decimal("8.50"))
    transport = MemoryTransport(sandbox)
    return PhygitalsClient(transport, api_key="sandbox-test"), transport


# ---------------------------------------------------------------- bounded and lazy


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_the_limit_is_reached_and_never_passed(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Exactly `limit` lookups run at once when there are keys enough."""
    lookups = Lookups(steps=3 * limit)
    async with fan_out(lookups, keys_class(), limit=limit) as outcomes:
        taken = 0
        async for _ in outcomes:
            assert outcomes.progress.in_flight == lookups.running <= limit
            taken += 1
            if taken == 40:
                break
    assert lookups.most == limit


@pytest.mark.anyio
async def test_the_limit_is_filled_while_nobody_takes_outcomes(keys_class: type[Keys | AsyncKeys]) -> None:
    """The run starts its lookups on entry, without waiting to be iterated."""
    lookups = Lookups()
    lookups.hold(*range(100))
    async with fan_out(lookups, keys_class(), limit=5) as outcomes:
        await settle()
        assert lookups.started == [0, 1, 2, 3, 4]
        assert counts(outcomes.progress) == (0, 0, 5)


@pytest.mark.anyio
async def test_keys_are_read_no_further_than_lookups_can_start(keys_class: type[Keys | AsyncKeys]) -> None:
    """From an endless source only as many keys are read as lookups run."""
    lookups = Lookups()
    lookups.hold(*range(100))
    keys = keys_class()
    async with fan_out(lookups, keys, limit=3):
        await settle()
        assert keys.read == 3


@pytest.mark.anyio
async def test_a_sync_generator_is_read_lazily_and_closed() -> None:
    """A run left early does not use the caller's own generator up, and closes it, as an async one."""
    read: list[int] = []
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            for number in itertools.count():
                read.append(number)
                yield number
        finally:
            closed.append(True)

    async with fan_out(Lookups(), numbers(), limit=2) as outcomes:
        first = await anext(outcomes)
    assert first == Found(0, "value 0")
    assert len(read) < 6
    assert closed == [True]


@pytest.mark.anyio
@pytest.mark.parametrize("leaves", [True, False])
async def test_an_async_generator_is_read_lazily_and_closed(leaves: bool) -> None:
    """An async generator is read as far as needed, and its own scopes are left in the task that entered them."""
    read: list[int] = []
    closed_in: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        with anyio.CancelScope():
            opened_in = anyio.get_current_task().id
            try:
                for number in range(10**6 if leaves else 20):
                    read.append(number)
                    yield number
            finally:
                assert anyio.get_current_task().id == opened_in
                closed_in.append(opened_in)

    async with fan_out(Lookups(steps=3), numbers(), limit=4) as outcomes:
        if leaves:
            assert (await anext(outcomes)).key < 4
        else:
            assert sorted([outcome.key async for outcome in outcomes]) == list(range(20))
    assert len(closed_in) == 1
    assert not leaves or len(read) < 10


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 4, 16])
async def test_one_run_feeds_another(limit: int) -> None:
    """An async generator that holds a bulk run open can be the source of the next."""

    async def values() -> AsyncIterator[str]:
        async with fan_out(Lookups(steps=1), range(50), limit=limit) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Found)
                yield outcome.value

    async def measure(value: str) -> int:
        await anyio.lowlevel.checkpoint()
        return len(value)

    async with fan_out(measure, values(), limit=limit) as outcomes:
        found = [outcome.key async for outcome in outcomes]
    assert sorted(found) == sorted(f"value {number}" for number in range(50))


@pytest.mark.anyio
async def test_skipping_many_repeated_keys_lets_others_run() -> None:
    """An endless iterable that has nothing new does not block the event loop."""
    async with fan_out(Lookups(), itertools.cycle([1, 2]), limit=2, distinct=True) as outcomes:
        assert {(await anext(outcomes)).key, (await anext(outcomes)).key} == {1, 2}
        with anyio.move_on_after(0.01) as scope:
            await anext(outcomes)
        assert scope.cancelled_caught


@pytest.mark.anyio
async def test_skipping_many_repeated_keys_of_an_async_source_lets_others_run() -> None:
    """It has them all at hand, and is asked for more without end."""

    async def same() -> AsyncIterator[int]:
        for number in itertools.cycle([1]):
            yield number

    async with fan_out(Lookups(), same(), limit=2, distinct=True) as outcomes:
        assert (await anext(outcomes)).key == 1
        with anyio.move_on_after(0.01) as scope:
            await anext(outcomes)
        assert scope.cancelled_caught


@pytest.mark.anyio
@pytest.mark.parametrize("ends", [StopIteration, StopAsyncIteration])
async def test_a_source_that_raises_the_wrong_end_is_no_end(ends: type[Exception]) -> None:
    """An exception that would end the consumer's loop in silence comes out as a failure."""

    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> int:
            raise StopAsyncIteration

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> int:
            raise StopIteration

    class Plain:
        def __iter__(self) -> Iterator[int]:
            return cast("Iterator[int]", Source())

    source: Any = Source() if ends is StopIteration else Plain()
    with pytest.raises(RuntimeError) as caught:  # noqa: PT012
        async with fan_out(Lookups(), source, limit=2) as outcomes:
            async for _ in outcomes:
                pass
    # Python itself makes a RuntimeError of a StopIteration in a coroutine.
    assert isinstance(caught.value.__cause__, ends | RuntimeError)


@pytest.mark.anyio
async def test_a_shielded_consumer_of_a_broken_run_is_not_stuck() -> None:
    """A bug in a lookup reaches a consumer that no cancellation reaches."""

    async def fetch(key: int) -> int:
        await anyio.lowlevel.checkpoint()
        if key == 3:
            raise KeyError(key)
        return key

    with anyio.fail_after(10), pytest.raises(KeyError):  # noqa: PT012
        async with fan_out(fetch, range(10), limit=2) as outcomes:
            with anyio.CancelScope(shield=True):
                async for _ in outcomes:
                    pass


@pytest.mark.anyio
async def test_a_cancelled_scope_around_a_run_reaches_its_lookups_through_the_consumer_alone() -> None:
    """A consumer that shields itself goes on: the run is no child of the scope."""
    with anyio.CancelScope() as scope:
        async with fan_out(Lookups(steps=3), range(10), limit=2) as outcomes:
            with anyio.CancelScope(shield=True):
                scope.cancel()
                assert {outcome.key async for outcome in outcomes} == set(range(10))
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_a_consumer_outside_does_not_take_a_run_cut_short_for_complete() -> None:
    """Who goes on iterating a run that was left gets an error, not an end."""
    ends: list[BaseException | None] = []

    async def consume(outcomes: FanOut[int, str], first: anyio.Event) -> None:
        try:
            async for _ in outcomes:
                first.set()
                await anyio.lowlevel.checkpoint()
        except RuntimeError as error:
            ends.append(error)
        else:
            ends.append(None)

    async with anyio.create_task_group() as group:
        first = anyio.Event()
        async with fan_out(Lookups(steps=2), itertools.count(), limit=2) as outcomes:
            group.start_soon(consume, outcomes, first)
            await first.wait()
    (error,) = ends
    assert "left before all of its keys" in str(error)


@pytest.mark.asyncio
async def test_a_cancellation_while_leaving_on_an_exception_is_delivered() -> None:
    """`task.cancel()` that comes while lookups are being ended is not lost, and comes out at their end."""
    under_way = asyncio.Event()

    async def fetch(key: int) -> int:
        under_way.set()
        try:
            await asyncio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0.02)
        return key

    seen: list[str] = []

    async def body() -> None:
        try:
            async with fan_out(fetch, range(3), limit=2):
                await under_way.wait()
                asyncio.get_running_loop().call_later(0.005, task.cancel)
                raise KeyError("body")
        except KeyError:
            seen.append("body's own")
        await asyncio.sleep(0)
        seen.append("went on")

    task = asyncio.ensure_future(body())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == []


@pytest.mark.anyio
async def test_only_as_many_wake_as_there_is_room_for() -> None:
    """A slow consumer's every step wakes one waiting lookup, not all of them."""
    steps = 0

    class Counting(WaitQueue):
        async def wait(self) -> None:
            nonlocal steps
            await super().wait()
            steps += 1

    run: FanOut[int, str] = fan_out(Lookups(), range(400), limit=50)
    run._workers._room = Counting()
    async with run as outcomes:
        async for _ in outcomes:
            await settle()
    assert 0 < steps <= 2 * 400


@pytest.mark.anyio
async def test_a_failure_that_is_kept_keeps_no_frames() -> None:
    """Ten thousand kept failures must not hold ten thousand stacks, nor what stood in their variables."""

    async def fetch(_: int) -> int:
        raise UserNotFound(status=404)

    batch = await fan_out_all(fetch, range(3))
    assert [outcome.error.__traceback__ for outcome in batch.failed] == [None] * 3


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_a_slow_consumer_stops_the_reading(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """At most twice `limit` outcomes wait for the consumer, and no key is read for which there would be no room."""
    lookups = Lookups()
    keys = keys_class()
    async with fan_out(lookups, keys, limit=limit) as outcomes:
        for taken in range(25):
            await settle()
            assert lookups.running == 0
            assert len(lookups.finished) - taken <= 2 * limit
            assert keys.read - taken <= 2 * limit
            await anext(outcomes)


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_a_consumer_in_bursts_never_lets_more_than_the_limit_wait(limit: int) -> None:
    """Whatever the consumer's rhythm, never more than twice `limit` finished outcomes are kept."""
    lookups = Lookups()
    taken = 0

    async def fetch(key: int) -> str:
        value = await lookups(key)
        assert len(lookups.finished) - taken <= 2 * limit
        return value

    async with fan_out(fetch, Keys(), limit=limit) as outcomes:
        for burst in [1, limit, 1, 2 * limit, 3, 1, 1, limit + 1] * 3:
            for _ in range(burst):
                await anext(outcomes)
                taken += 1
            await settle()


@pytest.mark.anyio
async def test_lookups_without_a_single_await_are_bounded_too(keys_class: type[Keys | AsyncKeys]) -> None:
    """A lookup that answers from a cache, without waiting, does not make the run read on and on."""
    lookups = Lookups(steps=0)
    keys = keys_class()
    async with fan_out(lookups, keys, limit=4) as outcomes:
        await settle()
        assert len(lookups.finished) <= 8
        assert [(await anext(outcomes)).key for _ in range(50)] == list(range(50))


@pytest.mark.anyio
async def test_outcomes_come_as_lookups_complete() -> None:
    """The order is that of completion, not that of the keys."""
    lookups = Lookups({2: UserNotFound(status=404)})
    lookups.hold(0, 1, 2)
    async with fan_out(lookups, range(3), limit=3) as outcomes:
        for key in (2, 0, 1):
            lookups.let_go(key)
            assert (await anext(outcomes)).key == key


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 64])
async def test_zero_keys(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """No keys give no outcomes and no lookups."""
    lookups = Lookups()
    run = fan_out(lookups, keys_class(0), limit=limit)
    assert await drain(run) == []
    assert lookups.started == []
    assert repr(run.progress) == repr(Progress(Counts()))


@pytest.mark.anyio
async def test_a_limit_beyond_the_keys_starts_nothing_needless(keys_class: type[Keys | AsyncKeys]) -> None:
    """Three keys take three lookups, and hardly more tasks, under a limit of a million."""
    lookups = Lookups()
    lookups.hold(0, 1, 2)
    before = len(anyio.get_running_tasks())
    async with fan_out(lookups, keys_class(3), limit=1_000_000) as outcomes:
        await settle()
        assert lookups.started == [0, 1, 2]
        assert len(anyio.get_running_tasks()) - before <= 4
        for key in range(3):
            lookups.let_go(key)
        assert {outcome.key async for outcome in outcomes} == {0, 1, 2}
    assert lookups.started == [0, 1, 2]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 3, 64])
async def test_each_key_has_one_outcome_with_its_value(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Found and failed alike, each key comes out exactly once with what its own lookup gave."""
    errors: dict[int, BaseException] = {key: ServerError(status=500) for key in range(0, 50, 3)}
    outcomes = await drain(fan_out(Lookups(errors), keys_class(50), limit=limit))
    assert sorted(outcome.key for outcome in outcomes) == list(range(50))
    for outcome in outcomes:
        expected = Failed(outcome.key, errors[outcome.key]) if outcome.key % 3 == 0 else None  # type: ignore[arg-type]
        assert outcome == (expected or Found(outcome.key, f"value {outcome.key}"))


@pytest.mark.anyio
async def test_distinct_looks_a_repeated_key_up_once(keys_class: type[Keys | AsyncKeys]) -> None:
    """With `distinct` a repeated key has one lookup and one outcome; without, one for each place."""
    given = [1, 2, 1, 1, 3, 2]

    async def asynchronous() -> AsyncIterator[int]:
        for key in given:
            yield key

    def source() -> Any:
        return given if keys_class is Keys else asynchronous()

    once, each = Lookups(), Lookups()
    assert sorted(o.key for o in await drain(fan_out(once, source(), limit=4, distinct=True))) == [1, 2, 3]
    assert sorted(o.key for o in await drain(fan_out(each, source(), limit=4))) == sorted(given)
    assert sorted(once.started) == [1, 2, 3]
    assert sorted(each.started) == sorted(given)


@pytest.mark.anyio
async def test_distinct_of_the_client() -> None:
    """`stream_inventories(distinct=True)` sends one request for a repeated id."""
    api, transport = world("a", "b")
    outcomes = await drain(api.stream_inventories(["a", "b", "a"], distinct=True))
    assert sorted(outcome.key for outcome in outcomes) == ["a", "b"]
    assert len(transport.sent) == 2
    outcomes = await drain(api.stream_inventories(["a", "b", "a"]))
    assert sorted(outcome.key for outcome in outcomes) == ["a", "a", "b"]


# ---------------------------------------------------------------- refused before anything happens


@pytest.mark.anyio
@pytest.mark.parametrize("limit", NO_COUNT)
async def test_a_limit_that_is_no_count_is_refused(limit: Any) -> None:
    """Only a whole number of at least 1 is a limit; nothing is looked up otherwise."""
    lookups, keys = Lookups(), Keys()
    api, transport = world("a")
    with pytest.raises(ConfigurationError, match="limit must be a whole number"):
        fan_out(lookups, keys, limit=limit)
    with pytest.raises(ConfigurationError, match="limit"):
        api.stream_inventories(["a"], limit=limit)
    with pytest.raises(ConfigurationError, match="limit"):
        await fan_out_all(lookups, [1], limit=limit)
    with pytest.raises(ConfigurationError, match="limit"):
        await api.get_inventories(["a"], limit=limit)
    assert (lookups.started, keys.read, transport.sent) == ([], 0, [])


@pytest.mark.anyio
@pytest.mark.parametrize("keys", NO_KEYS)
async def test_keys_that_are_no_keys_are_refused(keys: Any) -> None:
    """A single string is never taken apart into characters, and what cannot be iterated is named."""
    api, transport = world("a")
    text = re.escape(f"not a single {type(keys).__name__}")
    with pytest.raises(InvalidArgumentError, match=text):
        fan_out(Lookups(), keys)
    with pytest.raises(InvalidArgumentError, match=text):
        api.stream_inventories(keys)
    with pytest.raises(InvalidArgumentError, match=text):
        await fan_out_all(Lookups(), keys)
    with pytest.raises(InvalidArgumentError, match=text):
        await api.get_inventories(keys)
    assert transport.sent == []


@pytest.mark.anyio
async def test_a_run_is_entered_once() -> None:
    """Entering a run again raises, while it runs and after it, and does no harm to it."""
    run = fan_out(Lookups(), range(3))
    async with run as outcomes:
        with pytest.raises(RuntimeError, match="entered only once"):
            await run.__aenter__()
        assert len([outcome async for outcome in outcomes]) == 3
    with pytest.raises(RuntimeError, match="entered only once"):
        async with run:
            pytest.fail("it was entered again")


@pytest.mark.anyio
async def test_a_run_is_entered_before_it_is_iterated() -> None:
    """Forgetting the `async with` is told, and starts nothing."""
    lookups = Lookups()
    run = fan_out(lookups, range(3))
    with pytest.raises(RuntimeError, match="enter the bulk run first"):  # noqa: PT012
        async for _ in run:
            pytest.fail("there is no outcome yet")
    await settle()
    assert lookups.started == []


def test_a_run_can_be_made_before_the_event_loop(anyio_backend: str, keys_class: type[Keys | AsyncKeys]) -> None:
    """Making a run needs no event loop; only entering it does."""
    run = fan_out(Lookups(), keys_class(3))

    async def main() -> list[Outcome[Any, Any]]:
        return await drain(run)

    assert len(anyio.run(main, backend=anyio_backend)) == 3


# ---------------------------------------------------------------- consumers


@pytest.mark.anyio
@pytest.mark.parametrize("consumers", [2, 5])
async def test_several_consumers_share_the_outcomes(consumers: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Tasks that iterate one run get each outcome exactly once between them, and all of them end."""
    shares: list[list[int]] = [[] for _ in range(consumers)]

    async def consume(outcomes: FanOut[int, str], share: list[int]) -> None:
        async for outcome in outcomes:
            share.append(outcome.key)
            await anyio.lowlevel.checkpoint()

    async with fan_out(Lookups(steps=2), keys_class(60), limit=4) as outcomes:
        async with anyio.create_task_group() as group:
            for share in shares:
                group.start_soon(consume, outcomes, share)
        assert counts(outcomes.progress) == (60, 0, 0)
    assert sorted(itertools.chain(*shares)) == list(range(60))
    assert all(shares)


@pytest.mark.anyio
async def test_more_consumers_than_outcomes_all_end() -> None:
    """Consumers that wait in vain are woken when the run has nothing more to give."""
    ended = 0

    async def consume(outcomes: FanOut[int, str]) -> None:
        nonlocal ended
        async for _ in outcomes:
            pass
        ended += 1

    lookups = Lookups()
    lookups.hold(0)
    async with fan_out(lookups, [0]) as outcomes, anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(consume, outcomes)
        await settle()
        lookups.let_go(0)
    assert ended == 4


@pytest.mark.anyio
async def test_a_consumer_cancelled_while_waiting_loses_no_outcome() -> None:
    """Giving up on one `anext` leaves the outcome for the next."""
    lookups = Lookups()
    lookups.hold(0, 1)
    async with fan_out(lookups, range(2)) as outcomes:
        async with anyio.create_task_group() as group:
            group.start_soon(outcomes.__anext__)
            await settle()
            lookups.let_go(0)
            group.cancel_scope.cancel()
        lookups.let_go(1)
        assert {outcome.key async for outcome in outcomes} == {0, 1}


@pytest.mark.anyio
async def test_an_exhausted_run_stays_exhausted() -> None:
    """After the last outcome every further `anext` ends at once, inside the block and after it."""
    async with fan_out(Lookups(), range(2)) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 2
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    with pytest.raises(StopAsyncIteration):
        await anext(outcomes)


# ---------------------------------------------------------------- errors and bugs


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 4])
@pytest.mark.parametrize("bug", [ZeroDivisionError("bug"), TimeoutError("bug"), OSError("bug")])
async def test_a_bug_of_a_lookup_surfaces_bare(bug: Exception, limit: int) -> None:
    """What is not a `PhygitalsError` cancels the run and is raised itself, not in a group."""
    lookups = Lookups({3: bug})
    lookups.hold(*range(10, 100))
    seen: list[int] = []
    run = fan_out(lookups, Keys(), limit=limit)
    with no_task_left():
        with pytest.raises(type(bug)) as caught:  # noqa: PT012
            async with run as outcomes:
                seen.extend([outcome.key async for outcome in outcomes])
                pytest.fail("the run went on")
        assert caught.value is bug
    assert 3 not in seen
    assert lookups.running == 0
    assert run.progress.in_flight == 0


@pytest.mark.anyio
async def test_a_bug_that_is_a_group_surfaces_as_that_group() -> None:
    """A lookup that itself raises a group has it neither wrapped nor unwrapped; trio may copy a group."""
    error = OSError("bug")
    with pytest.raises(ExceptionGroup, match=r"^the caller's own$") as caught:
        await drain(fan_out(Lookups({3: ExceptionGroup("the caller's own", [error])}), range(9), limit=4))
    assert caught.value.exceptions == (error,)


@pytest.mark.anyio
async def test_a_bug_surfaces_even_if_the_body_never_iterates(caplog: pytest.LogCaptureFixture) -> None:
    """A body that only waits is not disturbed by a lookup's bug: it is logged at once, and raised at the end."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with fan_out(Lookups({0: ZeroDivisionError()}), range(5)):
            await settle()
            assert "ZeroDivisionError" in caplog.text


@pytest.mark.anyio
async def test_a_bug_reaches_several_consumers_as_one_error() -> None:
    """Consumers in tasks of their own inside the block are cancelled, and the bug surfaces once."""

    async def consume(outcomes: FanOut[int, str]) -> None:
        async for _ in outcomes:
            pass

    bug = ZeroDivisionError()
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with fan_out(Lookups({5: bug}), range(9), limit=2) as outcomes, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(consume, outcomes)
    assert set(caught.value.exceptions) == {bug}


@pytest.mark.anyio
async def test_a_lookup_that_raises_before_it_awaits() -> None:
    """A plain function that raises instead of returning an awaitable is a bug like any other."""

    def fetch(key: int) -> Awaitable[str]:
        raise ZeroDivisionError(key)

    with pytest.raises(ZeroDivisionError):
        await drain(fan_out(fetch, range(3)))
    with pytest.raises(ZeroDivisionError):
        await fan_out_all(fetch, range(3))


@pytest.mark.anyio
async def test_a_bug_in_the_second_half_surfaces_bare() -> None:
    """A converter hook that blows up while an outcome is taken is no `Failed`."""
    api, _ = world("a")

    def hook(value: Any, cls: type[Inventory]) -> Inventory:
        raise ZeroDivisionError

    api._engine.wire.converter.register_structure_hook(Inventory, hook)
    with no_task_left(), pytest.raises(ZeroDivisionError):
        await drain(api.stream_inventories(["a"]))


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 4])
async def test_an_exception_of_the_body_surfaces_unchanged(limit: int) -> None:
    """The caller's own exception leaves the block as it was raised, and nothing else runs on."""
    lookups = Lookups()
    lookups.hold(*range(1, 100))
    own = ValueError("own")
    with no_task_left(), pytest.raises(ValueError, match="own") as caught:  # noqa: PT012
        async with fan_out(lookups, Keys(), limit=limit) as outcomes:
            async for _ in outcomes:
                raise own
    assert caught.value is own
    assert own.__context__ is None
    assert own.__cause__ is None
    assert lookups.running == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    "own", [ExceptionGroup("own", [ValueError()]), BaseExceptionGroup("own", [KeyboardInterrupt()]), SystemExit(3)]
)
async def test_any_exception_of_the_body_surfaces_unchanged(own: BaseException) -> None:
    """Groups are not taken apart, and exceptions that end a program pass through."""
    with pytest.raises(type(own)) as caught:
        async with fan_out(Lookups(), Keys()):
            raise own
    assert caught.value is own


@pytest.mark.anyio
async def test_a_failed_outcome_raised_by_the_body_surfaces_unchanged() -> None:
    """`raise outcome.error` in the body is the idiom to stop at the first failure."""
    error = UserNotFound(status=404)
    with pytest.raises(UserNotFound) as caught:  # noqa: PT012
        async with fan_out(Lookups({0: error}), Keys(), limit=2) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Failed):
                    raise outcome.error
    assert caught.value is error


@pytest.mark.anyio
async def test_the_body_and_a_lookup_fail_together() -> None:
    """When leaving on the body's exception makes a lookup bug out, neither of the two is lost."""
    own, bug = ValueError("own"), ZeroDivisionError("bug")

    async def fetch(key: int) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            raise bug

    with no_task_left(), pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with fan_out(fetch, [1]):
            await settle()
            raise own
    assert set(caught.value.exceptions) == {own, bug}


@pytest.mark.anyio
async def test_two_bugs_at_once_are_both_told() -> None:
    """Bugs of several lookups surface together."""
    bugs = {0: ZeroDivisionError(), 1: KeyError()}

    async def fetch(key: int) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            raise bugs[key]

    with pytest.raises(ExceptionGroup) as caught:
        async with fan_out(fetch, [0, 1]):
            await settle()
    assert set(caught.value.exceptions) == set(bugs.values())


@pytest.mark.anyio
async def test_a_bug_of_a_lookup_that_is_being_cancelled_surfaces_bare() -> None:
    """A lookup that blows up in its clean-up, after a break, is not hidden and not wrapped."""
    bug = ZeroDivisionError()

    async def fetch(key: int) -> int:
        if key == 1:
            return key
        try:
            await anyio.sleep_forever()
        finally:
            raise bug
        return key

    with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012
        async with fan_out(fetch, [1, 2], limit=2) as outcomes:
            await anext(outcomes)
            await settle()
    assert caught.value is bug


@pytest.mark.anyio
async def test_an_exception_of_the_body_surfaces_unchanged_from_a_cancelled_scope() -> None:
    """The body's own exception is not wrapped because an enclosing scope is being cancelled as well."""
    lookups = Lookups()
    lookups.hold(0, 1)
    own = ValueError("own")
    with pytest.raises(ValueError, match="own") as caught:  # noqa: PT012
        with anyio.CancelScope() as scope:
            async with fan_out(lookups, range(2), limit=2):
                await settle()
                scope.cancel()
                raise own
    assert caught.value is own
    assert lookups.running == 0


@pytest.mark.anyio
async def test_a_bug_in_clean_up_surfaces_bare_from_a_cancelled_scope() -> None:
    """A lookup that blows up when an enclosing scope is cancelled surfaces as itself, others being cancelled."""
    bug = ZeroDivisionError()

    async def fetch(key: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if key == 0:
                raise bug

    with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012
        with anyio.CancelScope() as scope:
            async with fan_out(fetch, range(3), limit=3):
                await settle()
                scope.cancel()
                await anyio.sleep_forever()
    assert caught.value is bug


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [1, 3])
async def test_a_lookup_cancelled_by_a_stranger_loses_no_key_in_silence(limit: int) -> None:
    """A lookup that awaits a future which somebody else cancelled must not end as if all keys had an outcome."""

    async def fetch(key: int) -> int:
        await asyncio.sleep(0)
        if key == 1:
            stranger = asyncio.get_running_loop().create_future()
            stranger.cancel()
            await stranger
        return key

    outcomes: list[Outcome[int, int]] = []
    with pytest.raises((asyncio.CancelledError, RuntimeError)):  # noqa: PT012
        async with fan_out(fetch, range(4), limit=limit) as run:
            async for outcome in run:
                outcomes.append(outcome)  # noqa: PERF401
    with pytest.raises((asyncio.CancelledError, RuntimeError)):
        await fan_out_all(fetch, range(4), limit=limit)


@pytest.mark.anyio
async def test_a_consumer_outside_the_block_is_told_of_the_bug_too() -> None:
    """A task that iterates from outside is not cancelled with the block: it gets the bug itself."""
    bug = ZeroDivisionError("bug")
    told: list[BaseException] = []
    run = fan_out(Lookups({1: bug}), range(3), limit=1)

    async def consume(entered: anyio.Event) -> None:
        await entered.wait()
        try:
            async for _ in run:
                pass
        except ZeroDivisionError as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        entered = anyio.Event()
        group.start_soon(consume, entered)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with run:
                entered.set()
                await settle()
    assert told == [bug]


# ---------------------------------------------------------------- leaving early


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 2, 8])
async def test_break_cancels_what_runs(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Leaving by `break` ends every running lookup before the block is left, each by its own `finally`."""
    lookups = Lookups()
    lookups.hold(*range(1, 100))
    with no_task_left():
        async with fan_out(lookups, keys_class(), limit=limit) as outcomes:
            async for outcome in outcomes:
                assert outcome == Found(0, "value 0")
                await settle()
                assert lookups.running == limit
                break
        assert lookups.running == 0
        assert len(lookups.cancelled) == limit
        assert counts(outcomes.progress) == (1, 0, 0)
        started = len(lookups.started)
        await settle()
        assert len(lookups.started) == started


@pytest.mark.anyio
async def test_return_from_inside_the_block_cancels_what_runs() -> None:
    """The first answer can be returned straight from the loop."""
    lookups = Lookups()
    lookups.hold(*range(3), *range(4, 100))

    async def first() -> int | None:
        async with fan_out(lookups, Keys(), limit=5) as outcomes:
            async for outcome in outcomes:
                return outcome.key
        return None

    with no_task_left():
        assert await first() == 3
        assert lookups.running == 0
        assert set(lookups.cancelled) == {0, 1, 2, 4} | ({5} & set(lookups.started))


@pytest.mark.anyio
async def test_leaving_without_iterating_cancels_what_runs() -> None:
    """A body that does nothing leaves nothing."""
    lookups = Lookups()
    lookups.hold(*range(100))
    with no_task_left():
        async with fan_out(lookups, Keys(), limit=3):
            await settle()
        assert lookups.running == 0
        assert sorted(lookups.cancelled) == [0, 1, 2]
        async with fan_out(lookups, Keys(), limit=3):
            pass
        assert lookups.running == 0


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 3, 64])
@pytest.mark.parametrize("taken", [0, 1, 5])
async def test_a_run_that_is_left_reads_no_further(limit: int, taken: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Leaving while lookups are still being started stops the reading there, and starts no more of them."""
    lookups, keys = Lookups(steps=2), keys_class()
    async with fan_out(lookups, keys, limit=limit) as outcomes:
        for _ in range(taken):
            await anext(outcomes)
        read, started = keys.read, len(lookups.started)
    assert keys.read <= read + 1
    assert len(lookups.started) <= started + 1
    assert lookups.running == 0


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 3, 64])
async def test_a_run_that_is_cancelled_reads_no_further(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Neither does a run go on reading keys while its body takes its time over its clean-up."""
    lookups, keys = Lookups(steps=2), keys_class()
    with anyio.CancelScope() as scope:
        async with fan_out(lookups, keys, limit=limit) as outcomes:
            await anext(outcomes)
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await settle()
    assert scope.cancel_called
    # The run goes on beneath the shield, as far as there is room for outcomes.
    assert keys.read <= 2 * limit + 1
    assert len(lookups.started) <= 2 * limit + 1
    assert lookups.running == 0


@pytest.mark.anyio
async def test_a_run_under_a_cancelled_scope_looks_nothing_up() -> None:
    """Entered when everything is over already, a run costs nothing."""
    lookups, keys = Lookups(), Keys()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await drain(fan_out(lookups, keys, limit=8))
    assert scope.cancelled_caught
    assert keys.read <= 1
    assert lookups.running == 0


@pytest.mark.anyio
async def test_a_generator_around_a_run_can_be_closed() -> None:
    """An async generator that holds a run open ends it when it is closed."""
    lookups = Lookups()
    lookups.hold(*range(1, 100))

    async def values() -> AsyncIterator[int]:
        async with fan_out(lookups, Keys(), limit=3) as outcomes:
            async for outcome in outcomes:
                yield outcome.key

    with no_task_left():
        async with aclosing(cast("Any", values())) as generator:
            assert await anext(generator) == 0
            await settle()
            assert lookups.running == 3
        assert lookups.running == 0


@pytest.mark.anyio
async def test_leaving_waits_for_slow_clean_up() -> None:
    """The block is left only when every lookup's clean-up is through, however many awaits that takes."""
    cleaned: list[int] = []

    async def fetch(key: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await settle()
            cleaned.append(key)

    with no_task_left():
        async with fan_out(fetch, range(3), limit=3):
            await settle()
        assert sorted(cleaned) == [0, 1, 2]


@pytest.mark.anyio
async def test_runs_nest() -> None:
    """A lookup may be a bulk run of its own; a bug in the inner one surfaces bare from the outer one."""
    bug = ZeroDivisionError()
    inner = Lookups()

    async def fetch(key: int) -> tuple[str, ...]:
        if key == 9:
            raise bug
        batch = await fan_out_all(inner, [key * 10, key * 10 + 1], limit=2)
        return tuple(found.value for found in batch.found)

    batch = await fan_out_all(fetch, range(3), limit=2)
    expected = [("value 0", "value 1"), ("value 10", "value 11"), ("value 20", "value 21")]
    assert [found.value for found in batch.found] == expected
    with no_task_left(), pytest.raises(ZeroDivisionError) as caught:
        await fan_out_all(fetch, [1, 9], limit=2)
    assert caught.value is bug
    assert inner.running == 0


# ---------------------------------------------------------------- a source that fails or stalls


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [0, 1, 5])
@pytest.mark.parametrize("limit", [1, 3, 64])
@pytest.mark.parametrize("error", SOURCE_ERRORS)
async def test_a_source_that_raises(
    stop: int, limit: int, error: Exception, keys_class: type[Keys | AsyncKeys]
) -> None:
    """The keys read before come out first; then the iteration raises the very error, once and unwrapped."""
    keys = keys_class(stop, error)
    run = fan_out(Lookups({2: ServerError(status=500)}, steps=4), keys, limit=limit)
    delivered: list[int] = []
    with no_task_left():
        async with run as outcomes:
            with pytest.raises(type(error)) as caught:  # noqa: PT012
                async for outcome in outcomes:
                    delivered.append(outcome.key)  # noqa: PERF401
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
    assert caught.value is error
    assert error.__cause__ is None
    assert sorted(delivered) == list(range(stop))
    assert keys.reads_after_end == 0
    assert run.progress.done == stop


@pytest.mark.anyio
async def test_a_source_error_leaves_the_block_unwrapped(keys_class: type[Keys | AsyncKeys]) -> None:
    """Not caught inside, the source's error leaves the block as itself."""
    error = ZeroDivisionError("source")
    with no_task_left(), pytest.raises(ZeroDivisionError) as caught:
        await drain(fan_out(Lookups(), keys_class(3, error), limit=2))
    assert caught.value is error


@pytest.mark.anyio
async def test_a_source_error_waits_for_a_slow_lookup(keys_class: type[Keys | AsyncKeys]) -> None:
    """A lookup that still runs when the source fails has its outcome delivered before the error."""
    lookups = Lookups()
    lookups.hold(0)
    async with fan_out(lookups, keys_class(2, ZeroDivisionError()), limit=8) as outcomes:
        assert (await anext(outcomes)).key == 1
        await settle()
        lookups.let_go(0)
        assert (await anext(outcomes)).key == 0
        with pytest.raises(ZeroDivisionError):
            await anext(outcomes)


@pytest.mark.anyio
async def test_a_generator_that_raises() -> None:
    """Generators of both kinds that raise midway behave as any source."""

    def plain() -> Iterator[int]:
        yield 0
        raise ZeroDivisionError

    async def asynchronous() -> AsyncIterator[int]:
        for key in plain():
            yield key

    for source in (plain(), asynchronous()):
        async with fan_out(Lookups(), cast("Iterable[int]", source), limit=3) as outcomes:
            assert (await anext(outcomes)).key == 0
            with pytest.raises(ZeroDivisionError):
                await anext(outcomes)


@pytest.mark.anyio
async def test_an_unhashable_key_with_distinct_is_a_source_error() -> None:
    """It cannot be remembered, so reading stops there, after the outcomes of the keys before it."""
    lookups = Lookups()
    keys: list[Any] = [1, [2]]
    async with fan_out(lookups, keys, distinct=True) as outcomes:
        assert (await anext(outcomes)).key == 1
        with pytest.raises((TypeError, InvalidArgumentError), match="unhashable"):
            await anext(outcomes)
    assert lookups.started == [1]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [2, 64])
async def test_a_stalled_source_holds_nothing_back(limit: int) -> None:
    """Outcomes are delivered while the next key is a long time coming, and the run can be left then."""
    came = anyio.Event()

    async def keys() -> AsyncIterator[int]:
        yield 0
        yield 1
        await came.wait()
        yield 2
        await anyio.sleep_forever()

    with no_task_left():
        async with fan_out(Lookups(), keys(), limit=limit) as outcomes:
            assert {(await anext(outcomes)).key for _ in range(2)} == {0, 1}
            await settle()
            came.set()
            assert (await anext(outcomes)).key == 2


@pytest.mark.anyio
async def test_a_stalled_source_with_a_limit_of_one() -> None:
    """A single worker that waits for a key has handed over the outcome before."""
    send, receive = anyio.create_memory_object_stream[int]()
    async with send, receive, fan_out(Lookups(), receive, limit=1) as outcomes:
        for key in range(4):
            await send.send(key)
            assert (await anext(outcomes)).key == key
        await send.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


# ---------------------------------------------------------------- a refused key


class Refusing:
    """Answers as the sandbox does until a number of requests, then says 401."""

    def __init__(self, sandbox: Sandbox, after: int) -> None:
        self.sandbox = sandbox
        self.left = after

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        self.left -= 1
        return self.sandbox(request) if self.left >= 0 else Response(401, {}, b'{"error": "Invalid API key"}')


def refusing(after: int, users: int) -> tuple[PhygitalsClient, MemoryTransport, list[str]]:
    """Return a client whose key is refused from the given request on, its transport and the ids of users."""
    sandbox = Sandbox(seed=1)
    user_ids = [f"u{number}" for number in range(users)]
    for user_id in user_ids:
        sandbox.add_user(user_id)
    transport = MemoryTransport(Refusing(sandbox, after))
    return PhygitalsClient(transport, api_key="sandbox-test"), transport, user_ids


@pytest.mark.anyio
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("limit", [1, 4, 64])
async def test_a_refused_key_ends_a_stream(after: int, limit: int) -> None:
    """After a 401 nothing more is sent than what was under way; each remaining id is told as not attempted."""
    api, transport, user_ids = refusing(after, 30)
    async with api.stream_inventories(user_ids, limit=limit) as run:
        outcomes = [outcome async for outcome in run]
    assert sorted(outcome.key for outcome in outcomes) == sorted(user_ids)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    refused = [outcome.error for outcome in failed if isinstance(outcome.error, AuthenticationError)]
    skipped = [outcome.error for outcome in failed if isinstance(outcome.error, NotAttempted)]
    assert len(refused) + len(skipped) == len(failed) == 30 - after
    assert 1 <= len(refused) <= limit
    assert len(transport.sent) == after + len(refused) == run.progress.attempts
    assert all(isinstance(error.__cause__, AuthenticationError) for error in skipped)
    assert {id(error.__cause__) for error in skipped} <= {id(error) for error in refused}
    assert all(error.attempts == 0 for error in skipped)
    assert counts(run.progress) == (after, 30 - after, 0)
    assert run.progress.done == 30


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 4])
async def test_a_refused_key_ends_get_inventories(limit: int) -> None:
    """In bulk the outcomes keep the order of the ids, those not attempted included."""
    api, transport, user_ids = refusing(5, 20)
    batch = await api.get_inventories(user_ids, limit=limit)
    assert [outcome.key for outcome in batch] == user_ids
    assert len(batch.found) == 5
    assert len(batch.failed) == 15
    assert len(transport.sent) <= 5 + limit
    last = batch.outcomes[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, NotAttempted)
    assert isinstance(last.error.__cause__, AuthenticationError)
    with pytest.raises(ExceptionGroup, match="15 of 20 lookups failed") as caught:
        batch.raise_failures()
    assert len(caught.value.exceptions) == 15


@pytest.mark.anyio
async def test_a_refused_key_spares_what_is_under_way(keys_class: type[Keys | AsyncKeys]) -> None:
    """Lookups that run when the 401 comes still give their own outcomes; no other is started."""
    refusal = AuthenticationError(status=401)
    lookups = Lookups({1: refusal})
    lookups.hold(0, 1, 2)
    async with fan_out(lookups, keys_class(8), limit=3) as outcomes:
        await settle()
        lookups.let_go(1)
        assert await anext(outcomes) == Failed(1, refusal)
        await settle()
        lookups.let_go(0)
        lookups.let_go(2)
        rest = {outcome.key: outcome async for outcome in outcomes}
    assert sorted(lookups.started) == [0, 1, 2]
    assert rest[0] == Found(0, "value 0")
    assert rest[2] == Found(2, "value 2")
    for key in range(3, 8):
        outcome = rest[key]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, NotAttempted)
        assert outcome.error.__cause__ is refusal
    assert counts(outcomes.progress) == (2, 6, 0)


@pytest.mark.anyio
async def test_after_a_refused_key_an_endless_source_is_still_read_lazily(keys_class: type[Keys | AsyncKeys]) -> None:
    """Keys not attempted are bounded like any other: the consumer may stop, and the event loop stays alive."""
    keys = keys_class()
    async with fan_out(Lookups({0: AuthenticationError(status=401)}), keys, limit=3) as outcomes:
        taken = [await anext(outcomes) for _ in range(20)]
        await settle()
        assert keys.read <= 20 + 2 * 3
    assert sum(isinstance(outcome, Failed) for outcome in taken) >= 18


# ---------------------------------------------------------------- progress


@pytest.mark.anyio
async def test_progress_is_readable_while_the_run_goes_on() -> None:
    """Found, failed, done and in flight tell where the run stands at each moment."""
    lookups = Lookups({1: UserNotFound(status=404)})
    lookups.hold(0, 1, 2)
    run = fan_out(lookups, range(3), limit=2)
    assert repr(run.progress) == repr(Progress(Counts()))
    async with run as outcomes:
        await settle()
        assert (counts(run.progress), run.progress.done) == ((0, 0, 2), 0)
        lookups.let_go(1)
        await anext(outcomes)
        await settle()
        assert (counts(run.progress), run.progress.done) == ((0, 1, 2), 1)
        lookups.let_go(0)
        await anext(outcomes)
        assert (counts(run.progress), run.progress.done) == ((1, 1, 1), 2)
        lookups.let_go(2)
        await anext(outcomes)
        assert (counts(run.progress), run.progress.done) == ((2, 1, 0), 3)


@pytest.mark.anyio
async def test_attempts_are_counted_for_the_run_that_makes_them() -> None:
    """The engine counts each request for its own run, whichever function that fans out."""
    api, transport = world("a", "b")
    streamed = api.stream_inventories(["a", "b", "nobody"], limit=2)
    await drain(streamed)
    assert repr(streamed.progress) == repr(Progress(Counts(found=2, failed=1, in_flight=0, attempts=3)))

    fanned = fan_out(api.get_inventory, ["a", "nobody"])
    await drain(fanned)
    assert repr(fanned.progress) == repr(Progress(Counts(found=1, failed=1, in_flight=0, attempts=2)))
    assert streamed.progress.attempts == 3
    assert len(transport.sent) == 5


@pytest.mark.anyio
async def test_attempts_of_runs_side_by_side_are_kept_apart() -> None:
    """Two runs at once and the caller's own calls in the body are not mixed up."""
    api, _ = world("a", "b", "c")
    async with (
        api.stream_inventories(["a", "b", "c"]) as three,
        fan_out(api.get_inventory, ["a"]) as one,
    ):
        await api.get_inventory("b")
        async for _ in three:
            await api.get_inventory("c")
        async for _ in one:
            pass
    assert (three.progress.attempts, one.progress.attempts) == (3, 1)


@pytest.mark.anyio
async def test_what_was_never_sent_is_no_attempt() -> None:
    """An id that cannot be sent fails without an attempt."""
    api, transport = world("a")
    run = api.stream_inventories(["a", "", "..", "a/b"])
    outcomes = {outcome.key: outcome for outcome in await drain(run)}
    assert isinstance(outcomes["a"], Found)
    for key, error in {"": InvalidArgumentError, "..": InvalidArgumentError, "a/b": UserNotFound}.items():
        outcome = outcomes[key]
        assert isinstance(outcome, Failed)
        assert type(outcome.error) is error
        assert outcome.error.operation == "get_inventory"
    assert repr(run.progress) == repr(Progress(Counts(found=1, failed=3, in_flight=0, attempts=2)))
    assert len(transport.sent) == 2


@pytest.mark.anyio
async def test_an_answer_that_cannot_be_decoded_is_a_failure() -> None:
    """It fails when it is taken, with what the call was and how often it was tried."""
    transport = MemoryTransport(lambda request: Response(200, {}, b"{}"))
    api = PhygitalsClient(transport, api_key="sandbox-test")
    run = api.stream_inventories(["a"])
    (outcome,) = await drain(run)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, DecodeError)
    assert (outcome.error.operation, outcome.error.attempts, outcome.error.status) == ("get_inventory", 1, 200)
    assert repr(run.progress) == repr(Progress(Counts(found=0, failed=1, in_flight=0, attempts=1)))


# ---------------------------------------------------------------- batches


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 2, 64])
async def test_a_batch_keeps_the_order_of_the_keys(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Whatever completes first, the outcomes stand where their keys stood."""
    lookups = Lookups(steps=0)

    async def fetch(key: int) -> str:
        for _ in range((key * 7) % 5):
            await anyio.lowlevel.checkpoint()
        return await lookups(key)

    batch = await fan_out_all(fetch, keys_class(20), limit=limit)
    assert batch.outcomes == tuple(Found(key, f"value {key}") for key in range(20))
    assert lookups.most <= limit


@pytest.mark.anyio
async def test_a_repeated_key_is_looked_up_once_and_stands_at_each_place() -> None:
    """One lookup serves every place of a key, in every view of the batch."""
    error = UserNotFound(status=404)
    lookups = Lookups({2: error})
    batch = await fan_out_all(lookups, [2, 1, 2, 3, 1], limit=3)
    assert sorted(lookups.started) == [1, 2, 3]
    assert [outcome.key for outcome in batch] == [2, 1, 2, 3, 1]
    assert len(batch) == 5
    assert batch[2] is batch.outcomes[0] is batch.outcomes[2]
    assert batch[2] == Failed(2, error)
    assert batch[1] == Found(1, "value 1")
    assert batch.found == (Found(1, "value 1"), Found(3, "value 3"), Found(1, "value 1"))
    assert batch.failed == (Failed(2, error), Failed(2, error))
    with pytest.raises(KeyError):
        batch[7]


@pytest.mark.anyio
async def test_raise_failures_raises_each_error_once() -> None:
    """All failures are raised together, a repeated key's error once."""
    errors: dict[int, BaseException] = {1: UserNotFound(status=404), 2: ServerError(status=500)}
    batch = await fan_out_all(Lookups(errors), [1, 2, 1, 3])
    with pytest.raises(ExceptionGroup, match="2 of 3 lookups failed") as caught:
        batch.raise_failures()
    assert caught.value.exceptions == (errors[1], errors[2])


@pytest.mark.anyio
async def test_raise_failures_raises_nothing_without_failures() -> None:
    """A batch that was found whole, and an empty one, raise nothing."""
    for keys in ([1, 2], []):
        batch = await fan_out_all(Lookups(), keys)
        batch.raise_failures()
        assert batch.failed == ()
        assert len(batch.found) == len(batch) == len(keys)


@pytest.mark.anyio
async def test_get_inventories_returns_every_outcome_in_order() -> None:
    """The client's own bulk call: order, repeats, failures and one request for each id."""
    api, transport = world("a", "b")
    batch = await api.get_inventories(["b", "nobody", "a", "b"], limit=2)
    assert [outcome.key for outcome in batch] == ["b", "nobody", "a", "b"]
    first = batch["b"]
    assert isinstance(first, Found)
    assert first.value.user_id == "b"
    assert first.value.items[0].name == "card of b"
    missing = batch["nobody"]
    assert isinstance(missing, Failed)
    assert isinstance(missing.error, UserNotFound)
    assert len(transport.sent) == 3


@pytest.mark.anyio
async def test_get_inventories_takes_an_async_source() -> None:
    """Ids may come from an async iterable."""
    api, _ = world("a", "b")

    async def user_ids() -> AsyncIterator[str]:
        yield "b"
        yield "a"

    assert [outcome.key for outcome in await api.get_inventories(user_ids())] == ["b", "a"]


@pytest.mark.anyio
async def test_an_unhashable_key_is_refused_before_any_request() -> None:
    """A batch cannot find such a key again, so nothing is sent."""
    api, transport = world("a")
    lookups = Lookups()
    keys: list[Any] = ["a", ["b"]]
    with pytest.raises(InvalidArgumentError, match="every key must be hashable"):
        await api.get_inventories(keys)
    with pytest.raises(InvalidArgumentError, match="every key must be hashable"):
        await fan_out_all(lookups, keys)
    assert (transport.sent, lookups.started) == ([], [])


@pytest.mark.anyio
async def test_a_source_error_is_raised_before_any_request(keys_class: type[Keys | AsyncKeys]) -> None:
    """A batch reads all keys first, so a source that fails costs no request."""
    lookups = Lookups()
    api, transport = world("0")
    error = ZeroDivisionError("source")
    with pytest.raises(ZeroDivisionError) as caught:
        await fan_out_all(lookups, keys_class(3, error))
    assert caught.value is error
    with pytest.raises(ZeroDivisionError):
        await api.get_inventories(cast("Any", keys_class(3, error)))
    assert (lookups.started, transport.sent) == ([], [])


@pytest.mark.anyio
async def test_a_bug_surfaces_bare_from_a_batch() -> None:
    """What is no `PhygitalsError` is raised by the batch as it is."""
    bug = ZeroDivisionError()
    with no_task_left(), pytest.raises(ZeroDivisionError) as caught:
        await fan_out_all(Lookups({4: bug}), range(9), limit=3)
    assert caught.value is bug


def test_outcomes_take_part_in_match_and_compare_by_value() -> None:
    """Outcomes are plain values: matched by position, equal and hashable by what they hold."""
    error = PhygitalsError("no")
    found, failed = Found("a", 1), Failed("b", error)
    match found, failed:
        case Found(key, value), Failed(other, reason):
            assert (key, value, other, reason) == ("a", 1, "b", error)
        case _:
            pytest.fail("no match")
    assert Batch((found, failed)) == Batch((Found("a", 1), Failed("b", error)))
    assert hash(Batch((found, failed))) == hash(Batch((Found("a", 1), Failed("b", error))))
    assert "_by_key" not in repr(Batch((found,)))


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
                    job.left = True
                except BaseException as error:
                    raised = error
                    raise
            assert job.open == 0
        if not turns.cancelled:
            assert job.left
            assert n > 4
            return
        if body is Job.leave_early and job.left:
            # The cancellation came after the first outcome was there: nothing was left to be cancelled.
            continue
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


@pytest.mark.asyncio
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


@pytest.mark.asyncio
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

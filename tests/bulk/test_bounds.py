"""No more lookups, keys and outcomes at once than there is room for, and as few as there are keys."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bulk_support import AsyncKeys, Keys, Lookups, counts, drain, world
from phygitals_async import (
    ConnectionLost,
    Failed,
    FanOut,
    Found,
    Progress,
    ServerError,
    UserNotFound,
    fan_out,
    fan_out_all,
)
from phygitals_async._calls.lookups import Counts
from phygitals_async._loop.wait_queue import WaitQueue
from virtual import run_virtually, settle


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


async def others_run_beside(outcomes: FanOut[int, str]) -> None:
    """Ask for an outcome that never comes, and see that other tasks have their turns meanwhile."""
    async with anyio.create_task_group() as group:
        group.start_soon(anext, outcomes)
        await settle()
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_skipping_many_repeated_keys_lets_others_run() -> None:
    """An endless iterable that has nothing new does not block the event loop."""
    async with fan_out(Lookups(), itertools.cycle([1, 2]), limit=2, distinct=True) as outcomes:
        assert {(await anext(outcomes)).key, (await anext(outcomes)).key} == {1, 2}
        await others_run_beside(outcomes)


@pytest.mark.anyio
async def test_skipping_many_repeated_keys_of_an_async_source_lets_others_run() -> None:
    """It has them all at hand, and is asked for more without end."""

    async def same() -> AsyncIterator[int]:
        for number in itertools.cycle([1]):
            yield number

    async with fan_out(Lookups(), same(), limit=2, distinct=True) as outcomes:
        assert (await anext(outcomes)).key == 1
        await others_run_beside(outcomes)


@pytest.mark.anyio
async def test_skipping_repeated_keys_takes_few_turns_of_the_loop() -> None:
    """Ten thousand repeated keys are not ten thousand turns: others run now and then, and not after each."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async def same() -> AsyncIterator[int]:
        for _ in range(10_000):
            yield 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await drain(fan_out(Lookups(), same(), distinct=True))
        await drain(fan_out(Lookups(), [1] * 10_000, distinct=True))
        group.cancel_scope.cancel()
    assert 30 < turns < 60


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
    run._workers.queues._room = Counting()
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
@pytest.mark.parametrize("limit", [2, 3, 5])
async def test_room_that_one_has_no_use_for_goes_to_another(limit: int) -> None:
    """Some fail and are looked up again: workers and the reading of the source wait for the same room meanwhile.

    However slowly outcomes are taken, there are as many lookups as there is room for.
    """
    failed: set[int] = set()
    lookups = Lookups()

    async def fetch(key: int) -> str:
        if limit <= key < limit + 3 and key not in failed:
            failed.add(key)
            raise ServerError(status=502)
        return await lookups(key)

    async with fan_out(fetch, AsyncKeys(), limit=limit) as outcomes:
        for taken in range(8 * limit):
            await settle()
            assert len(lookups.finished) >= taken + 2 * limit
            await anext(outcomes)
    assert failed


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("limit", "first", "steps"),
    [(2, 1, [0, 2, 3, 2, 3, 4, 1, 4]), (3, 2, [0, 4, 4, 1, 3, 1, 3, 1]), (4, 3, [1, 1, 3, 0, 1, 0, 4, 0, 1, 1, 4, 2])],
)
async def test_keys_are_read_no_further_than_lookups_can_start_also_beside_those_made_again(
    limit: int, first: int, steps: list[int]
) -> None:
    """One key may be on its way when its worker takes one of these; no other is read while all are busy."""
    keys = AsyncKeys()
    failed: set[int] = set()
    looked_up: set[int] = set()

    async def fetch(key: int) -> int:
        looked_up.add(key)
        for _ in range(steps[key % len(steps)]):
            await anyio.lowlevel.checkpoint()
        if first <= key < first + 4:
            if key in failed:
                await anyio.sleep_forever()
            failed.add(key)
            raise ServerError(status=502)
        return key

    async with anyio.create_task_group() as group:
        group.start_soon(drain, fan_out(fetch, keys, limit=limit))
        await settle()
        await settle()
        assert len(failed) == 4
        assert keys.read - len(looked_up) <= 1
        group.cancel_scope.cancel()


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


def test_workers_that_have_keys_to_look_up_again_wait_for_room_in_peace() -> None:
    """Where the consumer is slow they do not wake one another without end."""
    woken = 0

    class Counting(WaitQueue):
        async def wait(self) -> None:
            nonlocal woken
            await super().wait()
            woken += 1
            assert woken < 5_000

    async def main() -> None:
        refused = {number for number in range(150) if random.random() < 0.3}

        async def fetch(key: int) -> int:
            await anyio.sleep(random.choice([0, 0.01, 0.05]))
            if key in refused:
                msg = "lost"
                raise ConnectionLost(msg)
            return key

        async def keys() -> AsyncIterator[int]:
            for number in range(150):
                yield number

        run: FanOut[int, int] = fan_out(fetch, keys(), limit=64, patience=20)
        run._workers.queues._room = Counting()
        async with run as outcomes:
            taken = 0
            async for _ in outcomes:
                taken += 1
                if taken % 10 == 5:
                    await anyio.sleep(0.3)
        assert taken == 150

    for seed in range(8):
        woken = 0
        run_virtually(main, seed=seed)

"""Who reads a bulk run, from wherever, and who is told of its end."""

from __future__ import annotations

import asyncio
import itertools

import anyio
import anyio.lowlevel
import pytest

from bulk_support import AsyncKeys, Keys, Lookups, counts
from phygitals_async import (
    FanOut,
    fan_out,
)
from support import ON_VIRTUAL_ASYNCIO
from virtual import settle


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


@ON_VIRTUAL_ASYNCIO
@pytest.mark.anyio
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

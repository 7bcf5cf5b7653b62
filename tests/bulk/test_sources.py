"""A source of keys that fails, stalls or ends oddly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from bulk_support import AsyncKeys, Keys, Lookups, drain
from phygitals_async import (
    InvalidArgumentError,
    ServerError,
    UserNotFound,
    fan_out,
)
from virtual import VirtualLoop, no_task_left, run_virtually, settle

SOURCE_ERRORS = [ZeroDivisionError("source"), UserNotFound(status=404), ExceptionGroup("source", [OSError()])]


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


@pytest.mark.parametrize("fails", [False, True])
def test_nobody_looks_again_and_again_whether_a_stalled_source_goes_on(fails: bool) -> None:
    """For as long as an hour, nor while a lookup that was made before takes so long."""
    stalled = anyio.Event()

    async def keys() -> AsyncIterator[int]:
        for key in range(3):
            yield key
        stalled.set()
        await anyio.sleep(3600)

    async def fetch(key: int) -> int:
        if fails and key == 0:
            raise ServerError(status=502)
        if fails and key > 0:
            await anyio.sleep(3600)
        return key

    async def main() -> None:
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        async with anyio.create_task_group() as group:
            group.start_soon(drain, fan_out(fetch, keys(), limit=3))
            await stalled.wait()
            await settle()
            before = loop.timers
            await anyio.sleep(3000)
            assert loop.timers - before <= 2
            group.cancel_scope.cancel()

    run_virtually(main)

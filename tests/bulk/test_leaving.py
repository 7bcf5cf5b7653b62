"""A run that is left early cancels what runs, reads no further, and waits for its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from bulk_support import AsyncKeys, Keys, Lookups, counts, drain
from phygitals_async import (
    Found,
    fan_out,
    fan_out_all,
)
from virtual import no_task_left, settle


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
    assert keys.read == 0
    assert lookups.started == []


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

"""Whatever is no error of this library comes out, bare and to everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bulk_support import Keys, Lookups, drain, world
from phygitals_async import (
    Failed,
    FanOut,
    Inventory,
    Outcome,
    UserNotFound,
    fan_out,
    fan_out_all,
)
from virtual import no_task_left, settle


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

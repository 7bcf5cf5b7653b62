"""What a run counts."""

from __future__ import annotations

import pytest

from bulk_support import Lookups, counts, drain, world
from phygitals_async import (
    DecodeError,
    Failed,
    Found,
    InvalidArgumentError,
    PhygitalsClient,
    Progress,
    Response,
    UserNotFound,
    fan_out,
)
from phygitals_async._calls.lookups import Counts
from phygitals_transports import MemoryTransport
from virtual import settle


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

"""What may go wrong in a bulk run: some or all lookups, the source of keys, the consumer, and cancellation anywhere."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define

from faults.cells import CALLS, GOOD_BODIES, GOOD_RESULTS, footprint, left_over
from phygitals_async import (
    AuthenticationError,
    Batch,
    ConnectionLost,
    DeadlineExceeded,
    Failed,
    Found,
    InvalidArgumentError,
    Inventory,
    NotAttempted,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    RetryPolicy,
    ServerError,
    UserNotFound,
    fan_out,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async.conformance.peers import Peer, Received
from phygitals_async.conformance.server import GOOD, FaultServer, Script, fault_server, http
from phygitals_transports import AiohttpTransport, MemoryTransport
from virtual import virtual_backend

anyio_backend = virtual_backend

_KEY = "sandbox-batch"
_ONCE = RetryPolicy(retries=0)
_REFUSED_KEY = Response(401, {}, b'{"error": "Invalid API key"}')
_UNKNOWN_USER = Response(404, {}, b'{"error": "User not found"}')


def _user(request: Request) -> str:
    return request.url.rpartition("/")[2]


def _empty(request: Request) -> Response:
    return Response(200, {}, json.dumps({"user_id": _user(request), "items": []}).encode())


class Api:
    """A handler that fails for some users, can be made to wait, and counts the lookups in flight."""

    def __init__(self, failures: dict[str, Response | Exception] | None = None, *, rounds: int = 0) -> None:
        self.failures = failures or {}
        self.rounds = rounds
        self.asked: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.answered = 0
        self.transport = MemoryTransport(self._answer)
        self.client = PhygitalsClient(self.transport, api_key=_KEY, base_url="http://127.0.0.1:9", retry=_ONCE)

    async def _answer(self, request: Request) -> Response:
        user = _user(request)
        self.asked[user] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for _ in range(self.rounds):
                await anyio.lowlevel.checkpoint()
        finally:
            self.in_flight -= 1
        failure = self.failures.get(user)
        if isinstance(failure, Exception):
            raise failure
        self.answered += 1
        return failure or _empty(request)


def _ids(count: int) -> list[str]:
    return [f"u{number}" for number in range(count)]


async def _settle() -> None:
    """Let every task run until all of them wait for something else."""
    for _ in range(200):
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize("failing", [0, 7, 19])
@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (_UNKNOWN_USER, UserNotFound),
        (Response(500, {}, b"<html>"), ServerError),
        (Response(200, {}, b"[]"), PhygitalsError),
        (ConnectionLost("it broke"), ConnectionLost),
    ],
)
async def test_one_of_many_fails_alone(
    failing: int, failure: Response | Exception, expected: type[PhygitalsError]
) -> None:
    """One bad lookup is one `Failed` in its place, and costs the others nothing."""
    api = Api({f"u{failing}": failure})
    batch = await api.client.get_inventories(_ids(20), limit=4)
    assert [outcome.key for outcome in batch] == _ids(20)
    assert [outcome.key for outcome in batch.failed] == [f"u{failing}"]
    assert isinstance(batch.failed[0].error, expected)


@pytest.mark.anyio
async def test_all_fail() -> None:
    """When every lookup fails, every key has its own `Failed`, and the group of them is raised on demand."""
    api = Api(dict.fromkeys(_ids(20), _UNKNOWN_USER))
    batch = await api.client.get_inventories(_ids(20), limit=4)
    assert [outcome.key for outcome in batch.failed] == _ids(20)
    with pytest.raises(ExceptionGroup) as caught:
        batch.raise_failures()
    assert len(caught.value.exceptions) == 20


@pytest.mark.anyio
@pytest.mark.parametrize("at", [0, 5, 19])
async def test_a_refused_key_midway_ends_the_asking_but_loses_no_outcome(at: int) -> None:
    """After a 401 no further request is made; every key still comes out, found, refused or not attempted."""
    api = Api({f"u{at}": _REFUSED_KEY})
    batch = await api.client.get_inventories(_ids(40), limit=4)
    assert [outcome.key for outcome in batch] == _ids(40)
    refused = [outcome for outcome in batch.failed if isinstance(outcome.error, AuthenticationError)]
    assert [outcome.key for outcome in refused] == [f"u{at}"]
    spared = [outcome for outcome in batch.failed if isinstance(outcome.error, NotAttempted)]
    assert all(outcome.error.__cause__ is refused[0].error for outcome in spared)
    assert {outcome.key for outcome in spared} == set(_ids(40)) - set(api.asked)
    # Only those that were in flight when the refusal came were asked after it.
    assert len(api.asked) <= at + 1 + 2 * 4


@pytest.mark.anyio
@pytest.mark.parametrize("rounds", [2, 5])
async def test_cancelled_after_any_number_of_steps(rounds: int) -> None:
    """Wherever a run is cancelled, it ends, nothing of it goes on, nothing comes of it, and the next is complete."""
    for steps in range(400):
        api = Api(rounds=rounds)
        finished: list[Batch[str, Inventory]] = []

        async def run(api: Api, finished: list[Batch[str, Inventory]]) -> None:
            finished.append(await api.client.get_inventories(_ids(6), limit=3))

        was_over = False
        async with anyio.create_task_group() as group:
            group.start_soon(run, api, finished)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            was_over = bool(finished)
            group.cancel_scope.cancel()
        assert api.in_flight == 0
        asked = api.asked.total()
        await _settle()
        assert api.asked.total() == asked, f"requests went on after being cancelled at step {steps}"
        # A run that was only about to return is complete.
        assert all(len(batch.found) == 6 for batch in finished), f"a part was returned after step {steps}"
        if was_over:
            return
        again = await api.client.get_inventories(_ids(6), limit=3)
        assert len(again.found) == 6, f"a run after one cancelled at step {steps}"
    pytest.fail("no run came to its end")


async def _cancel_after(steps: int, task: asyncio.Task[Any]) -> bool:
    """Cancel a task after some turns of the loop, and say whether it was over before. Nothing but that may end it."""
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.done():
        return True
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), f"{task} swallowed the cancellation after {steps} turns"
    return False


async def _cancel_at_every_turn(operation: str, *, warm: bool) -> None:
    """Cancel one call over sockets after each possible number of turns of the loop."""
    async with fault_server(GOOD_BODIES[operation]) as server:
        for steps in range(400):
            async with PhygitalsClient(AiohttpTransport(), api_key=_KEY, base_url=server.url, retry=_ONCE) as api:
                if warm:
                    assert await CALLS[operation](api, None) == GOOD_RESULTS[operation]
                await server.turn(GOOD)
                task = asyncio.ensure_future(CALLS[operation](api, None))
                was_over = await _cancel_after(steps, task)
                assert len(server.performed) <= 1
                assert api._engine.admission.in_flight == 0
                assert await CALLS[operation](api, None) == GOOD_RESULTS[operation], steps
                if was_over:
                    assert await task == GOOD_RESULTS[operation]
                    return
    pytest.fail("no call came to its end")


@pytest.mark.asyncio
@pytest.mark.parametrize("warm", [False, True])
async def test_each_call_cancelled_after_any_number_of_turns(warm: bool) -> None:
    """Wherever a call is cancelled, it ends as cancelled, and the client stays good."""
    before = footprint()
    async with asyncio.TaskGroup() as group:
        for operation in OPERATIONS:
            group.create_task(_cancel_at_every_turn(operation.name, warm=warm))
    assert not await left_over(before)


@pytest.mark.anyio
async def test_a_consumer_slower_than_the_producer() -> None:
    """No more than `limit` lookups are in flight, and no more than twice as many outcomes wait for a slow consumer."""
    api, read, taken, limit = Api(), 0, 0, 4

    def source() -> Iterator[str]:
        nonlocal read
        for key in _ids(60):
            read += 1
            yield key

    waiting = 0
    async with api.client.stream_inventories(source(), limit=limit) as outcomes:
        async for outcome in outcomes:
            assert isinstance(outcome, Found)
            taken += 1
            await _settle()
            assert read - taken <= 2 * limit
            waiting = max(waiting, api.answered - taken)
    assert taken == 60
    assert api.most_in_flight <= limit
    assert waiting <= 2 * limit


@pytest.mark.anyio
@pytest.mark.parametrize("after", [0, 1, 5, 11])
async def test_break_ends_the_run(after: int) -> None:
    """Leaving the loop and the block cancels what is in flight, reads no further key, and spoils nothing."""
    api, read = Api(rounds=3), 0

    def source() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"u{read}"

    async with api.client.stream_inventories(source(), limit=4) as outcomes:
        taken = 0
        async for _ in outcomes:
            if taken == after:
                break
            taken += 1
    assert api.in_flight == 0
    seen = read
    await _settle()
    assert read == seen
    assert (await api.client.get_inventory("u1")).user_id == "u1"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "failure", [KeyError("mine"), ServerError("mine"), TimeoutError("mine"), ExceptionGroup("", [ValueError()])]
)
async def test_an_exception_in_the_body_comes_out_unchanged(failure: Exception) -> None:
    """What the consumer raises is what the caller gets, and nothing of the run goes on."""
    api = Api(rounds=3)

    async def consume() -> None:
        async with api.client.stream_inventories(_ids(50), limit=4) as outcomes:
            async for _ in outcomes:
                raise failure

    with pytest.raises(type(failure)) as caught:
        await consume()
    assert caught.value is failure
    assert api.in_flight == 0


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [KeyError("mine"), ConnectionLost("mine")])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_source_that_raises(failure: Exception, is_async: bool) -> None:
    """What the source of keys raises comes out after every outcome of the keys before it."""
    api = Api(rounds=2)

    def source() -> Iterator[str]:
        yield from _ids(5)
        raise failure

    async def async_source() -> AsyncIterator[str]:
        for key in source():
            yield key

    taken: set[str] = set()

    async def consume() -> None:
        async with api.client.stream_inventories(async_source() if is_async else source(), limit=3) as outcomes:
            async for outcome in outcomes:
                taken.add(outcome.key)

    with pytest.raises(type(failure)) as caught:
        await consume()
    assert caught.value is failure
    assert sorted(taken) == _ids(5)


@pytest.mark.anyio
async def test_a_source_that_stalls_delays_no_outcome_and_can_be_left() -> None:
    """While the next key is awaited, the outcomes of the keys before it come out; a timeout ends the wait."""
    api = Api()

    async def source() -> AsyncGenerator[str, None]:
        for key in _ids(3):
            yield key
        await anyio.sleep_forever()

    taken: set[str] = set()
    keys = source()
    with anyio.move_on_after(0.2) as scope:
        async with api.client.stream_inventories(keys, limit=8) as outcomes:
            async for outcome in outcomes:
                taken.add(outcome.key)
    assert scope.cancelled_caught
    assert sorted(taken) == _ids(3)
    await keys.aclose()


@pytest.mark.anyio
async def test_a_lookup_that_stalls_holds_up_no_other() -> None:
    """A lookup without an answer becomes a `Failed` at its deadline; the others do not wait for it."""

    async def handler(request: Request) -> Response:
        if _user(request) == "u0":
            await anyio.sleep_forever()
        return _empty(request)

    client = PhygitalsClient(MemoryTransport(handler), api_key=_KEY, base_url="http://127.0.0.1:9", retry=_ONCE)
    keys = []
    async with client.stream_inventories(_ids(30), limit=2, deadline=0.3) as outcomes:
        async for outcome in outcomes:
            keys.append(outcome.key)
            if isinstance(outcome, Failed):
                assert isinstance(outcome.error, DeadlineExceeded)
    assert keys[-1] == "u0"
    assert len(keys) == 30


@pytest.mark.anyio
async def test_duplicates() -> None:
    """A batch asks once for a repeated key and answers at each place; a stream asks as often as it is told."""
    api = Api({"u1": _UNKNOWN_USER})
    batch = await api.client.get_inventories(["u0", "u1", "u0", "u1", "u0"], limit=2)
    assert [outcome.key for outcome in batch] == ["u0", "u1", "u0", "u1", "u0"]
    assert api.asked == {"u0": 1, "u1": 1}
    async with api.client.stream_inventories(["u0"] * 5, limit=2) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 5
    assert api.asked["u0"] == 6
    async with api.client.stream_inventories(["u0"] * 5, limit=2, distinct=True) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 1


@pytest.mark.anyio
async def test_no_ids() -> None:
    """Nothing asked for is nothing done."""
    api = Api()
    batch = await api.client.get_inventories([])
    assert len(batch) == 0
    batch.raise_failures()
    async with api.client.stream_inventories(iter(())) as outcomes:
        assert [outcome async for outcome in outcomes] == []
    assert not api.asked


@pytest.mark.anyio
@pytest.mark.parametrize("bad", [None, 5, "", ".", "..", "\ud800", b"u", ["u"]])
async def test_an_id_that_is_none_fails_alone(bad: object) -> None:
    """A key that cannot be sent is a `Failed` of its own, and nothing is sent for it."""
    api = Api()
    keys: list[object] = ["u0", bad, "u1"]
    async with api.client.stream_inventories(keys, limit=2) as outcomes:  # type: ignore[arg-type]
        results = [outcome async for outcome in outcomes]
    assert sorted(outcome.key for outcome in results if isinstance(outcome, Found)) == ["u0", "u1"]
    (failed,) = [outcome for outcome in results if isinstance(outcome, Failed)]
    assert failed.key == bad
    assert isinstance(failed.error, InvalidArgumentError)
    assert set(api.asked) == {"u0", "u1"}


@define
class Census:
    """How many values are alive, and were at most."""

    alive: int = 0
    most: int = 0


class Counted:
    """A value that is counted as long as it lives."""

    __slots__ = ("census", "number")

    def __init__(self, census: Census, number: int) -> None:
        self.census, self.number = census, number
        census.alive += 1
        census.most = max(census.most, census.alive)

    def __del__(self) -> None:
        self.census.alive -= 1


@pytest.mark.asyncio
async def test_a_million() -> None:
    """A million ids give as many outcomes, none lost, none twice, and at most twice `limit` of them wait at once."""
    count, limit, census = 1_000_000, 64, Census()
    seen, failed = bytearray(count), 0

    async def fetch(number: int) -> Counted:
        if number % 1000 == 77:
            raise UserNotFound
        return Counted(census, number)

    async with fan_out(fetch, range(count), limit=limit) as outcomes:
        async for outcome in outcomes:
            seen[outcome.key] += 1
            if isinstance(outcome, Failed):
                failed += 1
            else:
                assert outcome.value.number == outcome.key
        assert outcomes.progress.done == count
        assert outcomes.progress.in_flight == 0
    assert seen == bytearray(b"\x01") * count
    assert failed == count // 1000
    # Besides those that wait, the consumer holds one.
    assert census.most <= 2 * limit + 1


@pytest.mark.anyio
async def test_closing_while_calls_wait_to_repeat() -> None:
    """A call that is closed between two attempts says that its request was sent, for it was."""
    transport = MemoryTransport(lambda _: Response(503, {"retry-after": "0.2"}, b""))
    client = PhygitalsClient(transport, api_key=_KEY, base_url="http://127.0.0.1:9")
    errors: list[PhygitalsError] = []

    async def call() -> None:
        try:
            await client.get_inventory("u")
        except PhygitalsError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await _settle()
        assert len(transport.sent) == 1
        await client.aclose()
    assert len(transport.sent) == 1
    assert errors[0].attempts == 1
    assert errors[0].sent.name == "YES"


@pytest.mark.anyio
async def test_closing_twice_at_once() -> None:
    """Two tasks that close the client together both return as soon as the last call is over, not at the grace's end."""
    release = anyio.Event()

    async def handler(request: Request) -> Response:
        await release.wait()
        return _empty(request)

    client = PhygitalsClient(MemoryTransport(handler), api_key=_KEY, base_url="http://127.0.0.1:9")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(client.get_inventory, "u")
            await _settle()
            for _ in range(2):
                group.start_soon(lambda: client.aclose(grace=3600))
            await _settle()
            release.set()


async def _fail_every_third(peer: Peer, request: Received) -> None:
    """Answer two of three requests; reset, refuse or hang up on the others, in turn."""
    number = int(request.target.rpartition("/u")[2])
    good = json.dumps({"user_id": f"u{number}", "items": []}).encode()
    match number % 9:
        case 2:
            await peer.reset()
        case 5:
            await peer.send(http(b"<html>", status="502 Bad"))
        case 8:
            await peer.close()
        case _:
            await peer.send(http(good))


async def _run_over(server: FaultServer, count: int, limit: int) -> Batch[str, Inventory]:
    async with PhygitalsClient(AiohttpTransport(), api_key=_KEY, base_url=server.url, retry=_ONCE) as api:
        return await api.get_inventories(_ids(count), limit=limit)


@pytest.mark.asyncio
async def test_faults_among_many_over_sockets() -> None:
    """Connections that break under a third of the lookups spoil no other lookup, and leave nothing behind."""
    before = footprint()
    async with fault_server(b"") as server:
        await server.turn(Script(on_request=_fail_every_third))
        batch = await _run_over(server, 270, 32)
    for number, outcome in enumerate(batch):
        assert isinstance(outcome, Failed if number % 3 == 2 else Found), (number, outcome)
        if isinstance(outcome, Found):
            assert outcome.value.user_id == f"u{number}"
    assert not await left_over(before)


@pytest.mark.asyncio
async def test_a_run_over_sockets_cancelled_after_any_number_of_turns() -> None:
    """Wherever a run over real connections is cancelled, it ends as cancelled, without a task or a socket left."""
    before = footprint()
    async with fault_server(b"") as server:
        await server.turn(Script(on_request=_fail_every_third))
        for turns in range(1000):
            task = asyncio.ensure_future(_run_over(server, 12, 4))
            if await _cancel_after(turns, task):
                assert [outcome.key for outcome in await task] == _ids(12)
                break
        else:
            pytest.fail("no run came to its end")
    assert not await left_over(before)

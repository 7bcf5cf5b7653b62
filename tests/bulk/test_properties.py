"""Bulk runs under any mix of lookups: counts add up, no key is lost, nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from attrs import frozen
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from phygitals_async import (
    AuthenticationError,
    Failed,
    FanOut,
    Found,
    NotAttempted,
    Outcome,
    UserNotFound,
    fan_out,
    fan_out_all,
)

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
EXAMPLES = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Bug(Exception):
    """What a lookup raises that is no error of the library."""


@frozen
class Plan:
    """What becomes of one lookup, and after how many awaits."""

    ending: str
    steps: int
    slow_clean_up: bool = False


def plans(*endings: str) -> st.SearchStrategy[Plan]:
    """Return lookups that end in one of these ways."""
    return st.builds(Plan, st.sampled_from(endings), st.integers(0, 6), st.booleans())


class World:
    """Carries plans out, keeping count.

    A lookup planned as `cancel` cancels the scope around the whole run, which reaches the consumer and no lookup.
    """

    def __init__(self, planned: list[Plan]) -> None:
        self.planned = planned
        self.started: Counter[int] = Counter()
        self.open = 0
        self.most = 0
        self.taken = 0
        self.read = 0
        self.bugs = 0
        self.scope: anyio.CancelScope | None = None

    async def fetch(self, key: int) -> int:
        """Look `key` up as planned."""
        plan = self.planned[key]
        self.started[key] += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            for _ in range(plan.steps):
                await anyio.lowlevel.checkpoint()
            match plan.ending:
                case "fail":
                    raise UserNotFound(status=404, message=str(key))
                case "refuse":
                    raise AuthenticationError(status=401)
                case "bug":
                    self.bugs += 1
                    raise Bug(key)
                case "cancel":
                    assert self.scope is not None
                    self.scope.cancel()
                    await anyio.lowlevel.checkpoint()
            return key * 10
        finally:
            if plan.slow_clean_up:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
            self.open -= 1

    async def keys_async(self, keys: list[int], pauses: int) -> AsyncGenerator[int, None]:
        """Give `keys`, with awaits before each."""
        for key in keys:
            for _ in range(pauses):
                await anyio.lowlevel.checkpoint()
            self.read += 1
            yield key

    def check(self, outcome: Outcome[int, int], run: FanOut[int, int]) -> None:
        """Check one outcome against its plan, and the counts at this moment."""
        self.taken += 1
        plan = self.planned[outcome.key]
        match outcome:
            case Found(key, value):
                assert plan.ending in ("find", "cancel")
                assert value == key * 10
            case Failed(key, UserNotFound(message=message)):
                assert plan.ending == "fail"
                assert message == str(key)
            case Failed(_, AuthenticationError()):
                assert plan.ending == "refuse"
            case Failed(_, NotAttempted() as error):
                assert isinstance(error.__cause__, AuthenticationError)
            case _:
                pytest.fail(f"unexpected {outcome}")
        assert run.progress.done == self.taken
        assert run.progress.in_flight == self.open


def lone_bugs(error: BaseException) -> int:
    """Return how many bugs an error consists of, and check that it consists of nothing else."""
    if isinstance(error, ExceptionGroup):
        assert len(error.exceptions) > 1
        return sum(lone_bugs(inner) for inner in error.exceptions)
    assert isinstance(error, Bug)
    return 1


@BACKENDS
@EXAMPLES
@given(
    planned=st.lists(plans("find", "find", "fail", "fail", "refuse", "bug", "cancel"), max_size=14),
    limit=st.integers(1, 9),
    source=st.sampled_from(["plain", "async", "slow"]),
    consumer_pauses=st.lists(st.integers(0, 4), max_size=5),
    leave_after=st.none() | st.integers(0, 10),
)
def test_any_stream(
    backend: str,
    planned: list[Plan],
    limit: int,
    source: str,
    consumer_pauses: list[int],
    leave_after: int | None,
) -> None:
    """However lookups end and whenever the consumer leaves: no key twice, counts right, no task left."""
    world = World(planned)
    keys = list(range(len(planned)))
    seen: list[int] = []

    async def consume(run: FanOut[int, int]) -> bool:
        """Return whether the run was iterated to its end."""
        async for outcome in run:
            world.check(outcome, run)
            seen.append(outcome.key)
            if leave_after is not None and len(seen) > leave_after:
                return False
            for _ in range(consumer_pauses[len(seen) % len(consumer_pauses)] if consumer_pauses else 0):
                await anyio.lowlevel.checkpoint()
        return True

    async def main() -> None:
        scope = world.scope = anyio.CancelScope()
        before = {task.id for task in anyio.get_running_tasks()}
        agen = world.keys_async(keys, 3 if source == "slow" else 0)
        run = fan_out(world.fetch, iter(keys) if source == "plain" else agen, limit=limit)
        complete: bool | None = None
        raised: BaseException | None = None
        with scope:
            try:
                async with run:
                    complete = await consume(run)
            except (Bug, ExceptionGroup) as error:
                raised = error
        with anyio.CancelScope(shield=True):
            await agen.aclose()
        note(f"complete={complete} raised={raised!r} seen={seen}")
        assert world.open == 0
        assert run.progress.in_flight == 0
        assert {task.id for task in anyio.get_running_tasks()} == before
        assert world.most <= limit
        assert len(seen) == len(set(seen)) == run.progress.done
        assert max(world.started.values(), default=1) == 1
        # Whoever got to the end got everything: neither a bug nor a cancellation looks like the end. A consumer that
        # finds all that is left ready, and so never waits again, is at the end before a cancellation reaches it.
        if complete:
            assert sorted(seen) == keys
            assert world.bugs == 0
            assert raised is None
        if raised is not None:
            assert 1 <= lone_bugs(raised) <= world.bugs
        if world.bugs:
            assert raised is not None

    anyio.run(main, backend=backend)


@BACKENDS
@EXAMPLES
@given(
    planned=st.lists(plans("find", "fail", "refuse"), min_size=1, max_size=8),
    places=st.lists(st.integers(0, 7), max_size=20),
    limit=st.integers(1, 9),
    asynchronous=st.booleans(),
)
def test_any_batch(backend: str, planned: list[Plan], places: list[int], limit: int, asynchronous: bool) -> None:
    """A batch has an outcome for each place, in order, of exactly one lookup for each key."""
    world = World(planned)
    keys = [place % len(planned) for place in places]

    async def main() -> None:
        before = {task.id for task in anyio.get_running_tasks()}
        source = world.keys_async(keys, 1) if asynchronous else keys
        batch = await fan_out_all(world.fetch, source, limit=limit)
        assert {task.id for task in anyio.get_running_tasks()} == before
        assert [outcome.key for outcome in batch] == keys
        assert len(batch.found) + len(batch.failed) == len(batch) == len(keys)
        assert all(batch[outcome.key] is outcome for outcome in batch)
        attempted = {o.key for o in batch if not (isinstance(o, Failed) and isinstance(o.error, NotAttempted))}
        assert world.started == Counter(attempted)
        if "refuse" not in {planned[key].ending for key in keys}:
            assert attempted == set(keys)
        errors = {id(outcome.error) for outcome in batch.failed}
        if errors:
            with pytest.raises(ExceptionGroup) as caught:
                batch.raise_failures()
            assert len(caught.value.exceptions) == len(errors)
            assert {id(error) for error in caught.value.exceptions} == errors
        else:
            batch.raise_failures()
        assert world.open == 0
        assert world.most <= limit

    anyio.run(main, backend=backend)


@BACKENDS
@EXAMPLES
@given(
    planned=st.lists(plans("find", "fail"), max_size=12),
    limit=st.integers(1, 6),
    consumers=st.integers(1, 5),
    distinct=st.booleans(),
)
def test_any_number_of_consumers(backend: str, planned: list[Plan], limit: int, consumers: int, distinct: bool) -> None:
    """Several consumers get each outcome once between them, a repeated key's as often as it was to be looked up."""
    world = World(planned)
    keys = [*range(len(planned)), *range(0, len(planned), 2)]
    seen: Counter[int] = Counter()

    async def consume(run: FanOut[int, int]) -> None:
        async for outcome in run:
            seen[outcome.key] += 1
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        bulk = fan_out(world.fetch, keys, limit=limit, distinct=distinct)
        async with bulk as run, anyio.create_task_group() as group:
            for _ in range(consumers):
                group.start_soon(consume, run)
        assert run.progress.done == seen.total()

    anyio.run(main, backend=backend)
    assert seen == world.started == (Counter(range(len(planned))) if distinct else Counter(keys))


@EXAMPLES
@given(
    planned=st.lists(plans("find", "fail", "refuse"), min_size=1, max_size=8),
    limit=st.integers(1, 5),
    turns=st.integers(0, 40),
    slow_consumer=st.booleans(),
    run_all=st.booleans(),
)
def test_task_cancel_at_any_turn(
    planned: list[Plan], limit: int, turns: int, slow_consumer: bool, run_all: bool
) -> None:
    """`task.cancel()` at any turn of the loop ends the task as cancelled, with no lookup open."""
    world = World(planned)

    async def stream() -> None:
        async with fan_out(world.fetch, range(len(planned)), limit=limit) as run:
            async for outcome in run:
                world.check(outcome, run)
                if slow_consumer:
                    await asyncio.sleep(0)

    async def batch() -> None:
        await fan_out_all(world.fetch, range(len(planned)), limit=limit)

    async def main() -> None:
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(batch() if run_all else stream())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
        else:
            await task
        assert world.open == 0
        assert asyncio.all_tasks() == before

    asyncio.run(main())


class RunByHand(RuleBasedStateMachine):
    """A run that is driven step by step: keys are offered, lookups let go and outcomes taken in any order."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.gates: dict[int, asyncio.Future[None]] = {}
        self.offered = 0
        self.started: list[int] = []
        self.released = 0
        self.taken: list[int] = []
        self.waiting: list[asyncio.Task[Outcome[int, int]]] = []
        self.ended = False
        self.offers: asyncio.Queue[int | None] = asyncio.Queue()
        self.run = fan_out(self._fetch, self._keys(), limit=self.LIMIT)
        self.leave: asyncio.Event = asyncio.Event()
        self.host = self.runner.get_loop().create_task(self._host())
        self._settle()

    async def _keys(self) -> AsyncIterator[int]:
        while (key := await self.offers.get()) is not None:
            yield key

    async def _fetch(self, key: int) -> int:
        self.started.append(key)
        self.gates[key] = asyncio.get_running_loop().create_future()
        try:
            await self.gates[key]
        finally:
            del self.gates[key]
        return key * 10

    async def _host(self) -> None:
        async with self.run:
            await self.leave.wait()

    def _settle(self) -> None:
        async def turns() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.runner.run(turns())
        done = [task for task in self.waiting if task.done()]
        self.waiting = [task for task in self.waiting if not task.done()]
        for task in done:
            self._took(task)

    def _took(self, task: asyncio.Task[Outcome[int, int]]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            assert isinstance(error, StopAsyncIteration | RuntimeError)
            assert self.ended
            assert len(self.taken) == self.offered
            return
        self.taken.append(task.result().key)

    @precondition(lambda self: not self.ended)
    @rule(count=st.integers(1, 5))
    def offer(self, count: int) -> None:
        """Give the source more keys."""
        for _ in range(count):
            self.offers.put_nowait(self.offered)
            self.offered += 1
        self._settle()

    @precondition(lambda self: not self.ended)
    @rule()
    def end(self) -> None:
        """End the source."""
        self.ended = True
        self.offers.put_nowait(None)
        self._settle()

    @precondition(lambda self: self.gates)
    @rule(data=st.data(), fails=st.booleans())
    def let_go(self, data: st.DataObject, fails: bool) -> None:
        """Let one running lookup end."""
        gate = self.gates[data.draw(st.sampled_from(sorted(self.gates)))]
        self.released += 1
        if fails:
            gate.set_exception(UserNotFound(status=404))
        else:
            gate.set_result(None)
        self._settle()

    @precondition(lambda self: len(self.waiting) < 3)
    @rule()
    def take(self) -> None:
        """Ask for an outcome."""

        async def one() -> Outcome[int, int]:
            async for outcome in self.run:
                return outcome
            msg = "the run is at its end"
            raise RuntimeError(msg)

        self.waiting.append(self.runner.get_loop().create_task(one()))
        self._settle()

    @precondition(lambda self: self.waiting)
    @rule()
    def give_up(self) -> None:
        """Cancel one that waits for an outcome."""
        task = self.waiting.pop(0)
        task.cancel()
        self._settle()
        assert task.cancelled()

    @invariant()
    def counts_add_up(self) -> None:
        """Every key is offered, running, waiting to be taken, or taken: never two of them, never none."""
        ready = self.released - len(self.taken)
        assert len(self.taken) == len(set(self.taken))
        assert self.run.progress.done == len(self.taken)
        assert self.run.progress.in_flight == len(self.gates) <= self.LIMIT
        assert len(self.started) == len(set(self.started)) == len(self.gates) + self.released
        assert 0 <= ready <= ready + len(self.gates) <= 2 * self.LIMIT
        # Nobody waits while there is something to take.
        assert not (ready and self.waiting)
        # Nothing is left lying while there is room for it: as many outcomes may wait as lookups run.
        keys_left = self.offered - len(self.taken) - ready
        assert len(self.gates) == min(self.LIMIT, keys_left, 2 * self.LIMIT - ready)

    def teardown(self) -> None:
        """Leave the run, and check that nothing of it is left."""
        for task in self.waiting:
            task.cancel()
        self.leave.set()
        self._settle()
        self.runner.run(self._check_nothing_left())
        assert self.host.done()
        assert self.host.exception() is None
        assert self.gates == {}
        assert self.run.progress.in_flight == 0
        self.runner.close()

    async def _check_nothing_left(self) -> None:
        assert asyncio.all_tasks() == {asyncio.current_task()}


# Not shrunk: each step settles a loop, and minutes of that would hide the failure. Thirty steps can be read.
RunByHand.TestCase.settings = settings(max_examples=60, stateful_step_count=30, phases=[Phase.generate])


class TestRunByHand(RunByHand.TestCase):  # type: ignore[misc,valid-type]
    """Run the machine."""

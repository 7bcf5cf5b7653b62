"""How fast a client sends: close to what the server bears, with few refusals, whatever the server is like."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import anyio
import pytest
import trio
import trio.testing
from attrs import define, field

from calls.throttling_server import Bucket
from phygitals_async import (
    Attempt,
    Call,
    Failed,
    Found,
    PhygitalsClient,
    PhygitalsError,
    Progress,
    RateLimited,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    UserNotFound,
)
from phygitals_async.sandbox.options import RateLimit, TokenBucket
from phygitals_transports import MemoryTransport

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)


def simulate(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in simulated time, which jumps to whatever is waited for."""
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- calls, and bulk runs, in simulated time --------------------------------------------------------------------------


@define
class Counter:
    """An observer that counts answers, and knows the range of a run's limit."""

    answers: int = 0
    refused: int = 0
    retries: int = 0
    limits: list[int] = field(factory=list)

    def started(self, call: Call) -> None:
        """Ignored."""

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Count it."""
        self.answers += 1
        self.refused += attempt.status == 429

    def retrying(self, call: Call, seconds: float) -> None:
        """Count it."""
        self.retries += 1

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Ignored."""

    def progressed(self, progress: Progress) -> None:
        """Keep the limit."""
        self.limits.append(progress.limit)


def simulated_sandbox(rate_limit: RateLimit, users: int) -> Sandbox:
    """Return a sandbox with a rate limit, whose clock is trio's."""
    start = trio.current_time()
    sandbox = Sandbox(seed=1, clock=lambda: START + timedelta(seconds=trio.current_time() - start))
    sandbox.options.rate_limit = rate_limit
    for number in range(users):
        sandbox.add_user(f"u{number}")
    return sandbox


def distant(sandbox: Sandbox, latency: float) -> MemoryTransport:
    """Return a transport whose answers take `latency` seconds."""

    async def answer(request: Request) -> Response:
        await trio.sleep(latency / 2)
        response = sandbox(request)
        await trio.sleep(latency / 2)
        return response

    return MemoryTransport(answer)


@pytest.mark.parametrize(("retry_after", "users"), [(True, 2000), (False, 4000)])
def test_a_bulk_run_keeps_the_promise(retry_after: bool, users: int) -> None:
    """Every user is answered, in 1.25 times the ideal, with 5 % of 429; the limit falls and recovers."""
    limit = 64
    counter = Counter()

    async def main() -> tuple[float, Progress]:
        sandbox = simulated_sandbox(RateLimit(200, retry_after=retry_after), users)
        api = PhygitalsClient(distant(sandbox, 0.02), api_key="sandbox-test", observer=counter)
        start = trio.current_time()
        async with api.stream_inventories((f"u{n}" for n in range(users)), limit=limit) as outcomes:
            found = [outcome.key async for outcome in outcomes if isinstance(outcome, Found)]
        assert sorted(found) == sorted(f"u{n}" for n in range(users))
        return trio.current_time() - start, outcomes.progress

    took, progress = simulate(main)
    ideal = (users - 200) / 200
    assert took <= 1.25 * ideal
    assert counter.refused <= 0.05 * counter.answers
    assert progress.attempts == counter.answers == users + counter.refused
    assert 0 < progress.throttled <= counter.refused
    assert all(1 <= allowed <= limit for allowed in counter.limits)
    lowest = counter.limits.index(min(counter.limits))
    assert min(counter.limits) <= limit // 2
    assert max(counter.limits[lowest:]) > min(counter.limits)


@pytest.mark.parametrize("retry_after", [True, False])
def test_a_bulk_run_over_unknown_users_is_as_fast(retry_after: bool) -> None:
    """A 404 passed the server's limit like any answer: the pace must not collapse over it."""
    users = 1000

    async def main() -> tuple[float, int]:
        sandbox = simulated_sandbox(RateLimit(200, retry_after=retry_after), 0)
        api = PhygitalsClient(distant(sandbox, 0.02), api_key="sandbox-test")
        start = trio.current_time()
        async with api.stream_inventories((f"u{n}" for n in range(users)), limit=64) as outcomes:
            unknown = sum([isinstance(o, Failed) and isinstance(o.error, UserNotFound) async for o in outcomes])
        return trio.current_time() - start, unknown

    took, unknown = simulate(main)
    assert unknown == users
    assert took <= 1.25 * (users - 200) / 200


def test_the_limit_recovers_in_full() -> None:
    """After one refusal all lookups come back, and never more than were asked for."""
    limits: list[int] = []
    asked = itertools.count()

    async def answer(request: Request) -> Response:
        await trio.sleep(0.01)
        if next(asked) == 100:
            return Response(429, {}, b"{}")
        return Response(200, {}, b'{"user_id":"u","items":[]}')

    async def main() -> None:
        api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")
        async with api.stream_inventories((f"u{n}" for n in range(1000)), limit=8) as outcomes:
            limits.extend([outcomes.progress.limit async for _ in outcomes])
        assert outcomes.progress.throttled == 1
        assert outcomes.progress.found == 1000

    simulate(main)
    assert limits[0] == 8
    assert min(limits) == 4
    assert limits[-1] == max(limits) == 8


def test_a_run_against_a_server_that_only_refuses_goes_down_and_ends() -> None:
    """Every key comes out as failed by its deadline, and the server is asked seldom."""
    asked = itertools.count()
    limits: list[int] = []

    def refuse(request: Request) -> Response:
        next(asked)
        return Response(429, {}, b"{}")

    async def main() -> None:
        api = PhygitalsClient(MemoryTransport(refuse), api_key="sandbox-test", deadline=30.0)
        async with api.stream_inventories((f"u{n}" for n in range(40)), limit=16) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Failed)
                assert outcome.error.attempts <= 20
                limits.append(outcomes.progress.limit)

    simulate(main)
    assert len(limits) == 40
    assert 1 <= min(limits) <= 4
    assert next(asked) < 200


def test_a_429_pauses_all_calls_of_its_client_and_no_other() -> None:
    """A call that starts during the pause waits for its end; another client does not."""
    asked: list[tuple[str, float]] = []

    def answer(request: Request) -> Response:
        asked.append((request.url.rpartition("/")[2], trio.current_time()))
        if len(asked) == 1:
            return Response(429, {"retry-after": "10"}, b"{}")
        return Response(200, {}, b'{"user_id":"u","items":[]}')

    async def main() -> float:
        api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")
        other = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.get_inventory, "first")
            await trio.sleep(1)
            for number in range(5):
                nursery.start_soon(api.get_inventory, f"waiting{number}")
                # Trio starts tasks of one moment in any order.
                await trio.sleep(0.001)
            nursery.start_soon(other.get_inventory, "other")
        return start

    start = simulate(main)
    by_key = {key: moment - start for key, moment in asked}
    assert by_key.pop("other") < 1.1
    assert min(by_key.values()) >= 10.0
    assert len(set(by_key.values())) == 6, "they wake up spread out"
    assert by_key["first"] == min(by_key.values())
    assert [key for key, _ in asked if key.startswith("waiting")] == [f"waiting{n}" for n in range(5)]


def test_a_503_with_retry_after_pauses_all_calls_too() -> None:
    """The server says how long to stay away; a 503 without it slows down nobody else."""
    asked: list[float] = []

    def answer(request: Request) -> Response:
        asked.append(trio.current_time())
        if len(asked) == 1:
            return Response(503, {"retry-after": "10"}, b"{}")
        return Response(200, {}, b'{"user_id":"u","items":[]}')

    async def main() -> float:
        api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.get_inventory, "first")
            await trio.sleep(1)
            nursery.start_soon(api.get_inventory, "second")
        return start

    start = simulate(main)
    assert all(moment - start >= 10.0 for moment in asked[1:])


def test_a_bare_503_slows_down_nobody() -> None:
    """It tells nothing of a rate."""

    async def main() -> None:
        answers = iter([Response(503, {}, b"{}")])
        found = Response(200, {}, b'{"user_id":"u","items":[]}')
        api = PhygitalsClient(MemoryTransport(lambda _: next(answers, found)), api_key="sandbox-test")
        await api.get_inventory("u")
        assert api._engine.admission.pacer.rate is None

    simulate(main)


def test_a_429_with_an_absurd_retry_after_pauses_the_others_no_longer_than_the_longest_pause() -> None:
    """One hostile header must not silence a client for years."""

    async def main() -> float:
        answers = iter([Response(429, {"retry-after": "9" * 35}, b"{}")])
        found = Response(200, {}, b'{"user_id":"u","items":[]}')
        transport = MemoryTransport(lambda _: next(answers, found))
        api = PhygitalsClient(transport, api_key="sandbox-test", retry=RetryPolicy(longest=3.0))
        start = trio.current_time()
        with pytest.raises(RateLimited):
            await api.get_inventory("u")
        await api.get_inventory("u")
        return trio.current_time() - start

    assert simulate(main) == pytest.approx(3.0)


def test_a_refused_purchase_pauses_the_reads() -> None:
    """The 429 of a call that is not repeated is news for all others."""

    async def main() -> float:
        answers = iter([Response(429, {"retry-after": "2"}, b"{}")])
        found = Response(200, {}, b'{"user_id":"u","items":[]}')
        api = PhygitalsClient(MemoryTransport(lambda _: next(answers, found)), api_key="sandbox-test")
        start = trio.current_time()
        with pytest.raises(RateLimited):
            await api.start_purchase("p", 1, "u")
        assert trio.current_time() == start
        await api.get_inventory("u")
        return trio.current_time() - start

    assert simulate(main) == pytest.approx(2.0)


def test_single_calls_and_other_functions_count_into_their_own_run_alone() -> None:
    """A 429 of a call outside a run does not halve the run's limit."""
    first = iter([Response(429, {}, b"{}")])
    found = Response(200, {}, b'{"user_id":"u","items":[]}')

    async def main() -> None:
        api = PhygitalsClient(MemoryTransport(lambda _: next(first, found)), api_key="sandbox-test")
        await api.get_inventory("u")
        async with api.stream_inventories(["a", "b"]) as outcomes:
            assert [isinstance(outcome, Found) async for outcome in outcomes] == [True, True]
        assert outcomes.progress.throttled == 0
        assert outcomes.progress.attempts == 2
        assert outcomes.progress.limit == 64

    simulate(main)


def test_slots_given_before_a_429_do_not_double_the_rate_after_it() -> None:
    """Calls that hold slots of the old pace are part of the new one: the server sees one rate."""
    asked: list[float] = []

    def answer(request: Request) -> Response:
        asked.append(trio.current_time())
        return Response(200, {}, b'{"user_id":"u","items":[]}')

    async def main() -> None:
        api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test", deadline=600.0)
        await api.get_inventory("u")
        pacer = api._engine.admission.pacer
        pacer.rate = 10.0
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(api.get_inventory, "u")
            await trio.sleep(0.55)
            now = trio.current_time()
            assert pacer.throttled(now, now, 0.1)
            # From here on the rate hardly grows, so that what is seen is the spacing alone.
            pacer.rate, pacer._ceiling = 10.0, 0.0
            for _ in range(50):
                nursery.start_soon(api.get_inventory, "u")

    simulate(main)
    seconds = [sum(asked[0] + n <= moment < asked[0] + n + 1 for moment in asked) for n in range(1, 4)]
    assert seconds[0] <= 13, seconds


def test_the_bucket_of_the_sandbox_is_the_one_simulated_for_the_pacer() -> None:
    """Both models refuse the same requests."""
    mine = Bucket(10, 10)
    theirs = TokenBucket(RateLimit(10), START)
    for number in range(500):
        at = number * 0.037
        a, b = mine.refuses_for(at), theirs.take(START + timedelta(seconds=at))
        assert (a is None) == (b is None)


@pytest.mark.anyio
async def test_a_pace_holds_on_both_event_loops() -> None:
    """Real time: 30 requests at about 100 a second leave one after the other."""
    asked: list[float] = []

    def answer(request: Request) -> Response:
        asked.append(anyio.current_time())
        return Response(200, {}, b'{"user_id":"u","items":[]}')

    api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")
    await api.get_inventory("u")
    api._engine.admission.pacer.rate = 100.0
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(api.get_inventory, "u")
    assert asked[-1] - asked[1] >= 0.15


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_a_pause_longer_than_the_deadline_does_not_burn_the_keys(outside: bool, is_async: bool) -> None:
    """A bulk run starts no lookup during a pause, its own or another call's, once it has met it."""
    sandbox = Sandbox()
    users = [f"u{n}" for n in range(100)]
    for user_id in users:
        sandbox.add_user(user_id)
    requests = 0

    def handler(request: Request) -> Response:
        nonlocal requests
        requests += 1
        refused = requests == 1 if outside else requests == 10
        return Response(429, {"retry-after": "8"}, b"{}") if refused else sandbox(request)

    async def ids() -> AsyncIterator[str]:
        for user_id in users:
            yield user_id

    async def main() -> tuple[int, int]:
        api = PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test")
        if outside:
            with pytest.raises(PhygitalsError):
                await api.list_packs(deadline=1.0)
        async with api.stream_inventories(ids() if is_async else users, limit=4, deadline=5.0) as outcomes:
            failed = [outcome async for outcome in outcomes if isinstance(outcome, Failed)]
        return len(failed), outcomes.progress.found

    failed, found = simulate(main)
    # Those that meet the pause run out of time: as many as may be under way.
    assert failed <= 4
    assert failed + found == 100


def test_a_pause_that_is_too_long_is_not_sat_out() -> None:
    """A server that wants nobody for an hour fails a bulk run soon, rather than a few ids at a time all day."""
    transport = MemoryTransport(lambda _: Response(429, {"retry-after": "3600"}, b"{}"))

    async def main() -> tuple[int, float]:
        api = PhygitalsClient(transport, api_key="sandbox-test", deadline=5.0)
        batch = await api.get_inventories([f"u{n}" for n in range(1000)])
        return len(batch.failed), trio.current_time()

    start = trio.testing.MockClock().current_time()
    failed, end = simulate(main)
    assert failed == 1000
    assert end - start < 100

"""How fast a client sends: close to what the server bears, with few refusals, whatever the server is like."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import anyio
import pytest
import trio
import trio.testing
from attrs import define, field, frozen
from hypothesis import given
from hypothesis import strategies as st

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
from phygitals_async._calls.pacer import Pacer
from phygitals_async.sandbox.options import RateLimit, TokenBucket
from phygitals_transports import MemoryTransport

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)


def slot(pacer: Pacer, now: float) -> float:
    """Take the next free moment, as whoever waits for it does."""
    due = pacer.due(now)
    assert pacer.take_if_free(due)
    return due


def simulate(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in simulated time, which jumps to whatever is waited for."""
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- the pacer by itself ----------------------------------------------------------------------------------------------


def test_there_is_no_pace_before_the_first_429() -> None:
    """Requests leave as they come."""
    pacer = Pacer()
    assert pacer.rate is None
    assert [slot(pacer, 1.0) for _ in range(100)] == [1.0] * 100
    pacer.accepted(1.0)
    assert pacer.rate is None
    assert pacer.take_if_free(1.0)


def throttled(per_second: float = 50.0, *, at: float = 10.0, retry_after: float | None = None) -> Pacer:
    """Return a pacer that met its first 429 at `at`, after a second of answers."""
    pacer = Pacer()
    for number in range(int(per_second)):
        pacer.accepted(at - 1 + number / per_second)
    assert pacer.throttled(at, at, retry_after)
    return pacer


def test_the_first_429_sets_the_rate_to_what_was_accepted() -> None:
    """A little below it, so that the server's bucket fills again."""
    assert throttled(50.0).rate == pytest.approx(50.0, rel=0.05)


def test_a_429_to_the_very_first_request_gives_the_slowest_rate() -> None:
    """Nothing is known of the server but that it refuses; the rate then grows with each answer."""
    pacer = Pacer()
    assert pacer.throttled(0.0, 0.0, None)
    slowest = pacer.rate
    assert slowest is not None
    assert slowest > 0
    now = 0.0
    for _ in range(300):
        now = slot(pacer, now)
        pacer.accepted(now)
    assert pacer.rate is not None
    assert pacer.rate > 100
    assert now < 20


def test_slots_are_evenly_spaced_and_in_order() -> None:
    """Calls that wait together do not wake up together."""
    pacer = throttled(50.0)
    assert pacer.rate is not None
    slots = [slot(pacer, 10.0) for _ in range(20)]
    assert slots[0] >= 10.0
    gaps = [later - sooner for sooner, later in itertools.pairwise(slots)]
    assert gaps == pytest.approx([1 / pacer.rate] * 19)


def test_one_burst_of_429s_is_reacted_to_once() -> None:
    """Requests that were on their way at the first 429 tell nothing new."""
    pacer = throttled(50.0, at=10.0)
    rate = pacer.rate
    news = [pacer.throttled(10.0 + n / 1000, 9.9 + n / 1000, None) for n in range(100)]
    assert not any(news)
    assert pacer.rate == rate
    assert pacer.throttled(11.0, 10.5, None)
    assert pacer.rate != rate


def test_a_429_of_the_same_burst_can_only_make_the_pause_longer() -> None:
    """The longest `Retry-After` of a burst counts."""
    pacer = throttled(50.0, at=10.0, retry_after=1.0)
    assert not pacer.throttled(10.1, 9.9, 3.0)
    assert not pacer.throttled(10.2, 9.9, 0.5)
    assert not pacer.throttled(10.3, 9.9, None)
    assert pacer.due(13.0) > 13.0
    assert not (pacer.due(13.1) > 13.1)
    assert slot(pacer, 10.3) == pytest.approx(13.1)


def test_a_pause_overtakes_slots_given_before() -> None:
    """Whoever wakes up inside a pause asks for a new slot."""
    pacer = throttled(2.0, at=10.0)
    taken = [slot(pacer, 10.0) for _ in range(4)]
    assert pacer.throttled(10.5, 10.4, 60.0)
    assert all(pacer.due(moment) > moment for moment in taken)
    assert slot(pacer, taken[0]) == pytest.approx(70.5)
    assert not pacer.take_if_free(70.4)


def test_the_present_is_taken_once() -> None:
    """A free moment goes to one caller."""
    pacer = throttled(50.0, at=10.0)
    later = slot(pacer, 10.0) + 1.0
    assert pacer.take_if_free(later)
    assert not pacer.take_if_free(later)
    assert pacer.rate is not None
    assert pacer.take_if_free(later + 1.01 / pacer.rate)


def test_pauses_grow_while_nothing_is_accepted_and_start_again_after() -> None:
    """Without Retry-After each further 429 doubles the pause, up to a few seconds."""
    pacer = Pacer()
    now, pauses = 0.0, []
    for _ in range(12):
        assert pacer.throttled(now, now, None)
        resume = slot(pacer, now)
        pauses.append(resume - now)
        now = resume + 0.001
    assert pauses == pytest.approx(sorted(pauses))
    assert pauses[0] == pytest.approx(0.1)
    assert pauses[-1] == pytest.approx(5.0)
    pacer.accepted(now)
    assert pacer.throttled(now + 1, now + 0.5, None)
    assert slot(pacer, now + 1) - (now + 1) < 0.5


def test_the_rate_recovers() -> None:
    """A server that bears more than before is used again: the rate grows with every answer."""
    pacer = throttled(20.0)
    assert pacer.rate is not None
    rates = [pacer.rate]
    for number in range(1000):
        pacer.accepted(11.0 + number / 50)
        rates.append(pacer.rate)
    assert rates == sorted(rates)
    assert rates[-1] > 5 * rates[0]


events = st.lists(
    st.tuples(st.sampled_from(["slot", "take", "ok", "429"]), st.floats(0, 2), st.none() | st.floats(0, 20)),
    max_size=200,
)


@given(events)
def test_whatever_happens_slots_keep_their_order_and_the_rate_stays_positive(
    happenings: list[tuple[str, float, float | None]],
) -> None:
    """No slot is in the past or in a pause; without a 429 between them, no two are closer than the rate says."""
    pacer, now, last = Pacer(), 0.0, None
    for what, passed, retry_after in happenings:
        now += passed
        if what == "slot":
            taken = slot(pacer, now)
            assert taken >= now
            assert last is None or taken >= last
            last = taken
        elif what == "take":
            free = pacer.due(now) == now
            assert pacer.take_if_free(now) is free
        elif what == "ok":
            pacer.accepted(now)
        else:
            pacer.throttled(now, now - passed / 2, retry_after)
            last = None
        assert pacer.rate is None or 0 < pacer.rate < 1e7


# --- against simulated servers ----------------------------------------------------------------------------------------


@define
class Bucket:
    """A server's token bucket, in seconds of the simulation."""

    per_second: float
    tokens: float
    burst: float
    at: float = 0.0

    def refuses_for(self, now: float) -> float | None:
        """Take a token and return None, or return the seconds until there is one."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return (1 - self.tokens) / self.per_second


@frozen
class Server:
    """What a simulated server is like."""

    per_second: float
    burst: float
    retry_after: bool
    latency: float


@define
class Run:
    """A bulk run as `FanOut` and `Admission` make it, without an event loop: only the pacer is real.

    Attributes:
        took: Seconds the run took.
        requests: Requests sent.
        refused: Those answered 429.
    """

    server: Server
    keys: int
    limit: int
    took: float = 0.0
    requests: int = 0
    refused: int = 0
    _events: list[tuple[float, int, str, float]] = field(factory=list)
    _order: Iterator[int] = field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        pacer = Pacer()
        bucket = Bucket(self.server.per_second, self.server.burst, self.server.burst)
        allowed, working, left = float(self.limit), 0, self.keys
        done = 0
        while done < self.keys:
            while working < int(allowed) and left:
                working, left = working + 1, left - 1
                self._enter(pacer, self.took)
            now, _, what, sent_at = heapq.heappop(self._events)
            self.took = now
            if what == "wake":
                if not pacer.take_if_free(now):
                    self._enter(pacer, now)
                else:
                    self._plan(now + self.server.latency / 2, "arrive", now)
            elif what == "arrive":
                self.requests += 1
                wait = bucket.refuses_for(now)
                if wait is None:
                    self._plan(now + self.server.latency / 2, "ok", sent_at)
                else:
                    self.refused += 1
                    # The vendor rounds up to whole seconds.
                    self._plan(now + self.server.latency / 2, f"429 {int(wait) + 1}", sent_at)
            elif what == "ok":
                pacer.accepted(sent_at)
                working, done = working - 1, done + 1
                allowed = min(self.limit, allowed + 1 / allowed)
            else:
                asked = float(what.split()[1]) if self.server.retry_after else None
                if pacer.throttled(now, sent_at, asked):
                    allowed = max(1.0, allowed / 2)
                self._enter(pacer, now)

    def _enter(self, pacer: Pacer, now: float) -> None:
        self._plan(pacer.due(now), "wake", now)

    def _plan(self, at: float, what: str, sent_at: float) -> None:
        heapq.heappush(self._events, (at, next(self._order), what, sent_at))

    @property
    def ideal(self) -> float:
        """The least seconds any client could take."""
        return max((self.keys - self.server.burst) / self.server.per_second, 0.0) + self.server.latency


LATENCIES = [0.002, 0.01, 0.05, 0.2]


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("retry_after", [True, False])
def test_the_promise(latency: float, retry_after: bool) -> None:
    """4,000 keys, 64 in flight, 200 a second: at most 1.25 times the ideal, and at most 5 % of the answers are 429."""
    run = Run(Server(200, 200, retry_after, latency), keys=4000, limit=64)
    assert run.took <= 1.25 * run.ideal
    assert run.refused <= 0.05 * run.requests


@pytest.mark.parametrize("per_second", [5, 20, 50, 200, 1000])
@pytest.mark.parametrize("seconds_of_burst", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize("latency", [0.005, 0.1])
def test_any_server_is_used_well(per_second: float, seconds_of_burst: float, retry_after: bool, latency: float) -> None:
    """20 seconds' worth of keys take at most half as long again, or what latency alone makes of 64 in flight.

    64 at once against a handful a second is the worst case: most of a short run is spent learning.
    """
    burst = max(1.0, per_second * seconds_of_burst)
    run = Run(Server(per_second, burst, retry_after, latency), keys=min(int(20 * per_second), 5000), limit=64)
    ideal = max(run.ideal, run.keys * latency / 64)
    slow = per_second < 20
    assert run.took <= (2.5 if slow else 1.5) * ideal + 3.0
    assert run.refused <= 64 * (6 if slow else 3) + 0.05 * run.requests


@pytest.mark.parametrize("limit", [1, 4, 16, 256])
def test_any_limit_works(limit: int) -> None:
    """One at a time, or more than the server bears at once."""
    run = Run(Server(100, 100, retry_after=False, latency=0.02), keys=2000, limit=limit)
    assert run.took <= 1.5 * max(run.ideal, 2000 * 0.02 / limit) + 3.0
    assert run.refused <= limit + 0.25 * run.requests


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


def test_the_bucket_of_the_sandbox_is_the_one_simulated_here() -> None:
    """Both models refuse the same requests."""
    mine = Bucket(10, 10, 10)
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


def test_the_rate_recovers_soon_from_a_time_in_which_nothing_was_accepted() -> None:
    """An outage of pure 429s tells nothing of the rate that the server bears afterwards."""
    pacer = Pacer()
    now = 0.0
    for _ in range(100):
        pacer.accepted(now)
        now += 0.01
    for _ in range(8):
        now = pacer.due(now)
        pacer.throttled(now, now, None)
        now += 0.01
    assert pacer.rate is not None
    before = pacer.rate
    for _ in range(100):
        pacer.accepted(now)
    assert pacer.rate > before + 50

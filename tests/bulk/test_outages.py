"""An outage costs time and no keys, and a key that fails by itself holds nobody up. All of it in virtual time."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phygitals_async import (
    AuthenticationError,
    ClientClosed,
    ConnectError,
    ConnectionLost,
    Failed,
    FanOut,
    Found,
    InvalidArgumentError,
    NotAttempted,
    Outcome,
    PhygitalsClient,
    PhygitalsError,
    RateLimited,
    Request,
    Response,
    RetryPolicy,
    ServerError,
    UserNotFound,
    fan_out,
    fan_out_all,
)
from phygitals_async._bulk.outages import Outages, Suspect
from phygitals_transports import MemoryTransport
from virtual import no_task_left, run_virtually, virtual_backend

anyio_backend = virtual_backend


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Let pauses be the same each time: what is bounded here is bounded for all, and only shown for these."""
    random.seed(7)


BROKEN = ServerError(status=502)


def suspect(key: int, *, seen: int = 0, error: PhygitalsError = BROKEN) -> Suspect[int]:
    """Return a key that has just failed, when this many lookups had started."""
    return Suspect(key, error=error, seen=seen)


def fail(outages: Outages[int], keys: Iterable[int], now: float = 0.0) -> None:
    """Let keys fail one after the other, none of them answered in between."""
    for key in keys:
        outages.failed(suspect(key, seen=key), now, None, is_limit=False)


def keys_of(suspects: Iterable[Suspect[int]]) -> list[int]:
    """Return their keys."""
    return [one.key for one in suspects]


# ---------------------------------------------------------------- whose fault it was


@pytest.mark.parametrize(("failures", "outage"), [(1, False), (9, False), (10, True), (11, True)])
def test_ten_failures_in_a_row_are_an_outage(failures: int, outage: bool) -> None:
    """Fewer may be keys that fail by themselves."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(failures))
    assert outages.ongoing is outage
    assert len(outages.suspects) == failures


@pytest.mark.parametrize(("failures", "again"), [(1, False), (2, False), (3, True), (9, True)])
def test_few_failures_before_an_answer_are_the_keys_own(failures: int, again: bool) -> None:
    """Three or more may have been a short outage, and get one more try, and no third."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(failures))
    retried, failed = outages.answered(100)
    assert keys_of(retried) == (list(range(failures)) if again else [])
    assert keys_of(failed) == ([] if again else list(range(failures)))
    for one in retried:
        outages.failed(one, 1.0, None, is_limit=False)
    retried, failed = outages.answered(200)
    assert keys_of(retried) == []
    assert keys_of(failed) == (list(range(failures)) if again else [])


def test_an_answer_to_a_lookup_that_started_before_shows_nothing() -> None:
    """It left the server before the outage began."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(12))
    assert outages.answered(0) == ([], [])
    assert outages.ongoing
    assert len(outages.suspects) == 12


def test_an_answer_clears_those_that_failed_before_its_lookup_started() -> None:
    """The others wait for the next one; what is in a row begins anew."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(9))
    retried, failed = outages.answered(5)
    assert keys_of(retried + failed) == [0, 1, 2, 3, 4]
    assert keys_of(outages.suspects) == [5, 6, 7, 8]
    assert not outages.may_be_hiccup
    fail(outages, range(20, 29))
    assert not outages.ongoing
    fail(outages, [29])
    assert outages.ongoing


def test_what_failed_in_a_real_outage_starts_with_a_clean_slate() -> None:
    """Its failures were the server's: it may fail twice more before it is taken for the key's own."""
    outages: Outages[int] = Outages(300)
    one = suspect(0)
    outages.failed(one, 0.0, None, is_limit=False)
    fail(outages, range(1, 10))
    outages.probed_in_vain()
    retried, _ = outages.answered(100)
    assert one in retried
    assert one.tries == 0


def test_an_outage_that_the_first_probe_denies_counts_against_the_keys() -> None:
    """Ten keys that fail for ever are tried twice, and no more."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(10))
    retried, failed = outages.answered(100)
    assert (len(retried), len(failed)) == (10, 0)
    for one in retried:
        outages.failed(one, 1.0, None, is_limit=False)
    assert outages.ongoing
    retried, failed = outages.answered(200)
    assert (len(retried), len(failed)) == (0, 10)


@pytest.mark.parametrize("real", [True, False])
def test_what_fails_while_the_outage_lasts_counts_unless_the_outage_was_real(real: bool) -> None:
    """Else, of forty sick keys that fail together, ten at a time would be counted, and all tried again each time."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(40))
    if real:
        outages.probed_in_vain()
    retried, failed = outages.answered(100)
    assert (len(retried), len(failed)) == (40, 0)
    for one in retried:
        outages.failed(one, 1.0, None, is_limit=False)
    retried, failed = outages.answered(200)
    assert (len(retried), len(failed)) == ((40, 0) if real else (0, 40))


def test_a_limit_that_asks_for_long_is_an_outage_at_once() -> None:
    """And never counts against the key."""
    outages: Outages[int] = Outages(300)
    one = suspect(0, error=RateLimited(status=429, retry_after=60.0))
    outages.failed(one, 0.0, 60.0, is_limit=True)
    assert outages.ongoing
    assert outages.pause(0.0) == 60.0
    assert one.tries == 0
    retried, failed = outages.answered(1)
    assert (keys_of(retried), failed) == ([0], [])


def test_giving_up_on_the_suspects_ends_the_outage() -> None:
    """They come in the order in which they failed."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(10))
    assert keys_of(outages.take_all()) == list(range(10))
    assert not outages.ongoing
    assert not outages.suspects


def test_keys_given_up_show_nothing_of_the_server() -> None:
    """What comes after them is still in the same row: an outage is not overlooked for their sake."""
    outages: Outages[int] = Outages(300)
    for key in range(9):
        fail(outages, [key])
        outages.take_all()
    assert not outages.ongoing
    fail(outages, [9])
    assert outages.ongoing


def test_a_key_is_hopeless_once_it_has_failed_for_as_long_as_patience() -> None:
    """Counted from its first failure."""
    outages: Outages[int] = Outages(300)
    one = suspect(0)
    assert not outages.is_hopeless(one, 1e9)
    outages.failed(one, 10.0, None, is_limit=False)
    outages.failed(one, 200.0, None, is_limit=False)
    assert not outages.is_hopeless(one, 309.9)
    assert outages.is_hopeless(one, 310.0)


def test_in_a_real_outage_whoever_has_to_wait_for_a_later_answer_is_innocent_too() -> None:
    """The first answer left before they failed. It ended the outage, but whose fault it was is known."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(12))
    outages.probed_in_vain()
    retried, failed = outages.answered(5)
    assert (keys_of(retried), failed) == ([0, 1, 2, 3, 4], [])
    assert not outages.ongoing
    retried, failed = outages.answered(100)
    assert (keys_of(retried), failed) == (list(range(5, 12)), [])


def test_an_answer_ends_an_outage_of_which_no_suspect_is_left() -> None:
    """The only one was the probe, and was answered."""
    outages: Outages[int] = Outages(300)
    outages.failed(suspect(0), 0.0, 60.0, is_limit=True)
    outages.suspects.popleft()
    assert outages.answered(1) == ([], [])
    assert not outages.ongoing


def test_after_a_real_outage_a_key_that_fails_is_no_longer_innocent() -> None:
    """That outage is over."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(10))
    outages.probed_in_vain()
    outages.answered(100)
    fail(outages, [200])
    retried, failed = outages.answered(300)
    assert (keys_of(retried), keys_of(failed)) == ([], [200])


# ---------------------------------------------------------------- how long to wait


def test_the_first_probe_is_made_at_once() -> None:
    """Keys that fail by themselves in a row cost one lookup, and no pause."""
    outages: Outages[int] = Outages(300)
    fail(outages, range(10))
    assert outages.pause(0.0) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_pauses_between_probes_grow_with_the_outage(seed: int) -> None:
    """By a share of its length, so that its end is met within that share; at most half a minute."""
    random.seed(seed)
    outages: Outages[int] = Outages(1000)
    fail(outages, range(10))
    outages.probed_in_vain()
    for now in (0.0, 1.0, 5.0, 20.0, 60.0, 200.0, 600.0):
        pause = outages.pause(now)
        assert pause is not None
        expected = min(max(0.5, 0.3 * now), 30.0)
        assert 0.8 * expected <= pause <= 1.2 * expected


def test_pauses_are_spread() -> None:
    """Many clients that met one outage do not come back all at once."""
    outages: Outages[int] = Outages(1000)
    fail(outages, range(10))
    outages.probed_in_vain()
    assert len({outages.pause(10.0) for _ in range(20)}) > 10


def test_the_last_pause_ends_with_patience() -> None:
    """One more probe is made then, and after it there is none."""
    outages: Outages[int] = Outages(100)
    fail(outages, range(10), now=50.0)
    outages.probed_in_vain()
    assert outages.pause(149.0) == 1.0
    assert outages.pause(150.0) is None
    assert outages.pause(151.0) is None


def test_what_the_server_asks_for_is_waited_out_or_not_at_all() -> None:
    """Asked for more than patience has left, waiting is no use."""
    outages: Outages[int] = Outages(100)
    outages.failed(suspect(0), 0.0, 60.0, is_limit=True)
    assert outages.pause(10.0) == 50.0
    # The longest of what was asked for counts.
    outages.failed(suspect(1), 10.0, 20.0, is_limit=True)
    assert outages.pause(10.0) == 50.0
    outages.failed(suspect(2), 10.0, 91.0, is_limit=True)
    assert outages.pause(10.0) is None


def test_each_outage_has_the_whole_patience() -> None:
    """A second one does not inherit what the first has used up."""
    outages: Outages[int] = Outages(100)
    fail(outages, range(10), now=0.0)
    outages.probed_in_vain()
    outages.answered(50)
    fail(outages, range(60, 70), now=99.0)
    assert outages.pause(150.0) == 0.0
    outages.probed_in_vain()
    assert outages.pause(198.0) is not None
    assert outages.pause(199.0) is None


def test_an_answer_ends_what_a_server_asked_for() -> None:
    """A key whose own record asks to wait an hour must not cost the run its patience in a later outage."""
    outages: Outages[int] = Outages(300)
    outages.failed(suspect(0), 0.0, 3600.0, is_limit=False)
    outages.answered(5)
    fail(outages, range(10, 20), now=1.0)
    assert outages.pause(1.0) == 0.0


# ---------------------------------------------------------------- whole runs, over a server


class Server:
    """Answers after 20 ms; says 502, or does something else, during its outages, and 500 for ever for sick users.

    Args:
        outages: From and to which second after the first request it is down.
        down: What it does then: gives a response, raises an error, or never answers.
        sick: Users whose record is broken.
        latency: Seconds that an answer takes.
    """

    def __init__(
        self,
        *outages: tuple[float, float],
        down: Response | Exception | None = None,
        sick: Iterable[str] = (),
        latency: float = 0.02,
    ) -> None:
        self.asked: Counter[str] = Counter()
        self.outages = outages
        self._down = Response(502, {}, b"<html>bad gateway</html>") if down is None else down
        self._sick = frozenset(sick)
        self._latency = latency
        self._began: float | None = None

    @property
    def now(self) -> float:
        """Seconds since the first request."""
        return 0.0 if self._began is None else anyio.current_time() - self._began

    @property
    def is_down(self) -> bool:
        """Whether there is an outage."""
        return any(start <= self.now < end for start, end in self.outages)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        user = request.url.rpartition("/")[2]
        self.asked[user] += 1
        self._began = anyio.current_time() if self._began is None else self._began
        down = self.is_down
        await anyio.sleep(self._latency)
        if down or self.is_down:
            if isinstance(self._down, Exception):
                # An error of its own for each, as transports raise it.
                raise type(self._down)(*self._down.args)
            return self._down
        if user in self._sick:
            return Response(500, {}, b'{"error": "An unexpected error occurred"}')
        return Response(200, {}, b'{"user_id": "%s", "items": []}' % user.encode())


def client(handler: Any, **settings: Any) -> PhygitalsClient:
    """Return a client of a handler, which keeps no requests."""
    return PhygitalsClient(MemoryTransport(handler, keep=0), api_key="sandbox-test", **settings)


def users(count: int) -> list[str]:
    """Return so many ids."""
    return [f"u{number}" for number in range(count)]


def failures(outcomes: Iterable[Outcome[Any, Any]]) -> dict[Any, PhygitalsError]:
    """Return what failed, by key."""
    return {outcome.key: outcome.error for outcome in outcomes if isinstance(outcome, Failed)}


async def take_all(run: FanOut[Any, Any], keys: Iterable[Any]) -> list[Outcome[Any, Any]]:
    """Return all outcomes of a run, exactly one for each of the keys."""
    async with run as outcomes:
        taken = [outcome async for outcome in outcomes]
    assert Counter(outcome.key for outcome in taken) == Counter(keys)
    assert run.progress.done == len(taken)
    assert run.progress.found == sum(isinstance(outcome, Found) for outcome in taken)
    assert run.progress.in_flight == 0
    assert not run.progress.waiting
    return taken


DOWN: list[Response | Exception | None] = [
    None,
    ConnectionLost("reset"),
    ConnectError("refused"),
    Response(503, {}, b""),
]


@pytest.mark.parametrize("down", DOWN, ids=["502", "ConnectionLost", "ConnectError", "503"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ten_seconds_of_outage_cost_time_and_nobody(down: Response | Exception | None, backend: str) -> None:
    """20,000 users, of whom not one is lost; it ends within the outage, a fifth of its own time, and 5 seconds."""
    count, normal = 20_000, 6.3
    server = Server((1, 11), down=down)
    ids = users(count)

    async def main() -> float:
        api = client(server)
        with no_task_left():
            before = anyio.current_time()
            outcomes = await take_all(api.stream_inventories(ids), ids)
        assert failures(outcomes) == {}
        return anyio.current_time() - before

    seconds = run_virtually(main, backend)
    assert 10 + normal * 0.9 < seconds <= 10 + normal * 1.2 + 5
    # What was in flight met the outage, was repeated, and a probe now and then asked on.
    assert sum(server.asked.values()) < count + 700


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 3, 64])
@pytest.mark.parametrize("windows", [[(0, 10)], [(1, 11), (12, 20)], [(1, 4), (4.5, 8), (8.1, 15)]])
async def test_outages_one_after_the_other(windows: list[tuple[float, float]], limit: int) -> None:
    """From the first request on, or with hardly a moment between them: nobody is lost."""
    server = Server(*windows)
    ids = users(20 * limit + 200)
    outcomes = await take_all(client(server).stream_inventories(ids, limit=limit), ids)
    # Where the server is up for a moment, one or two may fail on their own beside others that are answered.
    assert len(failures(outcomes)) <= (2 if len(windows) == 3 and limit < 10 else 0)
    assert server.now < windows[-1][1] * 1.3 + len(ids) * 0.02 / limit * 1.2 + 5


@pytest.mark.anyio
@pytest.mark.parametrize("left", [1, 2, 3, 12, 64])
@pytest.mark.parametrize("limit", [1, 4, 64])
async def test_an_outage_at_the_very_end_of_a_run(left: int, limit: int) -> None:
    """Nothing else shows that the server is down when the last few keys fail: the run finds out."""
    ids = users(200)
    down_at = [False]
    server = Server()

    async def answer(request: Request) -> Response:
        if sum(server.asked.values()) == 200 - left and not down_at[0]:
            down_at[0] = True
            server.outages = ((server.now, server.now + 10),)
        return await server(request)

    outcomes = await take_all(client(answer).stream_inventories(ids, limit=limit), ids)
    if left >= 3:
        assert failures(outcomes) == {}
    # One or two keys that fail, after their own repeats, are not told from keys that fail by themselves.
    assert len(failures(outcomes)) <= 2
    assert server.now < 20


def cluster(at: int, size: int) -> list[str]:
    """Return neighbouring ids."""
    return [f"u{number}" for number in range(at, at + size)]


SICK = {
    "isolated": [*cluster(50, 1), *cluster(300, 1), *cluster(777, 1)],
    "pairs": [*cluster(10, 2), *cluster(500, 2)],
    "a cluster of 10": cluster(400, 10),
    "a cluster of 40": cluster(400, 40),
    "the first ten": cluster(0, 10),
    "the last ten": cluster(990, 10),
    "the last": cluster(999, 1),
    "every second": [f"u{number}" for number in range(0, 1000, 2)],
    "all but one": cluster(1, 999),
}


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 7, 64])
@pytest.mark.parametrize("sick", SICK.values(), ids=SICK)
async def test_keys_that_fail_for_ever_are_told_from_an_outage(sick: list[str], limit: int) -> None:
    """Each is one `Failed` with its own error, after a bounded number of requests; and the run is held up little."""
    server = Server(sick=sick)
    ids = users(1000)
    outcomes = await take_all(client(server).stream_inventories(ids, limit=limit), ids)
    failed = failures(outcomes)
    assert set(failed) == set(sick)
    assert all(type(error) is ServerError and error.status == 500 for error in failed.values())
    probes_at_most = 2 + len(sick) // 5
    for user in ids:
        # A lookup is repeated twice by itself; the run makes it once more, if it had reason to.
        assert server.asked[user] <= (6 if user in sick else 1 + probes_at_most), user
    # Its own repeats take a lookup 0.6 s on average, and never more than 1.3 s.
    assert server.now <= 1000 * 0.02 / limit * 1.3 + 2 * 1.4 * len(sick) / limit + 3


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 7])
async def test_a_refusal_is_an_answer(limit: int) -> None:
    """A run over users who never bought anything is told by its 404s that an outage is over, and that the server is up.

    Of few users that fail in a row, and of an outage: both would else last until patience is at its end.
    """
    server = Server((1, 11), sick=cluster(300, 5))

    async def answer(request: Request) -> Response:
        answered = await server(request)
        return Response(404, {}, b'{"error": "User not found"}') if answered.status == 200 else answered

    ids = users(600)
    failed = failures(await take_all(client(answer).stream_inventories(ids, limit=limit), ids))
    kinds = Counter(type(error) for error in failed.values())
    assert kinds == {UserNotFound: 595, ServerError: 5}
    assert server.now <= 10 * 1.3 + 600 * 0.02 / limit * 1.2 + 2 * 1.4 * 5 + 5


@pytest.mark.anyio
async def test_a_server_that_answers_nobody_ends_the_run_with_patience() -> None:
    """All records broken, or an outage without end: nobody can tell, and the run waits as long as it may."""
    ids = users(1000)
    server = Server(sick=ids)
    outcomes = await take_all(client(server).stream_inventories(ids, patience=100), ids)
    failed = failures(outcomes)
    assert len(failed) == 1000
    attempted = {user for user in ids if server.asked[user]}
    # Those in flight when the tenth failed, and one for each probe.
    assert len(attempted) <= 64 + 9 + 25
    for user, error in failed.items():
        if user in attempted:
            assert type(error) is ServerError
            assert error.status == 500
        else:
            assert type(error) is NotAttempted
            assert type(error.__cause__) is ServerError
            assert "patience" in str(error)
    assert 100 <= server.now < 103
    assert sum(server.asked.values()) < (64 + 9) * 3 + 25


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 64])
async def test_beyond_patience_the_rest_is_not_attempted(limit: int) -> None:
    """What was found stays found, what was attempted has its own error, the rest says what ended the run."""
    ids = users(3000)
    server = Server((0.5, 1e9), down=Response(503, {}, b"down"))
    outcomes = await take_all(client(server).stream_inventories(ids, limit=limit, patience=60), ids)
    failed = failures(outcomes)
    assert 20 <= len(outcomes) - len(failed) <= 0.5 / 0.02 * limit
    kinds = Counter(type(error) for error in failed.values())
    assert set(kinds) == {ServerError, NotAttempted}
    assert 10 <= kinds[ServerError] <= limit + 9
    for user, error in failed.items():
        assert (type(error) is NotAttempted) is (server.asked[user] == 0)
    assert 60 <= server.now < 60.5 + 15 + 3


@pytest.mark.anyio
async def test_a_key_that_waits_for_its_second_lookup_when_patience_ends_has_its_own_error() -> None:
    """It was attempted: `NotAttempted` would say that it was not."""
    asked: Counter[int] = Counter()
    went_down_again = []

    async def fetch(key: int) -> int:
        asked[key] += 1
        number = sum(asked.values())
        await anyio.sleep(0.1 + key % 7 / 50)
        if 20 < number < 60:
            raise ServerError(status=502)
        if number > 60:
            # One answer, and then a limit at once: more are to be tried again by then than the run has workers.
            went_down_again.append(key)
            raise RateLimited(status=429, retry_after=30.0)
        return key

    failed = failures(await take_all(fan_out(fetch, range(200), limit=16, patience=60), range(200)))
    attempted = {key for key in failed if asked[key]}
    assert len(attempted - set(went_down_again)) >= 1
    assert {key for key, error in failed.items() if type(error) is not NotAttempted} == attempted


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [40, 60])
@pytest.mark.parametrize("limit", [1, 64])
async def test_a_fixed_window_that_asks_for_more_than_a_call_waits_loses_nobody(seconds: int, limit: int) -> None:
    """60 requests a window, `Retry-After` the rest of it, longer than `RetryPolicy.longest`."""
    window: list[float] = [-1e9, 0]
    refused = [0]

    def answer(request: Request) -> Response:
        now = anyio.current_time()
        if now - window[0] >= seconds:
            window[:] = [now, 0]
        window[1] += 1
        if window[1] > 60:
            refused[0] += 1
            rest = window[0] + seconds - now
            return Response(429, {"retry-after": str(int(rest) + 1)}, b"{}")
        user = request.url.rpartition("/")[2]
        return Response(200, {}, b'{"user_id": "%s", "items": []}' % user.encode())

    ids = users(400)
    before = anyio.current_time()
    outcomes = await take_all(client(answer).stream_inventories(ids, limit=limit), ids)
    assert failures(outcomes) == {}
    took = anyio.current_time() - before
    assert took <= (400 / 60 + 2) * (seconds + 2)
    assert refused[0] <= 400


@pytest.mark.anyio
async def test_a_limit_that_asks_for_more_than_patience_ends_the_run_at_once() -> None:
    """Waiting for the half of it is no use."""
    api = client(lambda _: Response(429, {"retry-after": "86400"}, b"{}"))
    ids = users(500)
    before = anyio.current_time()
    failed = failures(await take_all(api.stream_inventories(ids), ids))
    assert len(failed) == 500
    assert {type(error) for error in failed.values()} == {RateLimited, NotAttempted}
    assert anyio.current_time() - before <= 25


@pytest.mark.anyio
async def test_a_user_whose_own_record_asks_for_an_hour_costs_the_run_no_patience() -> None:
    """Later in the run there is an outage of some seconds, and it is waited for."""
    server = Server((2, 8))

    async def answer(request: Request) -> Response:
        if request.url.endswith("/u3"):
            return Response(503, {"retry-after": "3600"}, b"{}")
        return await server(request)

    ids = users(500)
    outcomes = await take_all(client(answer).stream_inventories(ids, limit=2), ids)
    assert set(failures(outcomes)) == {"u3"}


# ---------------------------------------------------------------- sources, limits, and what is shown


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 5, 64])
@pytest.mark.parametrize("fails", [2, 5, 9])
async def test_few_failures_before_an_async_source_stalls_are_cleared_up_at_once(fails: int, limit: int) -> None:
    """Whether the server is up is found out while the source has nothing new, and not when it has."""
    goes_on = anyio.Event()
    failed_once: set[int] = set()

    async def keys() -> AsyncIterator[int]:
        for key in range(20):
            yield key
        await goes_on.wait()
        yield 20

    async def fetch(key: int) -> int:
        await anyio.sleep(0.01)
        if 20 - fails <= key < 20 and key not in failed_once:
            failed_once.add(key)
            raise ServerError(status=502)
        return key

    with no_task_left():
        async with fan_out(fetch, keys(), limit=limit) as run:
            taken = []
            with anyio.fail_after(60):
                for _ in range(20):
                    taken.append(await anext(run))  # noqa: PERF401 - one by one is what is tested.
            goes_on.set()
            taken += [outcome async for outcome in run]
    assert sorted(outcome.key for outcome in taken) == list(range(21))
    assert failures(taken) == {}


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 8])
async def test_an_outage_with_an_async_source_that_stalls_in_the_middle_of_it(limit: int) -> None:
    """The run waits for the server and for the source, and both come back."""
    server = Server((1, 11))
    ids = users(100)

    async def keys() -> AsyncIterator[str]:
        for number, user in enumerate(ids):
            if number % 10 == 9:
                await anyio.sleep(3)
            yield user

    api = client(server)
    with no_task_left():
        outcomes = await take_all(api.stream_inventories(keys(), limit=limit), ids)
    assert failures(outcomes) == {}
    assert server.now < 45


@pytest.mark.anyio
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_source_is_not_read_while_the_server_is_down(asynchronous: bool) -> None:
    """Keys that cannot be looked up stay where they are."""
    read: list[float] = []
    in_vain: list[int] = []
    server = Server((1, 11))

    def keys() -> Iterator[str]:
        for user in users(2000):
            read.append(server.now)
            yield user

    async def later() -> AsyncIterator[str]:
        for user in keys():
            yield user

    async def look() -> None:
        await anyio.sleep(9)
        in_vain.append(len(read) - len(server.asked))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        source = later() if asynchronous else keys()
        await take_all(client(server).stream_inventories(source, limit=16), users(2000))
    # A key may have been on its way when the outage began.
    assert in_vain[0] <= (1 if asynchronous else 0)
    assert [moment for moment in read if 3 < moment < 11] == []


@pytest.mark.anyio
async def test_an_outage_in_a_run_over_distinct_keys() -> None:
    """What is looked up again is the same key, not a repeated one."""
    server = Server((0.1, 5))
    ids = users(300)
    outcomes = await take_all(client(server).stream_inventories(ids * 3, distinct=True), ids)
    assert failures(outcomes) == {}


@pytest.mark.anyio
async def test_without_patience_every_failure_is_the_keys_own() -> None:
    """Nothing is waited for, nothing is looked up again."""
    ids = users(2000)
    server = Server((0.1, 10))
    api = client(server, retry=RetryPolicy(retries=0))
    outcomes = await take_all(api.stream_inventories(ids, patience=0), ids)
    failed = failures(outcomes)
    assert 1000 < len(failed) < 2000
    assert {type(error) for error in failed.values()} == {ServerError}
    assert set(server.asked.values()) == {1}
    assert server.now < 1


def is_warning(record: logging.LogRecord) -> bool:
    """Whether it is the one warning of an outage."""
    return record.levelno == logging.WARNING and "waits" in record.getMessage()


@pytest.mark.anyio
async def test_an_outage_shows_in_progress_and_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Two outages, two warnings, and `waiting` while they last."""
    caplog.set_level(logging.INFO, "phygitals_async")
    server = Server((1, 11), (20, 26))
    ids = users(4000)
    shown: dict[bool, list[float]] = {True: [], False: []}

    async def watch(run: FanOut[str, Any]) -> None:
        while True:
            shown[run.progress.waiting].append(server.now)
            await anyio.sleep(0.1)

    run = client(server).stream_inventories(ids, limit=5)
    assert not run.progress.waiting
    async with anyio.create_task_group() as group:
        group.start_soon(watch, run)
        await take_all(run, ids)
        group.cancel_scope.cancel()
    assert sum(map(is_warning, caplog.records)) == 2
    # The first failures in a row are no outage yet, and the last pause goes on for a moment.
    assert all(1 < moment < 16 or 20 < moment < 31 for moment in shown[True])
    assert sum(1 < moment < 16 for moment in shown[True]) > 70
    assert sum(20 < moment < 31 for moment in shown[True]) > 30
    assert not [moment for moment in shown[False] if 4 < moment < 10.9]


@pytest.mark.anyio
async def test_sick_keys_in_a_row_are_no_outage_to_tell_of(caplog: pytest.LogCaptureFixture) -> None:
    """It was found out at once that the server is up: nobody waited."""
    server = Server(sick=cluster(400, 40))
    run = client(server).stream_inventories(users(1000), limit=8)
    await take_all(run, users(1000))
    assert not any(map(is_warning, caplog.records))


@pytest.mark.anyio
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_memory_stays_flat_through_outages(asynchronous: bool) -> None:
    """However often the server goes away, the run keeps no more suspects than it has lookups, and some."""
    limit = 16
    server = Server(*((second, second + 3) for second in itertools.islice(itertools.count(1, 5), 20)))
    most = Counter[str]()

    def keys() -> Iterator[str]:
        for user in users(8_000):
            inner = run._workers
            suspects = len(inner._triage.outages.suspects)
            most["suspects"] = max(most["suspects"], suspects)
            most["again"] = max(most["again"], len(inner._triage.again))
            most["held"] = max(
                most["held"], suspects + len(inner._triage.again) + len(inner.queues.keys) + inner.queues._pending
            )
            yield user

    async def async_keys() -> AsyncIterator[str]:
        for user in keys():
            yield user

    run = client(server).stream_inventories(async_keys() if asynchronous else keys(), limit=limit)
    outcomes = await take_all(run, users(8_000))
    assert failures(outcomes) == {}
    assert most["suspects"] <= limit + 10
    assert most["again"] <= limit + 10
    assert most["held"] <= 4 * limit + 20
    assert not run._workers._triage.outages.suspects
    assert not run._workers._triage.again
    assert not run._workers.queues.keys
    assert run._workers.queues._pending == 0


@pytest.mark.anyio
async def test_a_refused_key_ends_an_outage() -> None:
    """A 401 to the probe is an answer, after which nobody is asked any more."""
    asked: Counter[int] = Counter()

    async def fetch(key: int) -> int:
        asked[key] += 1
        await anyio.sleep(0.1)
        if sum(asked.values()) > 40:
            raise AuthenticationError(status=401)
        if sum(asked.values()) > 20:
            raise ServerError(status=502)
        return key

    before = anyio.current_time()
    outcomes = await take_all(fan_out(fetch, range(1000), limit=4), range(1000))
    failed = failures(outcomes)
    assert {type(error) for error in failed.values()} == {ServerError, NotAttempted}
    assert all(type(e.__cause__) is AuthenticationError for e in failed.values() if type(e) is NotAttempted)
    assert all((type(error) is NotAttempted) is (asked[key] == 0) for key, error in failed.items())
    assert anyio.current_time() - before < 100


@pytest.mark.anyio
@pytest.mark.parametrize("answered", [0, 20])
@pytest.mark.parametrize("retries", [0, 2])
async def test_a_client_that_is_closed_ends_an_outage(answered: int, retries: int) -> None:
    """No patience is spent on a client that will not send any more.

    It is closed while the run pauses, or while the probe does between its own repeats.
    """
    server = Server((0, 1e9) if answered == 0 else (0.2, 1e9))
    api = client(server, retry=RetryPolicy(retries=retries))
    ids = users(300)
    before = anyio.current_time()

    async def close() -> None:
        await anyio.sleep(5)
        await api.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        failed = failures(await take_all(api.stream_inventories(ids, limit=4), ids))
        assert {type(error) for error in failed.values()} == {ClientClosed}
        assert anyio.current_time() - before < 10


@pytest.mark.anyio
async def test_an_answer_that_was_long_in_coming_ends_an_outage_at_once() -> None:
    """Whoever waits for its end goes on, and not only when the pause before the next probe is over; nobody is lost."""
    began = anyio.current_time()
    started: list[tuple[int, float]] = []
    answers_at = 20.0

    async def fetch(key: int) -> int:
        now = anyio.current_time() - began
        started.append((key, now))
        if key == 5:
            await anyio.sleep(max(answers_at - now, 0))
        elif now < answers_at - 0.001:
            await anyio.sleep(0.01)
            raise ServerError(status=502)
        else:
            await anyio.sleep(100)
        return key

    outcomes = await take_all(fan_out(fetch, range(200), limit=4), range(200))
    assert failures(outcomes) == {}
    # Its own worker and those that waited; the fourth is the one that probes.
    at_once = [key for key, moment in started if moment == pytest.approx(answers_at)]
    assert len(at_once) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("sick", [["u99"], ["u98", "u99"]])
async def test_one_or_two_sick_keys_at_the_end_cost_nothing_more(sick: list[str]) -> None:
    """Neither a probe nor a second lookup."""
    server = Server(sick=sick)
    ids = users(100)
    outcomes = await take_all(client(server).stream_inventories(ids, limit=1), ids)
    assert set(failures(outcomes)) == set(sick)
    assert server.asked == Counter({**dict.fromkeys(ids, 1), **dict.fromkeys(sick, 3)})


@pytest.mark.anyio
async def test_keys_that_cannot_be_sent_show_nothing_of_the_server() -> None:
    """Every other id is no id: an outage is found out all the same."""
    server = Server((1, 11))
    keys = [key for user in users(1000) for key in (user, "..")]
    async with client(server).stream_inventories(keys, limit=4) as run:
        outcomes = [outcome async for outcome in run]
    assert Counter(outcome.key for outcome in outcomes) == Counter(keys)
    assert Counter(type(o.error) for o in outcomes if isinstance(o, Failed)) == {InvalidArgumentError: 1000}


@pytest.mark.anyio
async def test_where_nobody_is_left_to_ask_the_outage_is_over() -> None:
    """The only key that failed is given up for its age, and what was answered has moved money and is no probe."""
    asked = 0
    api = client(lambda _: Response(200, {}, b'{"session_id": "s"}'))

    async def fetch(key: int) -> None:
        nonlocal asked
        if key == 1:
            await api.start_purchase("p", 1, "u")
            return
        asked += 1
        if asked < 3:
            raise RateLimited(status=429, retry_after=60.0)
        raise ConnectionLost("reset")

    before = anyio.current_time()
    failed = failures(await take_all(fan_out(fetch, [0, 1], limit=1, patience=100), [0, 1]))
    assert {key: type(error) for key, error in failed.items()} == {0: ConnectionLost}
    assert asked == 3
    assert 120 <= anyio.current_time() - before < 155


# ---------------------------------------------------------------- what has moved money


class Shop:
    """Sells to everybody, and then is down for readers."""

    def __init__(self, readers_down: Callable[[], bool], *, sick: Iterable[str] = ()) -> None:
        self.bought: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self._down = readers_down
        self._sick = frozenset(sick)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        await anyio.sleep(0.02)
        if request.method == "POST":
            user = request.body.decode().partition('"user_id":"')[2].partition('"')[0] if request.body else ""
            self.bought[user] += 1
            return Response(200, {}, b'{"session_id": "s"}')
        user = request.url.rpartition("/")[2]
        self.read[user] += 1
        if self._down() or user in self._sick:
            return Response(502, {}, b"")
        return Response(200, {}, b'{"user_id": "%s", "items": []}' % user.encode())


async def buy_then_read(api: PhygitalsClient, user: str) -> None:
    """Buy, and look at what was bought."""
    await api.start_purchase("p", 1, user)
    await api.get_inventory(user)


async def buy_in_a_task(api: PhygitalsClient, user: str) -> None:
    """Buy in a task of the lookup's."""
    async with anyio.create_task_group() as group:
        group.start_soon(api.start_purchase, "p", 1, user)
    await api.get_inventory(user)


async def buy_in_a_run(api: PhygitalsClient, user: str) -> None:
    """Buy in a bulk run within the lookup, before reading."""

    async def buy(pack: str) -> object:
        return await api.start_purchase(pack, 1, user)

    batch = await fan_out_all(buy, ["p"])
    batch.raise_failures()
    await api.get_inventory(user)


async def buy_in_a_run_within_a_run(api: PhygitalsClient, user: str) -> None:
    """Two runs deep."""

    async def inner(pack: str) -> object:
        return await fan_out_all(lambda pack: api.start_purchase(pack, 1, user), [pack])

    await fan_out_all(inner, ["p"])
    await api.get_inventory(user)


BUYERS = [buy_then_read, buy_in_a_task, buy_in_a_run, buy_in_a_run_within_a_run]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 16])
@pytest.mark.parametrize("buy", BUYERS)
async def test_a_lookup_that_has_moved_money_is_never_made_again(
    buy: Callable[[PhygitalsClient, str], Awaitable[None]], limit: int
) -> None:
    """Neither after an outage, nor to find out whether there is one: one purchase for each user."""
    began = anyio.current_time()
    shop = Shop(lambda: 1 < anyio.current_time() - began < 11, sick=["u3", "u4", "u5"])
    api = client(shop)
    ids = users(400)
    outcomes = await take_all(fan_out(lambda user: buy(api, user), ids, limit=limit), ids)
    assert set(shop.bought) == set(ids)
    assert set(shop.bought.values()) == {1}
    assert 3 < len(failures(outcomes)) < 400


@pytest.mark.anyio
@pytest.mark.parametrize("buy", BUYERS)
async def test_a_lookup_that_has_moved_money_is_no_probe(
    buy: Callable[[PhygitalsClient, str], Awaitable[None]],
) -> None:
    """Others in the same run are mere reads, and meet an outage: what is asked again is one of them."""
    began: list[float] = []
    shop = Shop(lambda: bool(began) and anyio.current_time() - began[0] < 10)
    api = client(shop)
    ids = users(600)
    # The last to be answered before the outage has bought something.
    buyers = frozenset(ids[:200]) - {"u0"}

    async def fetch(user: str) -> None:
        if user in buyers:
            await buy(api, user)
        else:
            if user != "u0" and not began:
                began.append(anyio.current_time())
            await api.get_inventory(user)

    outcomes = await take_all(fan_out(fetch, ids, limit=8), ids)
    # Some of the last buyers may have met the outage.
    assert failures(outcomes).keys() <= buyers
    assert shop.bought == Counter(buyers)
    assert shop.read["u0"] > 3


@pytest.mark.anyio
async def test_a_purchase_that_only_waits_to_be_sent_may_be_looked_up_again() -> None:
    """What the lookup has not sent cannot have moved anything."""
    began = anyio.current_time()
    shop = Shop(lambda: anyio.current_time() - began < 10)
    api = client(shop)

    async def fetch(user: str) -> None:
        await api.get_inventory(user)
        await api.start_purchase("p", 1, user)

    ids = users(100)
    assert failures(await take_all(fan_out(fetch, ids, limit=8), ids)) == {}
    assert shop.bought == Counter(ids)


@pytest.mark.anyio
async def test_an_unknown_outcome_shows_nothing_of_the_server() -> None:
    """A purchase that was answered by 502 does not end an outage that the others are in."""

    async def answer(request: Request) -> Response:
        await anyio.sleep(0.02)
        return Response(502, {}, b"")

    api = client(answer)

    async def fetch(key: int) -> None:
        if key % 2:
            await api.start_purchase("p", 1, "u")
        await api.get_inventory("u")

    run = fan_out(fetch, range(400), limit=4, patience=30)
    async with run as taken:
        async for _ in taken:
            pass
    assert run.progress.failed == 400
    # Of 200 purchases hardly any was tried: the run had found out before that the server is down.
    assert run.progress.attempts < 150


# ---------------------------------------------------------------- any plan


class Plan:
    """What becomes of each lookup: by the key, by how often it was looked up, and by when.

    Attributes:
        lookups: How often each key was looked up.
        met: Keys that met an outage.
    """

    def __init__(self, kinds: list[tuple[str, int]], outages: list[tuple[float, float]]) -> None:
        self.lookups: Counter[int] = Counter()
        self.met: set[int] = set()
        self._kinds = kinds
        self._outages = outages
        self._began: float | None = None

    async def __call__(self, key: int) -> tuple[int, int]:
        """Look a key up."""
        kind, number = self._kinds[key]
        self.lookups[key] += 1
        lookup = self.lookups[key]
        self._began = anyio.current_time() if self._began is None else self._began
        await anyio.sleep((key % 3) * 0.05)
        now = anyio.current_time() - self._began
        if any(start <= now < start + seconds for start, seconds in self._outages):
            self.met.add(key)
            raise (ConnectError("down"), ConnectionLost("down"), ServerError(status=502))[key % 3]
        if kind == "refused":
            raise UserNotFound(status=404)
        if kind == "sick" or (kind == "fails" and lookup <= number):
            raise ServerError(status=500)
        return key, lookup


KINDS = st.one_of(
    st.tuples(st.just("found"), st.just(0)),
    st.tuples(st.sampled_from(["found", "refused", "sick"]), st.just(0)),
    st.tuples(st.just("fails"), st.integers(1, 4)),
)
PLANS = st.one_of(
    st.lists(KINDS, max_size=60),
    # Runs of the same, as sick keys come where they were made together.
    st.lists(st.tuples(KINDS, st.integers(1, 30)), max_size=8).map(
        lambda runs: [kind for kind, times in runs for _ in range(times)]
    ),
)
OUTAGES = st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 40)), max_size=3)
PAUSES = st.dictionaries(st.integers(0, 60), st.floats(0, 5), max_size=4)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=PLANS,
    outages=OUTAGES,
    limit=st.integers(1, 20),
    asynchronous=st.booleans(),
    source_pauses=PAUSES,
    consumer_pauses=PAUSES,
    patience=st.sampled_from([0.0, 5.0, 300.0]),
    seed=st.integers(0, 3),
)
def test_every_key_has_exactly_one_outcome_whatever_happens(
    backend: str,
    kinds: list[tuple[str, int]],
    outages: list[tuple[float, float]],
    limit: int,
    asynchronous: bool,
    source_pauses: dict[int, float],
    consumer_pauses: dict[int, float],
    patience: float,
    seed: int,
) -> None:
    """It is the right one, no task is left, and the run ends."""
    plan = Plan(kinds, outages)
    keys = range(len(kinds))

    async def slow_keys() -> AsyncIterator[int]:
        for key in keys:
            if key in source_pauses:
                await anyio.sleep(source_pauses[key])
            yield key

    async def main() -> list[Outcome[int, tuple[int, int]]]:
        taken: list[Outcome[int, tuple[int, int]]] = []
        run = fan_out(plan, slow_keys() if asynchronous else keys, limit=limit, patience=patience)
        with no_task_left():
            async with run as outcomes:
                async for outcome in outcomes:
                    taken.append(outcome)
                    if len(taken) in consumer_pauses:
                        await anyio.sleep(consumer_pauses[len(taken)])
        assert (run.progress.done, run.progress.in_flight, run.progress.waiting) == (len(kinds), 0, False)
        return taken

    outcomes = run_virtually(main, backend, seed=seed)
    assert Counter(outcome.key for outcome in outcomes) == Counter(keys)
    for outcome in outcomes:
        kind, number = kinds[outcome.key]
        lookups = plan.lookups[outcome.key]
        if isinstance(outcome, Found):
            assert kind in ("found", "fails")
            found, lookup = outcome.value
            assert found == outcome.key
            # It succeeded once: whatever came later was a probe, and was not given out.
            assert number < lookup <= lookups
        elif type(outcome.error) is NotAttempted:
            assert lookups == 0
            assert outages or kinds[0][0] in ("sick", "fails")
        elif type(outcome.error) is UserNotFound:
            assert kind == "refused"
        elif kind == "found":
            assert outcome.key in plan.met
        if patience == 0 and kind != "found":
            assert lookups <= 1

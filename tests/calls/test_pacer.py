"""How fast an operation's requests leave, against simulated servers, in virtual time."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.throttling_server import Bucket, FixedWindow, Run, Server, Unlimited
from phygitals_async._calls.pacer import Pacer

# What the header says: nothing, or so many seconds.
HEADERS = [None, 1.0]
LATENCIES = [0.002, 0.05]


def server(limit: Bucket | Unlimited, latency: float, header: float | None, noise: float = 0.0) -> Server:
    """Return a server whose `Retry-After` always says the same."""
    return Server(limit, latency, noise=noise, retry_after=None if header is None else lambda _: header)


def runs(limit: tuple[float, float], latency: float, header: float | None, lookups: int, number: int = 5) -> list[Run]:
    """Return finished runs against new servers, which differ in the jitter."""
    made = []
    for seed in range(number):
        run = Run(server(Bucket(*limit), latency, header), seed=seed)
        run.lookups(lookups)
        made.append(run)
    return made


# --- the pacer by itself ----------------------------------------------------------------------------------------------


def burst(pacer: Pacer, number: int, *, at: float = 10.0, refused: int = 1, retry_after: float | None = None) -> None:
    """Send requests at once, of which the last are refused, 1 ms later."""
    for _ in range(number + refused):
        pacer.take(at)
    for _ in range(number):
        pacer.accepted(at + 0.001, at)
    for count in range(refused):
        assert pacer.throttled(at + 0.001, at, retry_after) is (count == 0)


def leave(pacer: Pacer, now: float) -> float:
    """Send at the next free moment, as whoever waits for it does."""
    while pacer.due(now) > now:
        now = pacer.due(now)
    pacer.take(now)
    return now


def ramp(pacer: Pacer, number: int, now: float) -> float:
    """Send so many requests, one after the other, all of them accepted at once, and return when the last one left."""
    for _ in range(number):
        now = leave(pacer, now)
        pacer.accepted(now, now)
    return now


def test_there_is_no_pace_before_the_first_429() -> None:
    """Requests leave as they come."""
    pacer = Pacer()
    for _ in range(100):
        assert pacer.due(1.0) <= 1.0
        assert pacer.spacing_due(1.0) <= 1.0
        pacer.take(1.0)
        pacer.accepted(1.0, 1.0)
    assert pacer.rate is None
    assert not pacer.is_measured


def test_the_window_doubles_with_each_round_trip_until_the_pace_takes_over() -> None:
    """Bulk requests do not burst into an unknown limit."""
    pacer = Pacer()
    sizes = []
    for _ in range(4):
        sizes.append(pacer.window)
        for _ in range(int(pacer.window)):
            pacer.take(1.0)
            pacer.accepted(1.0, 1.0)
    assert sizes == [4, 8, 16, 32]
    pacer.throttled(1.0, 1.0, None)
    assert pacer.window == math.inf


def test_one_burst_of_429s_is_reacted_to_once() -> None:
    """Requests that were on their way at the first 429 tell nothing new."""
    pacer = Pacer()
    burst(pacer, 20, refused=30)
    assert pacer.resumes == pytest.approx(10.201)
    now = ramp(pacer, 1, 10.2)
    assert pacer.throttled(now, now, None)


def test_the_server_names_the_pause_and_a_longer_one_of_the_same_burst_counts() -> None:
    """A shorter one, or none, changes nothing."""
    pacer = Pacer()
    burst(pacer, 20, retry_after=1.0)
    assert pacer.due(10.5) == pytest.approx(11.001)
    assert not pacer.throttled(10.1, 9.9, 3.0)
    assert not pacer.throttled(10.2, 9.9, 0.5)
    assert not pacer.throttled(10.3, 9.9, None)
    assert pacer.resumes == pytest.approx(13.1)
    assert leave(pacer, 10.3) == pytest.approx(13.1)


def test_a_pause_of_nothing_is_a_short_one() -> None:
    """`Retry-After: 0` must not make a storm."""
    pacer = Pacer()
    burst(pacer, 20, retry_after=0.0)
    assert pacer.resumes == pytest.approx(10.201)


def test_a_pause_in_force_is_never_cut_short() -> None:
    """Not by news with a shorter one either."""
    pacer = Pacer()
    burst(pacer, 20, retry_after=60.0)
    assert pacer.throttled(10.5, 10.4, 1.0)
    assert pacer.resumes == pytest.approx(70.001)


def test_the_spacing_ignores_the_pause() -> None:
    """Visitors from other operations keep the pace, and no pause that is not theirs."""
    pacer = Pacer()
    burst(pacer, 20, retry_after=60.0)
    assert pacer.due(11.0) == pytest.approx(70.001)
    assert pacer.spacing_due(11.0) <= 11.0
    pacer.take(11.0)
    assert pacer.spacing_due(11.0) > 11.0


def test_pauses_grow_while_nothing_is_accepted_and_start_again_after() -> None:
    """The server that refuses everything is asked less and less, but never less than every few seconds."""
    pacer = Pacer()
    now, pauses = 1.0, []
    for _ in range(1000):
        assert pacer.throttled(now, now, None)
        pauses.append(pacer.resumes - now)
        now = leave(pacer, now) + 0.001
    assert pauses == pytest.approx([0.2, 0.8, 3.2] + [5.0] * 997)
    assert pacer.rate == 0.5
    assert not pacer.is_measured
    pacer.accepted(now, now)
    assert pacer.throttled(now + 1, now + 1, None)
    assert pacer.resumes == pytest.approx(now + 1.2)


def test_after_a_429_nobody_asks_sooner_than_one_interval() -> None:
    """A pause shorter than the time the server takes for one request would be for nothing."""
    pacer = Pacer()
    burst(pacer, 1)
    now = leave(pacer, 10.0)
    assert pacer.throttled(now, now, None)
    assert pacer.throttled(now + 2, now + 2, None)
    sent = leave(pacer, now + 2)
    assert pacer.rate is not None
    assert sent - (now + 2) >= 1 / pacer.rate


def test_the_ramp_starts_slowly_and_speeds_up_with_each_answer() -> None:
    """From a few times the bucket a second, by at most half each time; answers that came late add nothing."""
    pacer = Pacer()
    burst(pacer, 20)
    now = ramp(pacer, 1, 10.0)
    assert now == pytest.approx(10.201, abs=0.1)
    rates = []
    for _ in range(20):
        rates.append(pacer.rate or 0.0)
        now = ramp(pacer, 1, now)
    assert 55 <= rates[0] <= 95
    assert rates[-1] > 2 * rates[0]
    assert all(1 < later / sooner <= 1.5 for sooner, later in itertools.pairwise(rates))
    before = pacer.rate
    pacer.accepted(now, 10.0)
    assert pacer.rate == before


def test_a_client_that_does_not_use_the_rate_is_not_given_more() -> None:
    """An answer proves a rate only if requests left at that rate."""
    pacer = Pacer()
    burst(pacer, 20)
    now = ramp(pacer, 1, 10.0)
    for _ in range(500):
        now += 0.5
        assert pacer.due(now) <= now
        pacer.take(now)
        pacer.accepted(now, now)
    assert pacer.rate is not None
    assert pacer.rate < 200


@pytest.mark.parametrize(("first_burst", "least", "most"), [(200, 20, 31), (10, 1, 1), (3, 1, 1)])
def test_whoever_wakes_up_late_catches_up_but_not_on_slow_servers(first_burst: int, least: int, most: int) -> None:
    """Some 50 ms of requests, less one interval."""
    pacer = Pacer()
    burst(pacer, first_burst)
    now = leave(pacer, 10.0) + 0.6
    sent = 0
    while pacer.due(now) <= now:
        pacer.take(now)
        sent += 1
    assert least <= sent <= most


def test_news_in_a_pause_does_not_lose_what_the_last_news_said() -> None:
    """A visitor may send in a pause, and be refused."""
    pacer = Pacer()
    burst(pacer, 20)
    assert pacer.throttled(10.1, 10.09, None)
    leave(pacer, 10.2)
    assert pacer.rate is not None
    assert 20 < pacer.rate < 50


def test_a_bucket_found_empty_after_a_rest_gives_no_credit() -> None:
    """Somebody else has used it: requests leave one by one again."""
    run = known()
    run.now += 30
    pacer, now = run.pacer, leave(run.pacer, run.now)
    assert pacer.due(now) <= now
    assert pacer.throttled(now + 0.001, now, None)
    now = leave(pacer, now)
    assert leave(pacer, now) > now + 0.005


def test_an_outage_is_not_a_limit() -> None:
    """Nothing is known after it, but what the server bears is found again within seconds."""
    run = known()
    pacer, now = run.pacer, run.now
    for _ in range(6):
        now = leave(pacer, now)
        assert pacer.throttled(now + 0.001, now, None)
    leave(pacer, now)
    assert not pacer.is_measured
    assert pacer.rate is not None
    assert pacer.rate < 10
    run.now = now = pacer.resumes
    run.lookups(10**6, until=now + 15)
    assert run.throughput(now + 10, now + 15) >= 170


def test_the_same_burst_may_be_answered_in_any_order() -> None:
    """What is accepted counts, whether it is answered before the 429 or after it."""
    rates = []
    for early in (0, 10, 20):
        pacer = Pacer()
        for _ in range(21):
            pacer.take(10.0)
        for count in range(20):
            if count == early:
                assert pacer.throttled(10.001, 10.0, None)
            pacer.accepted(10.001, 10.0)
        if early == 20:
            assert pacer.throttled(10.001, 10.0, None)
        leave(pacer, 10.1)
        rates.append(pacer.rate)
    assert rates[0] == rates[1] == rates[2]


def test_a_slow_stream_before_the_first_429_is_no_measure() -> None:
    """Calls now and then, then a burst into the limit: its rate is sought, not taken for that of the calls."""
    pacer = Pacer()
    for number in range(2000):
        pacer.take(number / 2)
        pacer.accepted(number / 2, number / 2)
    burst(pacer, 20, at=1000.0)
    leave(pacer, 1000.1)
    assert pacer.rate is not None
    assert pacer.rate > 20


def test_a_steady_stream_before_the_first_429_is_a_measure() -> None:
    """It went well at that rate for seconds."""
    pacer = Pacer()
    for number in range(500):
        pacer.take(1 + number / 100)
        pacer.accepted(1 + number / 100, 1 + number / 100)
    assert pacer.throttled(6.0, 6.0, None)
    leave(pacer, 6.1)
    assert pacer.rate == pytest.approx(100, rel=0.02)
    assert not pacer.is_measured


def test_a_burst_after_a_rest_is_measured_by_itself() -> None:
    """The calls of a minute ago say nothing of the limit."""
    rates = []
    for calls in (0, 500):
        pacer = Pacer()
        for number in range(calls):
            pacer.take(1 + number / 100)
            pacer.accepted(1 + number / 100, 1 + number / 100)
        burst(pacer, 20, at=60.0)
        leave(pacer, 60.1)
        rates.append(pacer.rate)
    assert rates[0] == rates[1]


def known(per_second: float = 200.0, bucket: float = 20.0, header: float | None = None) -> Run:
    """Return a run that knows its server."""
    run = Run(server(Bucket(per_second, bucket), 0.002, header))
    run.lookups(10**6, until=10.0)
    assert run.pacer.is_measured
    return run


def test_the_first_ramp_measures_the_rate() -> None:
    """Within 3 %, although the server's bucket was full half of the time."""
    for per_second, bucket, latency in (
        (50, 10, 0.002),
        (200, 20, 0.002),
        (200, 100, 0.002),
        (200, 200, 0.05),
        (1000, 50, 0.002),
    ):
        run = Run(Server(Bucket(per_second, bucket), latency))
        run.lookups(10**6, until=2.0)
        assert run.pacer.is_measured
        assert run.pacer.rate == pytest.approx(0.985 * per_second, rel=0.03)


def test_a_known_rate_grows_rarely_and_gently() -> None:
    """Half a minute below the limit, then a little above it; each 429 begins that again."""
    run = known()
    first = len(run.reactions)
    run.lookups(10**6, until=130.0)
    assert 2 <= len(run.reactions) - first <= 6
    assert all(later - sooner > 15 for sooner, later in itertools.pairwise(run.reactions[first:]))
    assert run.throughput(10, 130) == pytest.approx(200, rel=0.015)


def test_a_rest_fills_the_bucket_and_is_no_time_of_the_measure() -> None:
    """Some requests may leave at once then, and neither the growth nor the measure counts the rest."""
    run = known()
    before = run.pacer.rate
    refused = len(run.refused)
    for _ in range(20):
        run.now += 20.0
        begin = run.now
        run.lookups(40)
        assert 5 <= sum(sent == begin for sent in run.sent) <= 12
    assert len(run.refused) == refused
    assert run.pacer.rate == pytest.approx(before, rel=0.03)
    run.lookups(10**6, until=run.now + 40)
    assert len(run.refused) > refused
    assert run.pacer.rate == pytest.approx(200, rel=0.03)


def test_a_limit_is_a_hint_after_an_hour() -> None:
    """It may be another one: the rate grows three times as fast as if it was known."""
    risen = []
    for rest in (30.0, 3600.0):
        run = known()
        run.server = Server(Bucket(100_000, 1000, at=0.0))
        run.now += rest
        run.lookups(10**6, until=run.now + 17)
        risen.append((run.pacer.rate or 0.0) / 200)
    assert risen[0] < 1.05
    assert risen[1] > 1.1


def test_nothing_accepted_after_a_rest_in_the_ramp_halves_the_rate() -> None:
    """What little was accepted then was in the bucket, and says nothing of the rate."""
    pacer = Pacer()
    burst(pacer, 20)
    now = ramp(pacer, 5, 10.0) + 5.0
    before = pacer.rate
    now = ramp(pacer, 3, now)
    assert pacer.throttled(now + 0.001, now + 0.0005, None)
    leave(pacer, now + 0.1)
    assert before is not None
    assert pacer.rate is not None
    assert before / 4 < pacer.rate < before


def test_a_429_in_a_slow_stream_during_the_ramp_halves_the_rate() -> None:
    """After a rest the bucket may have let them all in: what a client asks for is not what the server bears."""
    pacer = Pacer()
    burst(pacer, 20)
    now = ramp(pacer, 5, 10.0) + 5.0
    for _ in range(30):
        now = ramp(pacer, 1, now) + 0.9
    before = pacer.rate
    assert before is not None
    pacer.take(now)
    assert pacer.throttled(now + 0.001, now, None)
    leave(pacer, now + 0.1)
    assert pacer.rate == pytest.approx(before / 2)


@pytest.mark.parametrize("began", [0.5, 1000.0])
def test_half_of_the_bucket_may_leave_at_once_after_a_pause_that_fills_it(began: float) -> None:
    """Less one; also where the clock has been running for no longer than the pause."""
    pacer = Pacer()
    burst(pacer, 20, at=began)
    now = ramp(pacer, 60, began)
    pacer.take(now)
    assert pacer.throttled(now + 0.001, now, min(now, 3.0))
    now = pacer.resumes
    at_once = 0
    while pacer.due(now) <= now:
        pacer.take(now)
        at_once += 1
    assert pacer.is_measured
    # The moment that has come anyhow is one more.
    assert at_once == (20 // 2 - 1) + 1


def test_a_stray_429_in_a_slow_stream_does_not_cost_the_known_rate() -> None:
    """What a client asks for is not what the server bears."""
    run = known()
    run.lookups(60, every=0.25)
    now, before = run.now, run.pacer.rate
    assert before is not None
    run.pacer.take(now)
    assert run.pacer.throttled(now + 0.001, now, None)
    leave(run.pacer, now + 0.1)
    assert run.pacer.rate is not None
    assert 0.95 * before < run.pacer.rate < before


def test_a_429_that_contradicts_what_is_known_costs_its_share_and_is_soon_made_up_for() -> None:
    """One in thirty takes a thirtieth. Then the first answer adds a tenth, each a thousandth, each second a fifth."""
    run = known()
    pacer, before = run.pacer, run.pacer.rate
    assert before is not None
    now = ramp(pacer, 30, run.now + 5.0)
    assert pacer.throttled(now + 0.001, now + 0.0005, None)
    now = leave(pacer, now)
    assert pacer.rate == pytest.approx(before * 29 / 30, rel=0.01)
    begin = now = ramp(pacer, 1, now)
    rate = pacer.rate
    assert rate is not None
    assert rate == pytest.approx(before * 29 / 30 * 1.1, rel=0.01)
    now = ramp(pacer, 200, now)
    assert pacer.rate == pytest.approx(rate * math.exp((now - begin) / 5) * 1.001**200, rel=0.03)


def test_a_long_run_is_remembered_in_little_memory() -> None:
    """And answers that come in another order change nothing."""
    run = known(1000, 50)
    run.lookups(10**6, until=25.0)
    assert run.pacer._ledger.count > 10_000
    assert len(run.pacer._ledger.marks) <= 128


happenings = st.lists(
    st.tuples(
        st.sampled_from(["take", "visit", "ok", "429"]),
        st.floats(0, 100) | st.floats(0, 0.1),
        st.none() | st.floats(0, 20),
    ),
    max_size=200,
)


@given(happenings)
def test_whatever_happens_the_rate_stays_sane_and_pauses_are_kept(
    events: list[tuple[str, float, float | None]],
) -> None:
    """Moments only move on, and there always is a next one."""
    pacer, now, flying = Pacer(), 1.0, [1.0]
    for what, passed, retry_after in events:
        now += round(passed, 4)
        if what == "take":
            now = leave(pacer, now)
            assert now >= pacer.resumes
            flying.append(now)
        elif what == "visit":
            pacer.take(max(now, pacer.spacing_due(now)))
        elif what == "ok":
            pacer.accepted(now, flying[-1])
        else:
            asked = pacer.resumes
            pacer.throttled(now, flying.pop(0) if len(flying) > 1 else flying[0], retry_after)
            assert pacer.resumes >= max(asked, now + (retry_after or 0.0) if retry_after else asked)
        assert pacer.rate is None or 0.5 <= pacer.rate < 1e7
        assert pacer.due(now) <= max(now, pacer.resumes) + 100.1


# --- against simulated servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("header", HEADERS)
def test_6000_lookups_at_200_a_second(latency: float, header: float | None) -> None:
    """Within 10 % of the ideal, typically, with 2 % of 429; each pause the server asks for costs 3 % of the time."""
    made = runs((200, 20), latency, header, 6000)
    ratios = [run.now / (5980 / 200) for run in made]
    assert statistics.median(ratios) <= 1.10
    assert max(ratios) <= 1.15
    assert max(run.share_refused for run in made) <= 0.02


@pytest.mark.parametrize(
    ("latency", "header", "ratio"), [(0.002, None, 1.08), (0.05, None, 1.13), (0.002, 1.0, 1.27), (0.05, 1.0, 1.4)]
)
def test_1600_lookups_at_200_a_second_and_again_after_an_hour(
    latency: float, header: float | None, ratio: float
) -> None:
    """Two pauses of a second (begin and end of the ramp) are 23 % by themselves; the second run has none of that."""
    first, second = [], []
    for run in runs((200, 20), latency, header, 1600):
        first.append(run.now / (1580 / 200))
        run.now += 3600
        second.append(run.lookups(1600) / (1580 / 200))
    assert max(first) <= ratio
    assert statistics.median(second) <= 1.06
    assert max(second) <= 1.15


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("header", [None, 1.0, 5.0])
@pytest.mark.parametrize("per_second", [1, 2, 5])
@pytest.mark.parametrize("bucket", [1, 2, 5])
def test_slow_servers(per_second: int, bucket: int, header: float | None, latency: float) -> None:
    """Two minutes: 64 callers against one request a second, with hardly more than the first burst of 429."""
    for run in (Run(server(Bucket(per_second, bucket), latency, header), seed=seed) for seed in range(3)):
        run.lookups(10**6, until=120.0)
        # What a pause of 5 s costs more than the bucket can store is the server's doing.
        lost = len(run.reactions) * max((header or 0.0) - bucket / per_second, 0.0) if header == 5.0 else 0.0
        assert len(run.accepted) >= 0.8 * per_second * (120 - lost)
        assert run.share_refused <= 0.106


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("per_second", [20, 200, 1000])
@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.5, 1.0])
def test_any_bucket(per_second: int, seconds: float, latency: float) -> None:
    """Half a minute's requests, within 15 % of the ideal."""
    lookups = int(per_second * (30 + seconds))
    for run in runs((per_second, per_second * seconds), latency, None, lookups, 2):
        assert run.now / max(30, lookups * latency * 1.1 / 64) <= 1.15
        assert run.share_refused <= 0.05


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_bucket_of_one_at_20_a_second(latency: float) -> None:
    """Jitter alone makes it refuse: with 50 ms of latency, that is as long as the interval, a quarter is lost."""
    for run in runs((20, 1), latency, None, 601, 3):
        assert run.now / 30 <= (1.15 if latency == 0.002 else 1.3)
        assert run.share_refused <= 0.03


def test_very_slow_servers() -> None:
    """18 a minute: a limit once measured is kept to, however low it is."""
    run = Run(Server(Bucket(0.3, 3), 0.05))
    run.lookups(10**6, until=600)
    assert len(run.accepted) >= 0.8 * 0.3 * 600
    assert run.share_refused <= 0.15


@pytest.mark.parametrize("latency", LATENCIES)
def test_a_fixed_window(latency: float) -> None:
    """60 per 40 s: 130 requests need three windows, and the first two end with a burst of 429."""
    run = Run(Server(FixedWindow(60, 40), latency, retry_after=lambda wait: int(wait) + 1))
    assert run.lookups(130) <= 82
    assert len(run.accepted) == 130
    assert len(run.reactions) <= 3
    assert sum(moment > 1 for moment in run.refused) <= 64


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("at", [0.0, 0.005, 0.01, 0.1, 1.5, 10.0])
def test_a_stray_429_costs_3_seconds_at_most(at: float, header: float | None) -> None:
    """64 in flight of 22 ms make 2,650 a second, and again soon after a single 429."""
    run = Run(server(Unlimited([at]), 0.022, header))
    run.lookups(10**6, until=at + 5)
    assert len(run.refused) == 1
    (reaction,) = run.reactions
    assert run.throughput(reaction + 2.5, reaction + 3.5) >= 0.9 * 64 / 0.0242


def test_without_429s_nothing_waits() -> None:
    """Only the first round trips have a window."""
    run = Run(Server(Unlimited(), 0.022))
    assert run.lookups(20_000) <= 1.02 * 20_000 / 64 * 0.0242


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("header", HEADERS)
def test_a_limit_that_drops_and_rises_is_followed(latency: float, header: float | None) -> None:
    """Half the limit within 5 s, four times as much in about a minute."""
    bucket = Bucket(200, 20)
    run = Run(server(bucket, latency, header))
    run.lookups(10**6, until=15)
    bucket.per_second = 100
    refused = len(run.refused)
    run.lookups(10**6, until=30)
    assert run.throughput(5, 15) >= 0.93 * 200
    assert run.throughput(20, 30) >= 0.93 * 100
    assert len(run.refused) - refused <= 40
    bucket.per_second = 400
    run.lookups(10**6, until=110)
    assert run.throughput(100, 110) >= 0.85 * 400


@pytest.mark.parametrize("latency", LATENCIES)
def test_random_429s_do_not_spiral_the_rate_down(latency: float) -> None:
    """1 % of them: pauses of 0.2 s for 100 requests leave 143 of 200 a second; most of that stays."""
    late = []
    for seed in range(4):
        run = Run(server(Bucket(200, 20), latency, None, noise=0.01), seed=seed)
        run.lookups(10**6, until=60)
        late.append(run.throughput(30, 60))
        assert run.share_refused <= 0.07
    assert statistics.median(late) >= 100
    assert min(late) >= 60

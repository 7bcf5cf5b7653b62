"""What is tried again, after how long, and what never is."""

from __future__ import annotations

import logging
import math
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from phygitals_async import (
    AuthenticationError,
    BadRequest,
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Failed,
    InvalidArgumentError,
    Inventory,
    OutcomeUnknown,
    OutOfStock,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RateLimited,
    RedirectRefused,
    Request,
    Response,
    ResponseTooLarge,
    RetryPolicy,
    Sandbox,
    SellbackInProgress,
    Sent,
    ServerError,
    StatusError,
    UserNotFound,
)
from phygitals_async._api.operation import Effect
from phygitals_async._calls.retry import RetryBudget
from phygitals_async._calls.verdicts import judge
from phygitals_transports import MemoryTransport

T = TypeVar("T")

EMPTY = Response(200, {"content-type": "application/json"}, b'{"user_id":"a","items":[]}')
STARTED = Response(200, {"content-type": "application/json"}, b'{"session_id":"s"}')
SOLD = Response(200, {"content-type": "application/json"}, b'{"success":true,"amount":1}')
SHIPPED = Response(200, {"content-type": "application/json"}, b'{"order_id":"o","status":"success"}')
QUICK = RetryPolicy(base=0.0001)


def refusal(status: int, retry_after: str | None = None) -> Response:
    """Return an answer that says no."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Response(status, headers, b'{"error":"no"}')


class Script:
    """A server that gives its answers in turn, repeating the last; an error is raised.

    Attributes:
        asked_at: When each request came, in the event loop's time.
    """

    def __init__(self, *answers: Response | PhygitalsError) -> None:
        self.asked_at: list[float] = []
        self._answers = answers

    def __call__(self, request: Request) -> Response:
        """Give the next answer."""
        self.asked_at.append(anyio.current_time())
        answer = self._answers[min(len(self.asked_at), len(self._answers)) - 1]
        if isinstance(answer, PhygitalsError):
            # A fresh object each time, as a real transport raises.
            raise type(answer)(*answer.args)
        return answer


async def never(_: Request) -> Response:
    """Answer nothing."""
    await trio.sleep_forever()


def client(handler: Any, **options: Any) -> PhygitalsClient:
    """Return a client whose requests `handler` answers."""
    return PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test", **options)


def simulate(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in simulated time, which jumps to whatever is waited for."""
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def pause(policy: RetryPolicy, failures: int, error: PhygitalsError, *, is_read: bool) -> float | None:
    """Return the pause that a policy makes after an error of a read, or of a call that moves money."""
    asked = error.retry_after if isinstance(error, StatusError) else None
    return policy.pause(failures, judge(error, Effect.READS if is_read else Effect.MOVES_MONEY), asked)


# --- the policy by itself ---------------------------------------------------------------------------------------------

PASSING = [408, 425, 500, 502, 503, 504, 520, 522, 525, 530]
STAYING = [400, 401, 402, 404, 409, 410, 422, 451, 501, 505, 507, 511, 519, 531, 599]


@pytest.mark.parametrize("status", PASSING)
def test_a_passing_status_is_repeated_for_reads_alone(status: int) -> None:
    """The server may have acted, so only a read may be asked again."""
    error = (ServerError if status >= 500 else BadRequest)(status=status)
    assert pause(RetryPolicy(), 1, error, is_read=True) is not None
    assert pause(RetryPolicy(), 1, error, is_read=False) is None


@pytest.mark.parametrize("status", STAYING)
def test_a_staying_status_is_never_repeated(status: int) -> None:
    """An answer that would be the same again is final."""
    error = (ServerError if status >= 500 else BadRequest)(status=status)
    assert pause(RetryPolicy(retries=10), 1, error, is_read=True) is None
    assert pause(RetryPolicy(retries=10), 1, error, is_read=False) is None


@pytest.mark.parametrize("error", [ConnectionLost(), ProtocolError(), DeadlineExceeded()])
def test_a_lost_answer_is_repeated_for_reads_alone(error: PhygitalsError) -> None:
    """Nobody knows whether the server acted."""
    assert pause(RetryPolicy(), 1, error, is_read=True) is not None
    assert pause(RetryPolicy(), 1, error, is_read=False) is None


@pytest.mark.parametrize(
    "error",
    [
        ClientClosed(),
        ConfigurationError(),
        InvalidArgumentError(),
        RedirectRefused(status=302),
        ResponseTooLarge(),
        DecodeError(),
        UserNotFound(status=404),
        AuthenticationError(status=401),
        OutOfStock(status=400),
        SellbackInProgress(status=429),
    ],
)
def test_an_error_that_would_come_again_is_never_repeated(error: PhygitalsError) -> None:
    """Repeating these only loads the server."""
    assert pause(RetryPolicy(retries=10), 1, error, is_read=True) is None
    assert pause(RetryPolicy(retries=10), 1, error, is_read=False) is None


def test_a_connection_that_was_never_made_is_repeated_for_every_call() -> None:
    """Nothing left, so nothing can happen twice; if it may have left after all, nothing is repeated."""
    assert pause(RetryPolicy(), 1, ConnectError(), is_read=True) is not None
    assert pause(RetryPolicy(), 1, ConnectError(), is_read=False) is not None
    doubtful = ConnectError()
    doubtful.sent = Sent.UNKNOWN
    assert pause(RetryPolicy(), 1, doubtful, is_read=False) is None


def test_a_429_waits_in_the_pause_all_calls_share() -> None:
    """It counts as no failure, and is repeated for reads alone; after too many failures, nothing is."""
    error = RateLimited(status=429)
    assert pause(RetryPolicy(retries=1), 0, error, is_read=True) == 0.0
    assert pause(RetryPolicy(retries=1), 1, error, is_read=True) == 0.0
    assert pause(RetryPolicy(retries=1), 2, error, is_read=True) is None
    assert pause(RetryPolicy(retries=0), 0, error, is_read=True) is None
    assert pause(RetryPolicy(retries=10), 0, error, is_read=False) is None


@given(failures=st.integers(1, 10), base=st.floats(1e-3, 1e3), longest=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32))
def test_the_pause_is_jittered_within_its_bounds(failures: int, base: float, longest: float, seed: int) -> None:
    """It is never negative, never above `base * 2**n`, never above `longest`."""
    random.seed(seed)
    policy = RetryPolicy(retries=10, base=base, longest=longest)
    seconds = pause(policy, failures, ServerError(status=500), is_read=True)
    assert seconds is not None
    assert 0 <= seconds <= min(base * 2**failures, longest)


def test_the_jitter_is_full() -> None:
    """Pauses spread over the whole range, so that calls that failed together do not come back together."""
    random.seed(1)
    policy = RetryPolicy(base=1.0)
    pauses = [pause(policy, 2, ServerError(status=500), is_read=True) or 0.0 for _ in range(2000)]
    for low in (0.0, 1.0, 2.0, 3.0):
        assert 400 < sum(low <= seconds < low + 1 for seconds in pauses) < 600


@pytest.mark.parametrize("status", [408, 425, 500, 503])
def test_a_server_is_never_asked_sooner_than_it_asks(status: int) -> None:
    """`Retry-After` is the least pause; above `longest` the call gives up."""
    kind = ServerError if status >= 500 else BadRequest
    policy = RetryPolicy(base=0.001, longest=5.0)
    assert pause(policy, 1, kind(status=status, retry_after=3.0), is_read=True) == 3.0
    assert pause(policy, 1, kind(status=status, retry_after=5.0), is_read=True) == 5.0
    assert pause(policy, 1, kind(status=status, retry_after=5.1), is_read=True) is None
    assert pause(policy, 1, kind(status=status, retry_after=math.inf), is_read=True) is None


@pytest.mark.parametrize("retries", [-1, 11, 1.0, True, "2", None, math.nan])
def test_retries_is_a_whole_number_from_0_to_10(retries: Any) -> None:
    """Anything else is refused when the policy is made."""
    with pytest.raises(ConfigurationError, match="retries must be a whole number from 0 to 10"):
        RetryPolicy(retries=retries)


@pytest.mark.parametrize("name", ["base", "longest"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1"])
def test_times_are_positive_and_finite(name: str, value: Any) -> None:
    """A bad number of seconds is refused by name."""
    with pytest.raises(ConfigurationError, match=f"{name} must be"):
        RetryPolicy(**{name: value})


def test_the_budget_runs_out_and_is_earned_back() -> None:
    """50 repeats in a row, then one for every ten successes, and never more than at the start."""
    budget = RetryBudget()
    assert sum(budget.take() for _ in range(1000)) == 50
    for _ in range(9):
        budget.give_back()
    assert not budget.take()
    budget.give_back()
    assert budget.take()
    assert not budget.take()
    for _ in range(10_000):
        budget.give_back()
    assert sum(budget.take() for _ in range(1000)) == 50


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("retries", range(11))
async def test_a_read_is_tried_once_and_repeated_up_to_retries_times(retries: int) -> None:
    """With a server that is down, the attempts are `retries + 1`, and the error says so."""
    script = Script(refusal(500))
    async with client(script, retry=RetryPolicy(retries=retries, base=1e-6)) as api:
        with pytest.raises(ServerError) as caught:
            await api.get_inventory("a")
    assert len(script.asked_at) == caught.value.attempts == retries + 1
    assert caught.value.operation == "get_inventory"
    assert caught.value.sent is Sent.YES


@pytest.mark.anyio
@pytest.mark.parametrize(
    "failure", [*[refusal(status) for status in PASSING], ConnectError(), ConnectionLost(), ProtocolError()]
)
async def test_a_read_outlives_a_passing_failure(failure: Response | PhygitalsError) -> None:
    """Two failures, then the answer."""
    script = Script(failure, failure, EMPTY)
    async with client(script, retry=QUICK) as api:
        assert await api.get_inventory("a") == Inventory("a", ())
    assert len(script.asked_at) == 3


MONEY: list[Any] = [
    pytest.param(lambda api: api.start_purchase("p", 1, "a"), STARTED, id="start_purchase"),
    pytest.param(lambda api: api.sell_back("i"), SOLD, id="sell_back"),
    pytest.param(lambda api: api.request_shipping("q"), SHIPPED, id="request_shipping"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "answer"), MONEY)
async def test_what_moves_money_or_goods_is_repeated_if_it_never_left(call: Any, answer: Response) -> None:
    """A refused connection is tried again, and the call is made once."""
    script = Script(ConnectError(), ConnectError(), answer)
    async with client(script, retry=QUICK) as api:
        await call(api)
    assert len(script.asked_at) == 3


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "answer"), MONEY)
@pytest.mark.parametrize(
    "failure",
    [
        refusal(408),
        refusal(500),
        refusal(503, "0"),
        refusal(520),
        ConnectionLost(),
        ProtocolError(),
        DeadlineExceeded(),
    ],
)
async def test_what_moves_money_or_goods_is_sent_once_if_it_may_have_left(
    call: Any, answer: Response, failure: Response | PhygitalsError
) -> None:
    """The server may have acted: one request, and an error that says nobody knows."""
    script = Script(failure, answer)
    async with client(script, retry=RetryPolicy(retries=10, base=1e-6)) as api:
        with pytest.raises(OutcomeUnknown) as caught:
            await call(api)
    assert len(script.asked_at) == caught.value.attempts == 1


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "answer"), MONEY)
@pytest.mark.parametrize("answered", [Response(200, {}, b"{"), Response(200, {}, b""), refusal(100), refusal(600)])
async def test_an_answer_that_cannot_be_read_leaves_the_outcome_open(
    call: Any, answer: Response, answered: Response
) -> None:
    """A broken 2xx and a status without a meaning are no refusal of what moves money or goods."""
    script = Script(answered, answer)
    async with client(script, retry=QUICK) as api:
        with pytest.raises(OutcomeUnknown) as caught:
            await call(api)
    assert len(script.asked_at) == caught.value.attempts == 1
    assert caught.value.sent is Sent.YES


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "answer"), MONEY)
async def test_a_429_of_what_moves_money_or_goods_is_not_repeated(call: Any, answer: Response) -> None:
    """It is an ordinary refusal: not sent again, and not of unknown outcome. That of a sellback is a lock."""
    script = Script(refusal(429, "0"), answer)
    async with client(script, retry=QUICK) as api:
        with pytest.raises(StatusError) as caught:
            await call(api)
    assert type(caught.value) is (SellbackInProgress if answer is SOLD else RateLimited)
    assert len(script.asked_at) == caught.value.attempts == 1


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
async def test_a_refused_purchase_is_refused(status: int) -> None:
    """A clear no is neither repeated nor of unknown outcome."""
    script = Script(refusal(status), STARTED)
    async with client(script, retry=QUICK) as api:
        with pytest.raises((StatusError, RedirectRefused)) as caught:
            await api.start_purchase("p", 1, "a")
    assert len(script.asked_at) == 1
    assert caught.value.attempts == 1


@pytest.mark.anyio
async def test_a_call_that_never_left_says_so_after_all_attempts() -> None:
    """A purchase that found no connection was certainly not made."""
    script = Script(ConnectError("no connection"))
    async with client(script, retry=QUICK) as api:
        with pytest.raises(ConnectError, match="start_purchase: no connection") as caught:
            await api.start_purchase("p", 1, "a")
    assert caught.value.sent is Sent.NEVER
    assert caught.value.attempts == len(script.asked_at) == 3


@pytest.mark.anyio
async def test_a_doubtful_failure_after_one_that_never_left_is_of_unknown_outcome() -> None:
    """The last attempt counts."""
    script = Script(ConnectError(), ConnectionLost(), STARTED)
    async with client(script, retry=QUICK) as api:
        with pytest.raises(OutcomeUnknown) as caught:
            await api.start_purchase("p", 1, "a")
    assert caught.value.sent is Sent.UNKNOWN
    assert caught.value.attempts == len(script.asked_at) == 2


@pytest.mark.anyio
async def test_each_attempt_tells_of_its_own_sending() -> None:
    """The first broke on its way, the others found no connection: the last attempt was never sent."""
    seen: list[Request] = []

    class Breaking:
        async def send(self, request: Request) -> Response:
            seen.append(request)
            with request.delivery.connecting():
                if len(seen) > 1:
                    raise ConnectError
            raise ConnectionLost

        async def aclose(self) -> None:
            pass

    async with PhygitalsClient(Breaking(), api_key="sandbox-test", retry=QUICK) as api:
        with pytest.raises(ConnectError) as caught:
            await api.get_inventory("a")
    assert caught.value.sent is Sent.NEVER
    assert [request.delivery.sent for request in seen] == [Sent.UNKNOWN, Sent.NEVER, Sent.NEVER]


def test_pauses_grow_and_stay_within_their_bounds() -> None:
    """Before the n-th repeat, at most `base * 2**n`, and at most `longest`."""
    script = Script(refusal(500))

    async def main() -> None:
        async with client(script, deadline=1e6, retry=RetryPolicy(retries=10, base=1.0, longest=30.0)) as api:
            with pytest.raises(ServerError):
                await api.get_inventory("a")

    simulate(main)
    pauses = [later - sooner for sooner, later in zip(script.asked_at, script.asked_at[1:], strict=False)]
    assert len(pauses) == 10
    assert all(pause <= min(2.0**n, 30.0) + 1e-6 for n, pause in enumerate(pauses, 1))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_kept(status: int) -> None:
    """The next request comes when the server said, and not much later."""
    script = Script(refusal(status, "7"), EMPTY)

    async def main() -> None:
        async with client(script) as api:
            await api.get_inventory("a")

    simulate(main)
    assert 7.0 <= script.asked_at[1] - script.asked_at[0] < 7.5


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_as_a_date_is_kept(status: int) -> None:
    """A date of HTTP has whole seconds, so a second either way is exact."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)
    script = Script(refusal(status, moment), EMPTY)

    async def main() -> None:
        async with client(script) as api:
            await api.get_inventory("a")

    simulate(main)
    assert 7.0 <= script.asked_at[1] - script.asked_at[0] <= 10.5


NO_WAIT = [
    "0",
    "0.0",
    "-0",
    "-1",
    "-99999999999",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e9",
    "0x10",
    "",
    " ",
    "soon",
    "\u0663",
]
NO_WAIT += ["Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2015 07:28:00 GMT", "1,2", "10 seconds", "\x00", "٣٤"]
TOO_LONG = ["21", "9" * 35, "9" * 5000, "86400000", "Fri, 31 Dec 9999 23:59:59 GMT", "31536000.5"]
ABSURD = [
    "Wed, 21 Oct 2015 07:28:00 +99999999999999999999999999",
    "Jan 1 99999999999999999999 00:00:00 a.b.c .",
    "1-Jan-26 00:00:00 99999999999999999999 \t",
]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", [*NO_WAIT, *ABSURD])
def test_a_retry_after_that_asks_for_nothing_is_passed_over(status: int, value: str) -> None:
    """The call goes on at the client's own pace, whatever the header holds."""
    script = Script(refusal(status, value), EMPTY)

    async def main() -> None:
        async with client(script) as api:
            assert await api.get_inventory("a") == Inventory("a", ())

    simulate(main)
    assert len(script.asked_at) == 2
    assert script.asked_at[1] - script.asked_at[0] < 2.0


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", TOO_LONG)
def test_a_retry_after_beyond_the_longest_pause_gives_up(status: int, value: str) -> None:
    """The server is not asked sooner than it wants, and nobody is kept waiting for years."""
    script = Script(refusal(status, value), EMPTY)

    async def main() -> float:
        async with client(script, deadline=1e6) as api:
            with pytest.raises(StatusError) as caught:
                await api.get_inventory("a")
            assert caught.value.retry_after is not None
            assert caught.value.retry_after > 20
            assert caught.value.attempts == 1
        return trio.current_time()

    assert simulate(main) < 1.0 + script.asked_at[0]
    assert len(script.asked_at) == 1


@pytest.mark.parametrize("answer", [refusal(500), refusal(503, "1"), refusal(429), refusal(429, "0"), ConnectError()])
def test_nothing_is_tried_beyond_the_deadline(answer: Response | PhygitalsError) -> None:
    """The last request comes before the deadline, and the call ends by then."""
    script = Script(answer)

    async def main() -> tuple[float, float]:
        start = trio.current_time()
        async with client(script, retry=RetryPolicy(retries=10, base=0.5, longest=2.0)) as api:
            with pytest.raises(PhygitalsError) as caught:
                await api.get_inventory("a", deadline=3.0)
            assert caught.value.attempts == len(script.asked_at) > 1
        return start, trio.current_time()

    start, end = simulate(main)
    assert end - start <= 3.0 + 1e-6
    assert script.asked_at[-1] < start + 3.0


def test_a_pause_that_overlaps_the_deadline_is_not_waited_for() -> None:
    """The error comes at once and is the server's own."""
    script = Script(refusal(503, "5"), EMPTY)

    async def main() -> float:
        start = trio.current_time()
        async with client(script) as api:
            with pytest.raises(ServerError):
                await api.get_inventory("a", deadline=4.0)
        return trio.current_time() - start

    assert simulate(main) < 0.1


@pytest.mark.parametrize("failure", [refusal(500), ConnectError()])
def test_nothing_is_sent_after_the_deadline_when_the_pause_overslept(failure: Response | PhygitalsError) -> None:
    """A laptop that was suspended, or a loop that was blocked, must not send a purchase long after its deadline.

    What is told is the failure before it: an attempt without time would only hide that.
    """
    script = Script(failure, EMPTY)
    clock = trio.testing.MockClock(autojump_threshold=0.01)
    moves_money = isinstance(failure, PhygitalsError)

    async def main() -> None:
        api = client(script, retry=RetryPolicy(base=0.2))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                late = api.start_purchase("p", 1, "a", deadline=1.0)
                read = api.get_inventory("a", deadline=1.0)
                with pytest.raises(ConnectError if moves_money else ServerError) as caught:
                    await (late if moves_money else read)
                assert caught.value.attempts == 1
                (read if moves_money else late).close()

            while not script.asked_at:
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            clock.jump(5.0)

    trio.run(main, clock=clock)
    assert len(script.asked_at) == 1


def test_each_attempt_of_a_read_has_its_own_limit() -> None:
    """A server that hangs is asked again after `attempt_timeout`."""
    asked: list[float] = []

    async def hang_twice(request: Request) -> Response:
        asked.append(trio.current_time())
        if len(asked) < 3:
            await trio.sleep_forever()
        return EMPTY

    async def main() -> None:
        async with client(hang_twice, attempt_timeout=2.0, retry=QUICK) as api:
            assert await api.get_inventory("a") == Inventory("a", ())

    simulate(main)
    assert [round(moment - asked[0]) for moment in asked] == [0, 2, 4]


@pytest.mark.parametrize(("call", "answer"), MONEY)
def test_what_moves_money_or_goods_is_cut_short_by_the_deadline_alone(call: Any, answer: Response) -> None:
    """Its outcome would be unknown for nothing."""

    async def slow(request: Request) -> Response:
        await trio.sleep(20)
        return answer

    async def main() -> None:
        async with client(slow, attempt_timeout=2.0, deadline=30.0) as api:
            await call(api)
        async with client(slow, attempt_timeout=2.0, deadline=10.0) as api:
            start = trio.current_time()
            with pytest.raises(OutcomeUnknown) as caught:
                await call(api)
            assert trio.current_time() - start == pytest.approx(10.0)
            assert isinstance(caught.value.__cause__, DeadlineExceeded)

    simulate(main)


def test_the_deadline_bounds_the_last_attempt_too() -> None:
    """Whichever ends first, the attempt's limit or the deadline, ends the attempt."""

    async def main() -> None:
        async with client(never, attempt_timeout=2.0, retry=QUICK) as api:
            start = trio.current_time()
            with pytest.raises(DeadlineExceeded) as caught:
                await api.get_inventory("a", deadline=5.0)
            assert trio.current_time() - start == pytest.approx(5.0)
            assert caught.value.attempts == 3
            assert caught.value.sent is Sent.UNKNOWN

    simulate(main)


@pytest.mark.parametrize("failure", [refusal(500), ConnectionLost(), ConnectError()])
def test_an_outage_is_not_multiplied(failure: Response | PhygitalsError) -> None:
    """1,000 calls while the server is down make 1,050 requests, not 3,000; afterwards repeats come back."""
    script = Script(failure)

    async def main() -> None:
        api = client(script, retry=QUICK)
        keys = (f"u{n}" for n in range(1000))
        async with api.stream_inventories(keys, limit=50, patience=0) as outcomes:
            assert [isinstance(outcome, Failed) async for outcome in outcomes] == [True] * 1000
            assert outcomes.progress.attempts == len(script.asked_at)

    simulate(main)
    assert 1000 < len(script.asked_at) <= 1050


@pytest.mark.anyio
async def test_the_budget_does_not_count_429s() -> None:
    """The pause that all calls share governs them."""
    script = Script(refusal(429, "0"), EMPTY)
    async with client(script) as api:
        api._engine.budget.tokens = 0.0
        assert await api.get_inventory("a") == Inventory("a", ())
    assert len(script.asked_at) == 2


@pytest.mark.anyio
async def test_an_empty_budget_makes_a_call_fail_at_once() -> None:
    """The server's own error is raised after one attempt."""
    script = Script(refusal(500), EMPTY)
    async with client(script) as api:
        api._engine.budget.tokens = 0.0
        with pytest.raises(ServerError) as caught:
            await api.get_inventory("a")
    assert caught.value.attempts == len(script.asked_at) == 1


@pytest.mark.anyio
async def test_any_answer_but_a_server_error_earns_the_budget_back() -> None:
    """A server that says no is up: a run over unknown users must not lose its repeats."""
    async with client(Sandbox(seed=1)) as api:
        api._engine.budget.tokens = 0.0
        for _ in range(20):
            with pytest.raises(UserNotFound):
                await api.get_inventory("nobody")
        assert api._engine.budget.tokens >= 10.0


@pytest.mark.anyio
async def test_closing_during_the_pause_ends_the_call() -> None:
    """No request leaves after `aclose()`; the error says what happened before."""
    script = Script(refusal(500))
    api = client(script, retry=RetryPolicy(base=0.02))
    caught: list[PhygitalsError] = []

    async def call() -> None:
        try:
            await api.get_inventory("a")
        except PhygitalsError as error:
            caught.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        while not script.asked_at:
            await anyio.lowlevel.checkpoint()
        await api.aclose()
    (error,) = caught
    if len(script.asked_at) == 1:
        assert isinstance(error, ClientClosed)
        assert isinstance(error.__cause__, ServerError)


@pytest.mark.anyio
async def test_the_log_has_a_line_for_each_repeat(caplog: pytest.LogCaptureFixture) -> None:
    """A warning after a failure; after a 429, which is the pace's business, and may be many times, only at INFO."""
    limited = Response(429, {"retry-after": "0"}, b"{}")
    with caplog.at_level(logging.INFO, logger="phygitals_async"):
        async with client(Script(refusal(500), limited, ConnectionLost(), EMPTY), retry=QUICK) as api:
            await api.get_inventory("a")
    lines = [(record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records]
    assert lines == [
        ("WARNING", "get_inventory: attempt 1: ServerError"),
        ("INFO", "get_inventory: attempt 2: RateLimited"),
        ("WARNING", "get_inventory: attempt 3: ConnectionLost"),
    ]


def test_an_outage_shows_where_logging_is_not_configured() -> None:
    """A program that never heard of logging writes warnings to standard error."""
    program = """if True:
        import asyncio
        from phygitals_async import PhygitalsClient, RetryPolicy, ServerError
        from phygitals_transports import MemoryTransport

        api = PhygitalsClient(
            MemoryTransport.answering((503, {})), api_key="sandbox-test", retry=RetryPolicy(retries=2, base=1e-6)
        )
        try:
            asyncio.run(api.get_inventory("u"))
        except ServerError:
            pass
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        "get_inventory: attempt 1: ServerError",
        "get_inventory: attempt 2: ServerError",
    ]


@pytest.mark.anyio
async def test_the_log_tells_of_repeats_without_ids_or_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """Its lines are short and hold no key and no id, even where the server echoes them."""
    echo = Response(500, {}, b'{"error":"cannot load user_secret_17 with sandbox-test' + b"x" * 10_000 + b'"}')
    user = Response(200, {}, b'{"user_id":"user_secret_17","items":[]}')
    with caplog.at_level(logging.DEBUG, logger="phygitals_async"):
        async with client(Script(echo, ConnectionLost(), user), retry=QUICK) as api:
            await api.get_inventory("user_secret_17")
    lines = [record.getMessage() for record in caplog.records if record.name == "phygitals_async"]
    assert len(lines) == 5
    assert all(line.startswith("get_inventory: attempt ") for line in lines)
    assert all(len(line) < 300 for line in lines)
    assert not any("sandbox-test" in line for line in lines)
    assert not any("user_secret_17" in line for line in lines)

"""How fast a client sends: close to what the server bears, with few refusals, and one operation apart from another."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from calls.throttling_server import Bucket, FixedWindow, Limit, Unlimited
from phygitals_async import (
    Attempt,
    Call,
    DeadlineExceeded,
    Failed,
    Found,
    Observer,
    PhygitalsClient,
    PhygitalsError,
    Progress,
    RateLimited,
    Request,
    Response,
    RetryPolicy,
    SellbackInProgress,
    UserNotFound,
    fan_out,
)
from phygitals_transports import MemoryTransport
from virtual import VirtualLoop, run_virtually, settle


class Server:
    """Answers inventories and sellbacks within a limit, after some seconds on the way, and counts."""

    def __init__(self, limit: Limit, *, retry_after: float | None = None, latency: float = 0.01) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted_at: list[float] = []
        self.knows_users = True
        self._limit = limit
        self._retry_after = retry_after
        self._latency = latency

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        await anyio.sleep(self._latency / 2)
        wait = self._limit.refuses_for(anyio.current_time())
        response = self._accept(request) if wait is None else self._refuse(wait)
        self.statuses[response.status] += 1
        await anyio.sleep(self._latency / 2)
        return response

    @property
    def refused(self) -> float:
        """The share of 429s."""
        return self.statuses[429] / self.statuses.total()

    def _accept(self, request: Request) -> Response:
        self.accepted_at.append(anyio.current_time())
        if request.method == "POST":
            return Response(200, {}, b'{"success":true,"amount":5}')
        return inventory(request) if self.knows_users else Response(404, {}, b'{"error":"User not found"}')

    def _refuse(self, wait: float) -> Response:
        asked = wait if self._retry_after == math.inf else self._retry_after
        return Response(429, {} if asked is None else {"retry-after": str(asked)}, b"{}")


def inventory(request: Request) -> Response:
    """Answer with the inventory of the user asked for."""
    user_id = request.url.rpartition("/")[2]
    return Response(200, {}, json.dumps({"user_id": user_id, "items": []}).encode())


def client(handler: Callable[[Request], Response | Awaitable[Response]], **settings: object) -> PhygitalsClient:
    """Return a client of a handler."""
    return PhygitalsClient(MemoryTransport(handler, keep=0), api_key="sandbox-test", **settings)  # type: ignore[arg-type]


def ids(count: int) -> list[str]:
    """Return so many user ids."""
    return [f"u{number}" for number in range(count)]


async def refresh(api: PhygitalsClient, users: int) -> tuple[float, int, Progress]:
    """Run a bulk run; return its seconds, how many users it found, and its counts."""
    start = anyio.current_time()
    async with api.stream_inventories(iter(ids(users))) as outcomes:
        found = sum([isinstance(outcome, Found) async for outcome in outcomes])
    return anyio.current_time() - start, found, outcomes.progress


async def refresh_beside(api: PhygitalsClient, seconds: float, beside: Callable[[], Awaitable[None]]) -> None:
    """Keep a bulk run going for so long, and something else beside it."""
    async with api.stream_inventories(f"u{number}" for number in range(10**6)) as outcomes:

        async def consume() -> None:
            async for _ in outcomes:
                pass

        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            with anyio.move_on_after(seconds):
                await beside()
            group.cancel_scope.cancel()


# ------------------------------------------------------------------------------------------------------- bulk runs


@pytest.mark.parametrize("retry_after", [1, None])
@pytest.mark.parametrize(("users", "ratio", "refused"), [(6000, 1.10, 0.02), (1600, 1.25, 0.03)])
def test_a_bulk_run_is_nearly_as_fast_as_the_server_allows(
    retry_after: float | None, users: int, ratio: float, refused: float
) -> None:
    """A bucket of 20 at 200/s: every user is found, in little more than the ideal time, with few 429s."""

    async def main() -> None:
        server = Server(Bucket(200, 20, at=anyio.current_time()), retry_after=retry_after, latency=0.004)
        took, found, progress = await refresh(client(server), users)
        assert found == users
        assert took <= ratio * (users - 20) / 200
        assert server.refused <= refused
        assert progress.attempts == server.statuses.total()
        assert 0 < progress.throttled <= server.statuses[429]

    run_virtually(main)


def test_a_run_over_404s_is_as_fast_as_over_200s() -> None:
    """After two bursts of 429, a run over users who never bought goes on at the same rate."""

    async def rate(*, knows_users: bool) -> float:
        start = anyio.current_time()
        server = Server(Unlimited([start + 1, start + 1.001, start + 2, start + 2.001]), latency=0.02)
        server.knows_users = knows_users
        async with client(server).stream_inventories(iter(ids(20_000))) as outcomes:
            kinds = Counter([type(o.error) if isinstance(o, Failed) else None async for o in outcomes])
        assert kinds == {None if knows_users else UserNotFound: 20_000}
        return 20_000 / (anyio.current_time() - start)

    async def main() -> None:
        found, unknown = await rate(knows_users=True), await rate(knows_users=False)
        assert unknown == pytest.approx(found, rel=0.1)
        assert unknown > 2000

    run_virtually(main)


@pytest.mark.parametrize("retry_after", [1, None])
@pytest.mark.parametrize("after", [0.01, 2.0])
def test_one_stray_429_does_not_slow_a_fast_run_for_long(retry_after: float | None, after: float) -> None:
    """At some 3,000/s, bounded by the requests in flight alone, 90 % of the rate is back within 3 s."""

    async def main() -> None:
        start = anyio.current_time()
        server = Server(Unlimited([start + after]), retry_after=retry_after, latency=0.02)
        await refresh(client(server), 20_000)
        at = start + after
        later = sum(at + 3 <= moment < at + 4 for moment in server.accepted_at)
        assert server.statuses[429] == 1
        assert later >= 0.9 * 64 / 0.02

    run_virtually(main)


def test_a_fixed_window_loses_nobody() -> None:
    """60 per 40 s, with a `Retry-After` longer than a call waits: the run waits it out."""

    async def main() -> None:
        server = Server(FixedWindow(60, 40, start=anyio.current_time()), retry_after=math.inf)
        took, found, _ = await refresh(client(server), 130)
        assert found == 130
        assert took < 100

    run_virtually(main)


@pytest.mark.parametrize("retry_after", [1, None])
@pytest.mark.parametrize("rate", [1, 2, 5])
def test_a_slow_server_is_seldom_asked_in_vain(rate: int, retry_after: float | None) -> None:
    """At a few requests a second, at most a tenth is refused, and most of what the server allows is used."""

    async def main() -> None:
        server = Server(Bucket(rate, rate, at=anyio.current_time()), retry_after=retry_after)
        await refresh_beside(client(server), 120, anyio.sleep_forever)
        assert server.refused <= 0.1
        assert server.statuses[200] >= 0.8 * rate * 120

    run_virtually(main)


def test_a_server_that_only_refuses_is_asked_seldom_and_not_for_ever() -> None:
    """Once the run's patience is at its end, every key has an outcome."""

    async def main() -> None:
        server = Server(Bucket(1e-9, 0))
        api = client(server)
        start = anyio.current_time()
        batch = await api.get_inventories(ids(40), limit=16, patience=60)
        assert len(batch.failed) == 40
        assert anyio.current_time() - start < 600
        assert server.statuses.total() < 300

    run_virtually(main)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_pause_longer_than_the_deadline_costs_no_key(is_async: bool) -> None:
    """The deadline of a lookup begins with its turn, and the run waits for the server."""
    requests = 0

    def handler(request: Request) -> Response:
        nonlocal requests
        requests += 1
        return Response(429, {"retry-after": "8"}, b"{}") if requests == 10 else inventory(request)

    async def source() -> AsyncIterator[str]:
        for user_id in ids(100):
            yield user_id

    async def main() -> None:
        keys = source() if is_async else ids(100)
        async with client(handler).stream_inventories(keys, limit=4, deadline=5.0) as outcomes:
            assert sum([isinstance(outcome, Found) async for outcome in outcomes]) == 100

    run_virtually(main)


def test_a_run_without_patience_does_not_wait_for_a_pause() -> None:
    """Its lookups have the deadline of any call, from the start."""
    answers = iter([Response(429, {"retry-after": "15"}, b"{}")])

    async def main() -> None:
        api = client(lambda request: next(answers, None) or inventory(request), retry=RetryPolicy(retries=0))
        with pytest.raises(RateLimited):
            await api.get_inventory("u")
        start = anyio.current_time()
        batch = await api.get_inventories(ids(3), deadline=5.0, patience=0)
        assert [type(outcome.error) for outcome in batch.failed] == [DeadlineExceeded] * 3
        assert anyio.current_time() == start

    run_virtually(main)


def test_a_pause_longer_than_patience_is_not_waited_for() -> None:
    """A server that wants nobody for an hour ends a bulk run soon."""

    async def main() -> None:
        server = Server(Bucket(1e-9, 0), retry_after=3600)
        start = anyio.current_time()
        batch = await client(server).get_inventories(ids(1000))
        assert len(batch.failed) == 1000
        assert anyio.current_time() - start < 60

    run_virtually(main)


# ---------------------------------------------------------------------------------------------------- side by side


@pytest.mark.parametrize(("rate", "retry_after"), [(50, 1), (2, 5), (1, 5)])
def test_single_calls_go_before_a_bulk_run(rate: int, retry_after: float) -> None:
    """Their median wait is two intervals at most, and none fails for the bulk run's sake."""
    waits: list[float] = []
    failures: list[PhygitalsError] = []

    async def main() -> None:
        api = client(Server(Bucket(rate, rate, at=anyio.current_time()), retry_after=retry_after))

        async def call(number: int) -> None:
            start = anyio.current_time()
            try:
                await (api.sell_back("item") if number % 3 == 0 else api.get_inventory("web"))
            except PhygitalsError as error:
                failures.append(error)
            waits.append(anyio.current_time() - start)

        async def beside() -> None:
            async with anyio.create_task_group() as group:
                await anyio.sleep(5)
                for number in range(40):
                    group.start_soon(call, number)
                    await anyio.sleep(4 / rate)

        await refresh_beside(api, 400, beside)

    run_virtually(main)
    assert len(waits) == 40
    assert failures == []
    assert statistics.median(waits) <= 2 / rate + 0.01


@pytest.mark.parametrize("status", [503, 429])
def test_a_sick_operation_holds_up_no_healthy_one(status: int) -> None:
    """One that is never accepted, and asks for pauses, costs the others nothing."""

    def handler(request: Request) -> Response:
        if "recent-pulls" in request.url:
            return Response(status, {"retry-after": "15"}, b"{}")
        if request.method == "POST":
            return Response(200, {}, b'{"session_id":"s"}')
        return inventory(request)

    async def main() -> None:
        api = client(handler)
        sick: list[PhygitalsError] = []

        async def ask() -> None:
            while True:
                try:
                    await api.list_recent_pulls()
                except PhygitalsError as error:
                    sick.append(error)
                await anyio.sleep(10)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            for _ in range(120):
                start = anyio.current_time()
                await api.get_inventory("u", deadline=5)
                await api.start_purchase("p", 1, "u")
                assert anyio.current_time() == start
                await anyio.sleep(1)
            group.cancel_scope.cancel()
        assert sick

    run_virtually(main)


def test_a_429_of_one_item_slows_nobody() -> None:
    """Whatever its words: the item is locked. It is not repeated."""
    asked: list[str] = []

    def handler(request: Request) -> Response:
        asked.append(request.url)
        if request.method == "POST":
            return Response(429, {"retry-after": "60"}, b'{"error":"A buyback request is already being processed."}')
        return inventory(request)

    async def main() -> None:
        api = client(handler)
        start = anyio.current_time()
        for _ in range(2):
            with pytest.raises(SellbackInProgress):
                await api.sell_back("item")
        await api.get_inventory("u")
        assert anyio.current_time() == start

    run_virtually(main)
    assert len(asked) == 3


def test_a_refused_purchase_slows_purchases_alone() -> None:
    """Its limit is never taken for the reads'."""
    answers = iter([Response(429, {"retry-after": "2"}, b"{}")])

    def handler(request: Request) -> Response:
        if request.method == "POST":
            return next(answers, Response(200, {}, b'{"session_id":"s"}'))
        return inventory(request)

    async def main() -> None:
        api = client(handler)
        start = anyio.current_time()
        with pytest.raises(RateLimited):
            await api.start_purchase("p", 1, "u")
        await api.get_inventory("u")
        assert anyio.current_time() == start
        await api.start_purchase("p", 1, "u")
        assert anyio.current_time() - start == pytest.approx(2.0)

    run_virtually(main)


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_is_shared_by_the_calls_of_one_operation_of_one_client(status: int) -> None:
    """They leave one after the other, in the order they came; another client does not wait."""
    asked: list[tuple[str, float]] = []

    def handler(request: Request) -> Response:
        asked.append((request.url.rpartition("/")[2], anyio.current_time()))
        return Response(status, {"retry-after": "10"}, b"{}") if len(asked) == 1 else inventory(request)

    async def main() -> float:
        api, other = client(handler), client(handler)
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(api.get_inventory, "first")
            await anyio.sleep(1)
            for number in range(5):
                group.start_soon(api.get_inventory, f"waiting{number}")
            group.start_soon(other.get_inventory, "other")
        return start

    start = run_virtually(main)
    by_key = {key: moment - start for key, moment in asked}
    assert by_key.pop("other") == 1
    assert min(by_key.values()) >= 10.0
    assert len(set(by_key.values())) == 6, "they leave spread out"
    assert [key for key, _ in asked if key.startswith("waiting")] == [f"waiting{number}" for number in range(5)]


def test_a_bare_503_slows_down_nobody() -> None:
    """It tells nothing of a rate."""
    answers = iter([Response(503, {}, b"{}")])

    async def main() -> None:
        api = client(lambda request: next(answers, None) or inventory(request))
        await api.get_inventory("u")
        assert api._engine.admission.lane("get_inventory").pacer.rate is None

    run_virtually(main)


def test_an_absurd_retry_after_pauses_the_others_no_longer_than_the_longest_pause() -> None:
    """One hostile header must not silence a client for years."""
    answers = iter([Response(429, {"retry-after": "9" * 35}, b"{}")])

    async def main() -> None:
        api = client(lambda request: next(answers, None) or inventory(request), retry=RetryPolicy(longest=3.0))
        start = anyio.current_time()
        with pytest.raises(RateLimited):
            await api.get_inventory("u")
        await api.get_inventory("u")
        assert anyio.current_time() - start == pytest.approx(3.0)

    run_virtually(main)


def test_a_429_outside_a_run_is_not_counted_in_it() -> None:
    """Nor are its attempts."""
    answers = iter([Response(429, {}, b"{}")])

    async def main() -> None:
        api = client(lambda request: next(answers, None) or inventory(request))
        await api.get_inventory("u")
        _, found, progress = await refresh(api, 2)
        assert found == progress.attempts == 2
        assert progress.throttled == 0

    run_virtually(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pace_that_is_set_holds(backend: str) -> None:
    """30 requests at 100 a second leave one after the other, on both event loops."""
    asked: list[float] = []

    def handler(request: Request) -> Response:
        asked.append(anyio.current_time())
        return inventory(request)

    async def main() -> None:
        api = client(handler, rate=100.0)
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(api.get_inventory, "u")

    run_virtually(main, backend)
    # Whoever was woken late may catch up 50 ms.
    assert 0.24 <= asked[-1] - asked[0] <= 0.30


def test_a_request_let_in_before_a_429_belongs_to_its_burst_though_it_leaves_after() -> None:
    """On a busy machine some time passes in between. Taken for a second 429, it would cost a second pause."""
    loop = VirtualLoop()
    answers = {user: asyncio.Event() for user in "ab"}
    asked: Counter[str] = Counter()

    class Busy(Observer):
        def attempted(self, call: Call, attempt: Attempt) -> None:
            loop.pass_time(0.001)

    async def server(request: Request) -> Response:
        user = request.url[-1]
        asked[user] += 1
        if user in answers and asked[user] == 1:
            await answers[user].wait()
        if user != "a" and asked[user] == 1:
            return Response(429, {"Retry-After": "1"}, b"")
        return Response(200, {}, json.dumps({"user_id": user, "items": []}).encode())

    async def main() -> None:
        api = client(server, max_in_flight=2, observer=Busy())
        async with fan_out(api.get_inventory, ["a", "b", "c"], limit=3) as outcomes:
            await settle()
            assert asked == {"a": 1, "b": 1}
            for answer in answers.values():
                answer.set()
            assert {outcome.key async for outcome in outcomes} == {"a", "b", "c"}
        assert asked == {"a": 1, "b": 2, "c": 2}
        assert outcomes.progress.throttled == 1

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())

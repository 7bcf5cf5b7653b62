"""Waiting for purchases and watching orders, on both event loops, whose clocks jump ahead whenever nothing runs."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import pytest

from phygitals_async import (
    AuthenticationError,
    CertificateRefused,
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Destination,
    NotFound,
    OrderNotFound,
    OrderStatus,
    OutcomeUnknown,
    OutOfStock,
    PermissionDenied,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    Purchase,
    PurchasePending,
    RateLimited,
    Request,
    Response,
    ResponseTooLarge,
    Sandbox,
    Sent,
    ServerError,
    ShippingOrder,
    TransactionFailed,
    TransportError,
    build_converter,
)
from phygitals_async.sandbox.options import SandboxOptions
from phygitals_transports import MemoryTransport
from phygitals_transports.memory import Handler
from support import ONCE, fixture_bytes, fixture_json, noting
from virtual import virtual_backend

KEY = "sandbox-0123456789"
CONVERTER = build_converter()
NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
SESSION: Final = "550e8400-e29b-41d4-a716-446655440000"
PENDING: Final = Response(200, {}, fixture_bytes("purchase-status-pending.json"))
FULFILLED: Final = Response(200, {}, fixture_bytes("purchase-status.json"))
DESTINATION: Final = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
STAGES: Final = [
    OrderStatus.QUEUED,
    OrderStatus.PROCESSING,
    OrderStatus.LABEL_CREATED,
    OrderStatus.SHIPPED,
    OrderStatus.DELIVERED,
]

Answer = Response | PhygitalsError


anyio_backend = virtual_backend


def _error(status: int, text: str) -> Response:
    return Response(status, {}, json.dumps({"error": text}).encode())


def _client(handler: Handler) -> tuple[PhygitalsClient, MemoryTransport]:
    transport = MemoryTransport(handler)
    return PhygitalsClient(transport, api_key=KEY, retry=ONCE, converter=CONVERTER), transport


def _script(answers: Sequence[Answer]) -> Handler:
    """Answer with one after the other, repeating the last."""
    left = list(answers)

    def handler(_: Request) -> Response:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, PhygitalsError):
            raise answer
        return answer

    return handler


def _paths(transport: MemoryTransport) -> list[str]:
    return [request.url.partition("/api/v1")[2] for request in transport.sent]


# Until it is there


@pytest.mark.parametrize("polls", [0, 1, 2, 4])
@pytest.mark.anyio
async def test_a_pending_purchase_is_waited_for(polls: int) -> None:
    """It is polled while pending, once more for the result, and not after."""
    sandbox = Sandbox(seed=1, options=SandboxOptions(pending_polls=polls))
    api, transport = _client(sandbox)
    started = await api.start_purchase(sandbox.packs[0].id, 2, "user")
    assert bool(started.nfts) == (polls == 0)
    purchase = await api.wait_for_purchase(started.session_id)
    assert isinstance(purchase, Purchase)
    assert (purchase.session_id, purchase.user_id, len(purchase.nfts)) == (started.session_id, "user", 2)
    assert _paths(transport) == ["/vm/buy/init", *["/vm/buy/status"] * (polls + 1)]
    owned = [item.id for item in (await api.get_inventory("user")).items]
    assert owned == [nft.id for nft in purchase.nfts]


@pytest.mark.anyio
async def test_every_poll_asks_for_the_session() -> None:
    """Each poll is the documented request."""
    api, transport = _client(_script([PENDING, PENDING, FULFILLED]))
    await api.wait_for_purchase(SESSION)
    assert [json.loads(request.body or b"") for request in transport.sent] == [{"session_id": SESSION}] * 3


def _without_cards(**nfts: object) -> Response:
    """Return the answer to a poll that has a result already, and no cards in it (API sheet, 2.6)."""
    result = {name: value for name, value in fixture_json("purchase-status.json")["result"].items() if name != "nfts"}
    return Response(200, {}, json.dumps({"result": {**result, **nfts}}).encode())


NO_CARDS: Final = {
    "empty": _without_cards(nfts=[]),
    "null": _without_cards(nfts=None),
    "absent": _without_cards(),
}


@pytest.mark.parametrize("answer", NO_CARDS.values(), ids=NO_CARDS)
@pytest.mark.anyio
async def test_a_result_without_cards_is_pending(answer: Response) -> None:
    """The cards are what a purchase is fulfilled by: without them it is asked again."""
    api, transport = _client(_script([answer]))
    assert await api.get_purchase(SESSION) is None
    with pytest.raises(PurchasePending):
        await api.wait_for_purchase(SESSION, deadline=20.0)
    api, transport = _client(_script([PENDING, answer, answer, FULFILLED]))
    purchase = await api.wait_for_purchase(SESSION)
    assert len(purchase.nfts) == 1
    assert len(transport.sent) == 4


@pytest.mark.parametrize("failed", [{"status": "failed"}, {"error": "Transaction failed"}])
@pytest.mark.anyio
async def test_a_result_without_cards_may_tell_of_a_failure(failed: dict[str, str]) -> None:
    """What failed is not waited for."""
    body = {**json.loads(NO_CARDS["empty"].body), **failed}
    api, transport = _client(_script([Response(200, {}, json.dumps(body).encode()), FULFILLED]))
    with pytest.raises(TransactionFailed):
        await api.wait_for_purchase(SESSION)
    assert len(transport.sent) == 1


@pytest.mark.parametrize("nfts", [{"nfts": []}, {"nfts": None}, {}], ids=["empty", "null", "absent"])
@pytest.mark.anyio
async def test_a_purchase_may_start_without_cards(nfts: dict[str, object]) -> None:
    """It has a session, so it was started: nothing about it is unknown."""
    begun = Response(200, {}, json.dumps({"session_id": SESSION, **nfts}).encode())
    api, transport = _client(_script([begun]))
    started = await api.start_purchase("pack", 1, "user")
    assert (started.session_id, started.nfts) == (SESSION, ())
    api, transport = _client(_script([begun, NO_CARDS["empty"], FULFILLED]))
    assert len((await api.purchase("pack", 1, "user")).nfts) == 1
    assert _paths(transport) == ["/vm/buy/init", "/vm/buy/status", "/vm/buy/status"]


@pytest.mark.parametrize("polls", [0, 1])
@pytest.mark.parametrize("empty", [1, 2, 3])
@pytest.mark.anyio
async def test_a_sandbox_that_shows_results_without_cards(empty: int, polls: int) -> None:
    """The cards come, and belong to the user, once the answers without them are used up."""
    sandbox = Sandbox(seed=1, options=SandboxOptions(pending_polls=polls, empty_polls=empty))
    api, transport = _client(sandbox)
    purchase = await api.purchase(sandbox.packs[0].id, 2, "user")
    assert _paths(transport) == ["/vm/buy/init", *["/vm/buy/status"] * (polls + empty + 1)]
    assert [item.id for item in (await api.get_inventory("user")).items] == [nft.id for nft in purchase.nfts]


@pytest.mark.parametrize("polls", [0, 2])
@pytest.mark.anyio
async def test_a_failed_purchase_ends_the_waiting(polls: int) -> None:
    """A purchase that fails in fulfilment is an error at once, also after it was pending."""
    sandbox = Sandbox(seed=1, options=SandboxOptions(pending_polls=polls, fail_purchases=True))
    api, transport = _client(sandbox)
    started = await api.start_purchase(sandbox.packs[0].id, 1, "user")
    with pytest.raises(TransactionFailed) as caught:
        await api.wait_for_purchase(started.session_id)
    assert caught.value.arguments == {"session_id": started.session_id}
    assert len(transport.sent) == polls + 2


@pytest.mark.anyio
async def test_an_unknown_session_ends_the_waiting() -> None:
    """The sandbox answers at once for a session it does not know (section 4, S9)."""
    api, transport = _client(Sandbox(seed=1))
    with pytest.raises(TransactionFailed) as caught:
        await api.wait_for_purchase(SESSION)
    assert (caught.value.status, caught.value.operation) == (400, "get_purchase")
    assert len(transport.sent) == 1


PASSING: Final[list[Answer]] = [
    ConnectError("refused"),
    ConnectionLost("lost"),
    DeadlineExceeded("late"),
    ProtocolError("no HTTP"),
    TransportError("broken"),
    Response(500, {}, b""),
    Response(502, {}, b"<html>"),
    Response(520, {}, b""),
    Response(429, {"retry-after": "0"}, b""),
    Response(429, {}, b"<html>"),
]


@pytest.mark.parametrize("passing", PASSING, ids=lambda answer: str(getattr(answer, "status", type(answer).__name__)))
@pytest.mark.anyio
async def test_a_passing_failure_is_waited_through(passing: Answer) -> None:
    """A poll that fails tells nothing of the purchase; the next may succeed."""
    api, transport = _client(_script([passing, PENDING, passing, passing, FULFILLED]))
    purchase = await api.wait_for_purchase(SESSION)
    assert purchase.session_id == SESSION
    assert len(transport.sent) == 5


@pytest.mark.anyio
async def test_one_failure_of_each_kind_is_waited_through() -> None:
    """They may come mixed."""
    api, transport = _client(_script([*PASSING, FULFILLED]))
    await api.wait_for_purchase(SESSION)
    assert len(transport.sent) == len(PASSING) + 1


@pytest.mark.parametrize(
    ("lasting", "expected"),
    [
        (_error(401, "Invalid API key"), AuthenticationError),
        (Response(403, {}, b"<html>"), PermissionDenied),
        (Response(404, {}, b"<html>"), NotFound),
        (_error(400, "Transaction failed"), TransactionFailed),
        (Response(200, {}, b'{"status": "failed"}'), TransactionFailed),
        (Response(200, {}, b"<html>"), DecodeError),
        (ClientClosed("closed"), ClientClosed),
        (ConfigurationError("wrong loop"), ConfigurationError),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.anyio
async def test_a_lasting_failure_ends_the_waiting_at_once(lasting: Answer, expected: type[PhygitalsError]) -> None:
    """No further poll could meet anything else."""
    api, transport = _client(_script([PENDING, lasting, FULFILLED]))
    with pytest.raises(expected) as caught:
        await api.wait_for_purchase(SESSION)
    assert type(caught.value) is expected
    assert len(transport.sent) == 2
    assert caught.value.arguments == {"session_id": SESSION}


# Until the deadline


async def _still_pending(answers: Sequence[Answer]) -> PurchasePending:
    api, transport = _client(_script(answers))
    with pytest.raises(PurchasePending) as caught:
        await api.wait_for_purchase(SESSION, deadline=20.0)
    error = caught.value
    assert error.attempts == len(transport.sent) >= 5
    return error


@pytest.mark.anyio
async def test_a_deadline_means_pending_and_not_failed() -> None:
    """The error says how to go on, carries the session id, and survives a pickle."""
    error = await _still_pending([PENDING])
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, DeadlineExceeded)
    assert error.session_id == SESSION
    assert (error.operation, error.arguments) == ("wait_for_purchase", {"session_id": SESSION})
    assert error.sent is Sent.YES
    assert str(error) == (
        f"wait_for_purchase: still pending after 20 s: unknown, not failed; resume with session {SESSION}"
    )
    assert error.__cause__ is None
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert type(again) is PurchasePending
    assert vars(again) == vars(error)
    assert (str(again), again.session_id) == (str(error), SESSION)


@pytest.mark.anyio
async def test_the_last_failure_is_the_cause() -> None:
    """Where nothing could be learned, the error tells why."""
    lost = ConnectionLost("lost")
    error = await _still_pending([PENDING, lost])
    assert error.__cause__ is lost
    error = await _still_pending([Response(503, {}, b"")])
    assert isinstance(error.__cause__, ServerError)


@pytest.mark.anyio
async def test_a_failure_that_has_passed_is_not_the_cause() -> None:
    """A poll that said "pending" since then is what is known last."""
    error = await _still_pending([ConnectionLost("lost"), Response(500, {}, b""), PENDING])
    assert error.__cause__ is None


@pytest.mark.anyio
async def test_a_purchase_can_be_waited_for_again() -> None:
    """`PurchasePending` carries all that is needed to resume."""
    api, transport = _client(_script([PENDING]))
    with pytest.raises(PurchasePending) as caught:
        await api.wait_for_purchase(SESSION, deadline=10.0)
    before = len(transport.sent)
    api, transport = _client(_script([PENDING, FULFILLED]))
    purchase = await api.wait_for_purchase(caught.value.session_id)
    assert purchase.session_id == SESSION
    assert (before > 0, len(transport.sent)) == (True, 2)


@pytest.mark.parametrize("stuck", [False, True], ids=["in-a-pause", "in-a-poll"])
@pytest.mark.anyio
async def test_cancelling_a_waiter_is_cancellation(stuck: bool) -> None:
    """Neither a poll nor a pause swallows or wraps it."""
    polled = anyio.Event()
    seen: list[BaseException] = []

    async def handler(_: Request) -> Response:
        polled.set()
        if stuck:
            await anyio.sleep_forever()
        return PENDING

    api, transport = _client(handler)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(noting, seen, api.wait_for_purchase(SESSION, interval=1000.0, deadline=5000.0))
        await polled.wait()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    (cancellation,) = seen
    assert isinstance(cancellation, anyio.get_cancelled_exc_class())
    assert cancellation.__cause__ is None
    assert len(transport.sent) == 1


# How long it waits


def _pauses(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


@pytest.fixture
def jitter(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Take the jitter's randomness away, and give the ranges that were drawn from."""
    drawn: list[tuple[float, float]] = []

    def middle(low: float, high: float) -> float:
        drawn.append((low, high))
        return (low + high) / 2

    monkeypatch.setattr("random.uniform", middle)
    return drawn


async def _polls_at(interval: float, *, deadline: float) -> list[float]:
    """Return when a purchase that stays pending is polled, in seconds from the start."""
    times: list[float] = []
    start = anyio.current_time()

    def handler(_: Request) -> Response:
        times.append(anyio.current_time() - start)
        return PENDING

    api, _ = _client(handler)
    with pytest.raises(PurchasePending):
        await api.wait_for_purchase(SESSION, interval=interval, deadline=deadline)
    assert anyio.current_time() - start == pytest.approx(deadline)
    return times


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (1.0, [1.0, 1.5, 2.25, 3.375, 5.0, 5.0, 5.0]),
        (0.5, [0.5, 0.75, 1.125, 1.6875, 2.53125, 3.796875, 5.0, 5.0]),
        (4.0, [4.0, 5.0, 5.0]),
        (5.0, [5.0, 5.0]),
        (30.0, [30.0, 30.0]),
    ],
)
@pytest.mark.anyio
async def test_pauses_grow_to_five_seconds(
    interval: float, expected: list[float], jitter: list[tuple[float, float]]
) -> None:
    """Each is half as long again, up to 5 s, or to a longer interval of the caller's own."""
    times = await _polls_at(interval, deadline=sum(expected) + 0.1)
    assert times[0] == 0.0
    assert _pauses(times) == pytest.approx(expected)
    assert set(jitter) == {(0.75, 1.25)}


@pytest.mark.anyio
async def test_pauses_are_spread_by_a_quarter_either_way() -> None:
    """Callers that began together do not go on polling together."""
    runs = [_pauses(await _polls_at(1.0, deadline=60.0)) for _ in range(40)]
    for index, middle in enumerate([1.0, 1.5, 2.25, 3.375, 5.0, 5.0, 5.0, 5.0]):
        column = [run[index] for run in runs]
        assert all(0.75 * middle - 1e-6 <= pause <= 1.25 * middle + 1e-6 for pause in column)
        assert len(set(column)) > 30
        # 40 draws that all miss an outer two fifths of the range have odds of 0.6 ** 40, or 1 in 10 ** 9.
        assert min(column) < 0.95 * middle
        assert max(column) > 1.05 * middle
    assert all(pause <= 6.25 + 1e-6 for run in runs for pause in run)


@pytest.mark.anyio
async def test_the_default_is_ninety_seconds() -> None:
    """Without arguments the waiting begins at 1 s and ends after 90 s."""
    start = anyio.current_time()
    api, transport = _client(_script([PENDING]))
    with pytest.raises(PurchasePending, match="after 90 s"):
        await api.wait_for_purchase(SESSION)
    assert anyio.current_time() - start == pytest.approx(90.0)
    assert 14 <= len(transport.sent) <= 30


@pytest.mark.anyio
async def test_a_poll_may_be_held_but_not_for_ever() -> None:
    """The server holds a poll for about 6 s: that is waited for. One that is stuck is given up and asked again."""
    times: list[float] = []

    async def handler(_: Request) -> Response:
        times.append(anyio.current_time())
        await anyio.sleep(10_000.0 if len(times) == 2 else 6.0)
        return PENDING if len(times) == 1 else FULFILLED

    api, _ = _client(handler)
    await api.wait_for_purchase(SESSION)
    first, second = _pauses(times)
    assert 6.75 <= first <= 7.25
    assert 15.0 <= second <= 20.0
    assert len(times) == 3


@pytest.mark.anyio
async def test_the_deadline_cuts_a_poll_that_is_held() -> None:
    """The whole waiting ends in time, whatever is under way."""
    start = anyio.current_time()

    async def handler(_: Request) -> Response:
        await anyio.sleep_forever()
        return PENDING

    api, transport = _client(handler)
    with pytest.raises(PurchasePending) as caught:
        await api.wait_for_purchase(SESSION, deadline=3.0)
    assert anyio.current_time() - start == pytest.approx(3.0)
    assert (caught.value.attempts, len(transport.sent)) == (1, 1)


@pytest.mark.anyio
async def test_the_clients_own_deadline_does_not_shorten_the_waiting() -> None:
    """A client with short calls can still wait long."""

    async def handler(_: Request) -> Response:
        await anyio.sleep(6.0)
        return FULFILLED

    api = PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, deadline=0.5, converter=CONVERTER)
    assert (await api.wait_for_purchase(SESSION)).session_id == SESSION


@pytest.mark.anyio
@pytest.mark.parametrize(("deadline", "ends"), [(1.0, 1.0), (60.0, 7.0)])
async def test_the_start_of_a_purchase_has_the_clients_deadline_at_most(deadline: float, ends: float) -> None:
    """The deadline of `purchase` bounds all of it; one client-wide bounds the call that pays."""
    start = anyio.current_time()

    async def handler(_: Request) -> Response:
        await anyio.sleep_forever()
        return PENDING

    api = PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, deadline=7.0, converter=CONVERTER)
    with pytest.raises(OutcomeUnknown):
        await api.purchase("pack", 1, "user", deadline=deadline)
    assert anyio.current_time() - start == pytest.approx(ends)


# Start and wait


@pytest.mark.parametrize("polls", [0, 3])
@pytest.mark.anyio
async def test_a_purchase_is_started_once_and_waited_for(polls: int) -> None:
    """`purchase` is `start_purchase`, sent once, and `wait_for_purchase`."""
    sandbox = Sandbox(seed=1, options=SandboxOptions(pending_polls=polls))
    api, transport = _client(sandbox)
    purchase = await api.purchase(sandbox.packs[0].id, 3, "user")
    assert len(purchase.nfts) == 3
    assert _paths(transport) == ["/vm/buy/init", *["/vm/buy/status"] * (polls + 1)]
    assert len((await api.get_inventory("user")).items) == 3


@pytest.mark.anyio
async def test_a_purchase_is_waited_for_as_the_caller_says(jitter: list[tuple[float, float]]) -> None:
    """The deadline is for all of it, the interval for the waiting, which begins when the purchase has started."""
    times: list[float] = []

    async def handler(request: Request) -> Response:
        if request.url.endswith("/vm/buy/init"):
            await anyio.sleep(9.0)
            return Response(200, {}, fixture_bytes("purchase-init.json"))
        times.append(anyio.current_time())
        return PENDING

    api, _ = _client(handler)
    start = anyio.current_time()
    with pytest.raises(PurchasePending, match="after 20 s"):
        await api.purchase("pack", 1, "user", deadline=29.0, interval=8.0)
    assert [time - start for time in times] == pytest.approx([9.0, 17.0, 25.0])
    assert anyio.current_time() - start == pytest.approx(29.0)
    assert set(jitter) == {(0.75, 1.25)}


@pytest.mark.anyio
async def test_a_purchase_is_started_once_whatever_polling_meets() -> None:
    """No failure of the waiting starts another purchase."""
    sandbox = Sandbox(seed=1, options=SandboxOptions(pending_polls=2))
    failures = [ConnectionLost("lost"), ServerError("500"), RateLimited("429")]

    def handler(request: Request) -> Response:
        if request.url.endswith("/vm/buy/status") and failures:
            raise failures.pop()
        return sandbox(request)

    api, transport = _client(handler)
    await api.purchase(sandbox.packs[0].id, 1, "user")
    assert _paths(transport).count("/vm/buy/init") == 1
    assert len((await api.get_inventory("user")).items) == 1


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (ConnectionLost("lost"), OutcomeUnknown),
        (Response(500, {}, b""), OutcomeUnknown),
        (Response(200, {}, b"{}"), OutcomeUnknown),
        (ConnectError("refused"), ConnectError),
        (_error(400, "Claw machine is out of stock"), OutOfStock),
        (Response(429, {}, b""), RateLimited),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.anyio
async def test_a_purchase_that_did_not_start_is_not_waited_for(first: Answer, expected: type[PhygitalsError]) -> None:
    """The error of the start is the caller's, after that one request."""
    api, transport = _client(_script([first, FULFILLED]))
    with pytest.raises(expected) as caught:
        await api.purchase("pack", 1, "user")
    assert type(caught.value) is expected
    assert caught.value.operation == "start_purchase"
    assert caught.value.arguments == {"pack_id": "pack", "amount": 1, "user_id": "user"}
    assert _paths(transport) == ["/vm/buy/init"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PENDING, PurchasePending),
        (ConnectionLost("lost"), PurchasePending),
        (_error(401, "Invalid API key"), AuthenticationError),
        (_error(400, "Transaction failed"), TransactionFailed),
        (Response(200, {}, b"[]"), DecodeError),
        (ResponseTooLarge("large"), PurchasePending),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.anyio
async def test_each_error_of_the_waiting_carries_the_session(answer: Answer, expected: type[PhygitalsError]) -> None:
    """The session id is the only handle on a purchase that money was paid for."""
    started = Response(200, {}, fixture_bytes("purchase-init.json"))
    api, transport = _client(_script([started, answer]))
    with pytest.raises(expected) as caught:
        await api.purchase("pack", 1, "user", deadline=20.0)
    assert caught.value.arguments == {"session_id": SESSION}
    assert _paths(transport).count("/vm/buy/init") == 1


@pytest.mark.anyio
async def test_the_session_is_carried_also_where_the_client_is_closed_meanwhile() -> None:
    """An application that shuts down in the middle of a purchase does not lose hold of it."""
    started = Response(200, {}, fixture_bytes("purchase-init.json"))
    polls = 0

    async def handler(request: Request) -> Response:
        nonlocal polls
        if request.url.endswith("/vm/buy/init"):
            return started
        polls += 1
        await api.aclose()
        return PENDING

    api, _ = _client(handler)
    with pytest.raises(PurchasePending, match="when the client was closed") as caught:
        await api.purchase("pack", 1, "user")
    assert polls == 1
    assert isinstance(caught.value.__cause__, ClientClosed)
    assert caught.value.session_id == SESSION


@pytest.mark.anyio
async def test_a_client_closed_between_start_and_first_poll() -> None:
    """`ClientClosed` would say that nothing was sent, and the purchase was."""
    started = Response(200, {}, fixture_bytes("purchase-init.json"))

    async def handler(request: Request) -> Response:
        api._engine.closed = True
        return started

    api, transport = _client(handler)
    with pytest.raises(PurchasePending) as caught:
        await api.purchase("pack", 1, "user")
    assert caught.value.session_id == SESSION
    assert len(transport.sent) == 1
    with pytest.raises(ClientClosed):
        await api.wait_for_purchase(SESSION)


# Orders


def _order(status: str) -> Response:
    return Response(200, {}, json.dumps({**fixture_json("ship-order.json"), "status": status}).encode())


async def _watched(api: PhygitalsClient, order_id: str = "order_123") -> list[ShippingOrder]:
    return [order async for order in api.watch_order(order_id)]


@pytest.mark.parametrize("polls_per_stage", [1, 2, 3])
@pytest.mark.anyio
async def test_an_order_is_shown_at_each_status_once(polls_per_stage: int) -> None:
    """However often it is asked, each status comes once, in order, until it is delivered."""
    stage = timedelta(hours=6)
    sandbox = Sandbox(seed=1, clock=lambda: NOW, options=SandboxOptions(order_stage=stage))

    def handler(request: Request) -> Response:
        answer = sandbox(request)
        if "/ship/order/" in request.url:
            sandbox.advance(stage / polls_per_stage)
        return answer

    api, transport = _client(handler)
    order_id = await _ordered(sandbox, api)
    orders = await _watched(api, order_id)
    assert [order.status for order in orders] == STAGES
    assert {order.order_id for order in orders} == {order_id}
    assert [order.tracking_number is not None for order in orders] == [False, False, True, True, True]
    assert [order.shipped_at is not None for order in orders] == [False, False, False, True, True]
    assert [order.delivered_at is not None for order in orders] == [False, False, False, False, True]
    polls = [path for path in _paths(transport) if path == f"/ship/order/{order_id}"]
    assert len(polls) == 4 * polls_per_stage + 1


async def _ordered(sandbox: Sandbox, api: PhygitalsClient) -> str:
    """Make an order and return its id."""
    purchase = await api.purchase(sandbox.packs[0].id, 1, "user")
    quotes = await api.quote_shipping([nft.id for nft in purchase.nfts], DESTINATION)
    return (await api.request_shipping(quotes.quotes[0].id)).order_id


@pytest.mark.anyio
async def test_an_order_that_jumps_ahead_is_shown_as_it_is() -> None:
    """A status passed between two polls is not made up."""
    stage = timedelta(hours=6)
    sandbox = Sandbox(seed=1, options=SandboxOptions(order_stage=stage))
    api, _ = _client(sandbox)
    order_id = await _ordered(sandbox, api)
    shown = []
    async for order in api.watch_order(order_id):
        shown.append(order.status)
        sandbox.advance(2 * stage)
    assert shown == [OrderStatus.QUEUED, OrderStatus.LABEL_CREATED, OrderStatus.DELIVERED]


@pytest.mark.anyio
async def test_a_cancelled_order_ends_the_watching() -> None:
    """It is shown with its message, and not asked for again."""
    stage = timedelta(hours=6)
    sandbox = Sandbox(seed=1, options=SandboxOptions(order_stage=stage, cancel_orders=True))
    api, transport = _client(sandbox)
    order_id = await _ordered(sandbox, api)
    shown = []
    with anyio.fail_after(10_000.0):
        async for order in api.watch_order(order_id):
            shown.append((order.status, order.error_message))
            sandbox.advance(stage)
    assert shown == [(OrderStatus.QUEUED, None), (OrderStatus.CANCELLED, "The order was cancelled.")]
    assert _paths(transport).count(f"/ship/order/{order_id}") == 2


@pytest.mark.parametrize("status", ["delivered", "cancelled", "failed"])
@pytest.mark.anyio
async def test_an_order_at_rest_is_shown_once(status: str) -> None:
    """A terminal order takes one request and no pause."""
    api, transport = _client(_script([_order(status)]))
    with anyio.fail_after(10_000.0):
        orders = [order async for order in api.watch_order("order_123", interval=1000.0)]
    assert [order.status for order in orders] == [status]
    assert len(transport.sent) == 1


@pytest.mark.anyio
async def test_an_unknown_status_is_shown_and_watched_on() -> None:
    """A status that this library does not know is no end; each unknown text is a change of its own."""
    texts = ["queued", "held_at_customs", "held_at_customs", "out_for_delivery", "queued", "Delivered", "delivered"]
    api, transport = _client(_script([_order(text) for text in texts]))
    shown = [str(order.status) for order in await _watched(api)]
    assert shown == ["queued", "held_at_customs", "out_for_delivery", "queued", "Delivered", "delivered"]
    assert len(transport.sent) == len(texts)


@pytest.mark.anyio
async def test_an_unknown_order_cannot_be_watched() -> None:
    """The refusal comes when the watching begins."""
    api, transport = _client(Sandbox(seed=1))
    with pytest.raises(OrderNotFound) as caught:
        await _watched(api, "nope")
    assert caught.value.arguments == {"order_id": "nope"}
    assert len(transport.sent) == 1


@pytest.mark.anyio
async def test_a_passing_failure_does_not_end_the_watching_of_an_order() -> None:
    """Watching goes on for days, and the network is not always there."""
    failures: list[Answer] = [
        ConnectionLost("lost"),
        Response(503, {}, b""),
        Response(429, {"retry-after": "300"}, b""),
    ]
    api, _ = _client(_script([_order("queued"), *failures, _order("delivered")]))
    start = anyio.current_time()
    assert [str(order.status) for order in await _watched(api)] == ["queued", "delivered"]
    assert anyio.current_time() - start > 300


@pytest.mark.parametrize("asked", ["3601", "9" * 35])
@pytest.mark.anyio
async def test_a_server_that_wants_nobody_for_long_ends_the_watching(asked: str) -> None:
    """Years of silence are no watching."""
    api, transport = _client(_script([_order("queued"), Response(429, {"retry-after": asked}, b"")]))
    watching = api.watch_order("order_123")
    assert str((await anext(watching)).status) == "queued"
    with pytest.raises(RateLimited):
        await anext(watching)
    assert len(transport.sent) == 2


@pytest.mark.anyio
async def test_a_lasting_failure_ends_the_watching_of_an_order() -> None:
    """What no later poll would change is the caller's."""
    api, _ = _client(_script([_order("queued"), _error(401, "Invalid API key")]))
    watching = api.watch_order("order_123")
    assert str((await anext(watching)).status) == "queued"
    with pytest.raises(AuthenticationError) as caught:
        await anext(watching)
    assert (caught.value.operation, caught.value.arguments) == ("get_shipping_order", {"order_id": "order_123"})


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.anyio
async def test_the_watching_of_an_order_has_a_deadline_if_given_one(broken: bool) -> None:
    """It ends on time, also in the middle of a pause or a poll, and says what the last poll met."""
    api, transport = _client(_script([_order("queued"), ConnectionLost("lost") if broken else _order("queued")]))
    start = anyio.current_time()
    with pytest.raises(DeadlineExceeded, match="within 150 s; its status was last queued") as caught:  # noqa: PT012
        async for order in api.watch_order("order_123", deadline=150.0):
            assert str(order.status) == "queued"
    assert anyio.current_time() - start == pytest.approx(150.0)
    assert isinstance(caught.value.__cause__, ConnectionLost) is broken
    assert (caught.value.operation, caught.value.arguments) == ("watch_order", {"order_id": "order_123"})
    assert caught.value.attempts == len(transport.sent)


@pytest.mark.anyio
async def test_a_failure_that_has_passed_does_not_end_the_watching_of_an_order() -> None:
    """Answered since, it is not why the watching came to no end, nor does what it asked for hold up later polls."""
    limited = Response(429, {"retry-after": "100"}, b"")
    api, transport = _client(_script([_order("queued"), limited, _order("queued")]))
    with pytest.raises(DeadlineExceeded) as caught:
        async for _ in api.watch_order("order_123", interval=10.0, deadline=200.0):
            pass
    assert caught.value.__cause__ is None
    # At about 0 and 10 seconds, and from 110 on every ten.
    assert len(transport.sent) >= 2 + 90 // 12.5


@pytest.mark.anyio
async def test_a_poll_that_asks_to_wait_is_not_repeated_sooner() -> None:
    """Waiting for a purchase honours Retry-After, however long the pauses between polls are."""
    times: list[float] = []

    def handler(_: Request) -> Response:
        times.append(anyio.current_time())
        return Response(429, {"retry-after": "40"}, b"") if len(times) == 1 else FULFILLED

    api, _ = _client(handler)
    await api.wait_for_purchase(SESSION)
    assert times[1] - times[0] >= 40.0


@pytest.mark.anyio
async def test_nothing_is_asked_before_the_watching_begins() -> None:
    """The iterator is lazy, and asks once for each order it shows."""
    api, transport = _client(_script([_order("queued"), _order("shipped"), _order("delivered")]))
    watching = api.watch_order("order_123")
    assert transport.sent == []
    assert str((await anext(watching)).status) == "queued"
    assert len(transport.sent) == 1
    assert str((await anext(watching)).status) == "shipped"
    assert len(transport.sent) == 2
    assert str((await anext(watching)).status) == "delivered"
    with pytest.raises(StopAsyncIteration):
        await anext(watching)
    assert len(transport.sent) == 3


@pytest.mark.anyio
async def test_cancelling_a_watcher_is_cancellation() -> None:
    """A sandbox order stays queued for ever; a bound around the watching ends it."""
    api, transport = _client(_script([_order("queued")]))
    watching = api.watch_order("order_123")
    assert str((await anext(watching)).status) == "queued"
    with anyio.move_on_after(600.0) as scope:
        await anext(watching)
    assert scope.cancelled_caught
    assert len(transport.sent) >= 8


@pytest.mark.anyio
async def test_polls_of_an_order_are_spread_by_a_quarter_either_way() -> None:
    """By default an order is asked for about once a minute, and the pauses do not grow."""
    times: list[float] = []

    def handler(_: Request) -> Response:
        times.append(anyio.current_time())
        return _order("queued" if len(times) < 200 else "delivered")

    api, _ = _client(handler)
    assert [str(order.status) async for order in api.watch_order("order_123")] == ["queued", "delivered"]
    pauses = _pauses(times)
    assert len(pauses) == 199
    assert all(45.0 - 1e-6 <= pause <= 75.0 + 1e-6 for pause in pauses)
    assert min(pauses) < 50.0
    assert max(pauses) > 70.0


@pytest.mark.anyio
async def test_watching_takes_the_interval_given(jitter: list[tuple[float, float]]) -> None:
    """The interval is the caller's."""
    times: list[float] = []

    def handler(_: Request) -> Response:
        times.append(anyio.current_time())
        return _order("queued" if len(times) < 4 else "failed")

    api, _ = _client(handler)
    statuses = [order.status async for order in api.watch_order("order_123", interval=3600.0)]
    assert statuses == [OrderStatus.QUEUED, OrderStatus.FAILED]
    assert _pauses(times) == pytest.approx([3600.0] * 3)
    assert set(jitter) == {(0.75, 1.25)}


@pytest.mark.parametrize(
    "lasting", [CertificateRefused("expired"), ConfigurationError("wrong loop"), ConnectError("none")]
)
@pytest.mark.anyio
async def test_a_purchase_that_was_started_is_never_said_to_be_unsent(lasting: PhygitalsError) -> None:
    """Whoever buys again after an error that says *never sent* must not buy twice."""

    def handler(request: Request) -> Response:
        if request.url.endswith("/vm/buy/init"):
            return Response(200, {}, json.dumps({"session_id": SESSION}).encode())
        raise lasting

    api = PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test")
    with pytest.raises(PurchasePending) as caught:
        await api.purchase("pack", 1, "user_abc123", deadline=5)
    assert caught.value.session_id == SESSION
    assert caught.value.sent is not Sent.NEVER
    assert type(caught.value.__cause__) is type(lasting)

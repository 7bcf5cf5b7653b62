"""What an observer is told, in which order, and what it is never told."""

from __future__ import annotations

import copy
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from phygitals_async import (
    Attempt,
    Call,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DecodeError,
    Found,
    InvalidArgumentError,
    Observer,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    Progress,
    Request,
    Response,
    RetryPolicy,
    ServerError,
    UserNotFound,
)
from phygitals_async._calls import exchange as exchange_module
from phygitals_transports import MemoryTransport
from support import empty_inventories, inventory_of
from virtual import virtual_backend

anyio_backend = virtual_backend

KEY = "sandbox-observed-key"
USER = "user_observed_17"
QUICK = RetryPolicy(base=1e-6)


class Recorder:
    """Keeps what it is told, as text made at that moment."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.calls: list[Call] = []
        self.attempts: list[Attempt] = []
        self.everything: list[str] = []

    def started(self, call: Call) -> None:
        """Keep it."""
        self._keep(call, call)
        self.told.append(f"started {call.operation}")

    def attempting(self, call: Call) -> None:
        """Keep it, but for the order, which the attempts' ends tell."""
        self._keep(call, call)

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Keep it."""
        self._keep(call, attempt)
        self.attempts.append(attempt)
        error = None if attempt.error is None else attempt.error.__name__
        self.told.append(f"attempted {call.attempts} {attempt.status} {error}")

    def retrying(self, call: Call, seconds: float) -> None:
        """Keep it."""
        self._keep(call, seconds)
        assert seconds >= 0
        self.told.append(f"retrying {call.attempts}")

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Keep it."""
        self._keep(call, error)
        self.told.append(f"finished {call.attempts} {None if error is None else error.__name__}")

    def progressed(self, progress: Progress) -> None:
        """Keep it."""
        self.everything.append(deep(progress))
        self.told.append(f"progressed {progress.done}")

    def _keep(self, call: Call, more: object) -> None:
        self.calls.append(call)
        self.everything += [deep(call), deep(more)]


def deep(value: object, depth: int = 0) -> str:
    """Return everything that can be read off a value, its attributes and its cause included."""
    if value is None or isinstance(value, str | bytes | int | float) or depth > 6:
        return str(value)
    parts = [repr(value), str(value)]
    fields: tuple[Any, ...] = getattr(type(value), "__attrs_attrs__", ())
    parts += [deep(getattr(value, field.name), depth + 1) for field in fields]
    if isinstance(value, BaseException):
        parts += [deep(value.args, depth + 1), deep(vars(value), depth + 1)]
        parts += [deep(value.__cause__, depth + 1), deep(value.__context__, depth + 1)]
    if isinstance(value, dict):
        parts += [deep(part, depth + 1) for pair in value.items() for part in pair]
    elif isinstance(value, list | tuple | set):
        parts += [deep(part, depth + 1) for part in value]
    return "\n".join(parts)


def client(*answers: Any, observer: Observer | None, **options: Any) -> PhygitalsClient:
    """Return an observed client that gets the answers in turn, the last again and again; errors are raised."""
    left = list(answers)

    async def answer(request: Request) -> Response:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, PhygitalsError):
            # A fresh object each time, as a real transport raises.
            raise type(step)(*step.args)
        if step is None:
            await anyio.sleep_forever()
        if callable(step):
            return empty_inventories(request)
        assert isinstance(step, Response)
        return step

    return PhygitalsClient(MemoryTransport(answer), api_key=KEY, observer=observer, **{"retry": QUICK, **options})


@pytest.mark.anyio
async def test_a_success_is_told_in_order() -> None:
    """Begin, one attempt with its status and sizes, end; one `Call` throughout."""
    recorder = Recorder()
    api = client(empty_inventories, observer=recorder)
    await api.get_inventory("u")
    assert recorder.told == ["started get_inventory", "attempted 1 200 None", "finished 1 None"]
    assert len({id(call) for call in recorder.calls}) == 1
    (attempt,) = recorder.attempts
    assert (attempt.status, attempt.error, attempt.request_bytes) == (200, None, 0)
    assert attempt.response_bytes == len(inventory_of("u").body)
    assert 0 <= attempt.seconds < 5


@pytest.mark.anyio
async def test_repeats_are_told_in_order() -> None:
    """Each attempt, each pause, and the success at the end."""
    recorder = Recorder()
    api = client(
        Response(500, {}, b"oops"),
        ConnectionLost(),
        Response(429, {"retry-after": "0"}, b""),
        empty_inventories,
        observer=recorder,
    )
    await api.get_inventory("u")
    assert recorder.told == [
        "started get_inventory",
        "attempted 1 500 ServerError",
        "retrying 1",
        "attempted 2 None ConnectionLost",
        "retrying 2",
        "attempted 3 429 RateLimited",
        "retrying 3",
        "attempted 4 200 None",
        "finished 4 None",
    ]
    assert [attempt.response_bytes for attempt in recorder.attempts] == [4, 0, 0, len(inventory_of("u").body)]


@pytest.mark.anyio
async def test_giving_up_is_told() -> None:
    """The last error is the one that is raised."""
    recorder = Recorder()
    api = client(Response(500, {}, b""), observer=recorder, retry=RetryPolicy(retries=1, base=1e-6))
    with pytest.raises(ServerError):
        await api.get_inventory("u")
    assert recorder.told[-2:] == ["attempted 2 500 ServerError", "finished 2 ServerError"]


@pytest.mark.anyio
async def test_a_call_refused_before_it_is_sent_is_told() -> None:
    """It begins and ends without an attempt."""
    recorder = Recorder()
    api = client(empty_inventories, observer=recorder)
    with pytest.raises(InvalidArgumentError):
        await api.get_inventory("..")
    assert recorder.told == ["started get_inventory", "finished 0 InvalidArgumentError"]


@pytest.mark.anyio
async def test_a_cancelled_call_is_told() -> None:
    """Its attempt has neither status nor error, and it ends without an error."""
    recorder = Recorder()
    api = client(None, observer=recorder)
    with anyio.move_on_after(0.01):
        await api.get_inventory("u")
    assert recorder.told == ["started get_inventory", "attempted 1 None None", "finished 1 None"]


@pytest.mark.anyio
async def test_the_log_calls_a_cancelled_attempt_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """`NoneType` means nothing to whoever reads the log."""
    with caplog.at_level(logging.DEBUG, logger="phygitals_async"), anyio.move_on_after(0.01):
        await client(None, observer=None).get_inventory("u")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "phygitals_async"]
    assert "NoneType" not in line
    assert line.startswith("get_inventory: attempt 1: ")


@pytest.mark.anyio
async def test_the_sizes_of_a_request_are_told() -> None:
    """The body's bytes are counted."""
    recorder = Recorder()
    transport = MemoryTransport(lambda _: Response(200, {}, b'{"session_id":"s"}'))
    api = PhygitalsClient(transport, api_key=KEY, observer=recorder)
    await api.start_purchase("p", 1, "u")
    assert recorder.attempts[0].request_bytes == len(transport.sent[0].body or b"") > 0


@pytest.mark.anyio
async def test_the_end_of_a_purchase_of_unknown_outcome_is_told_as_such() -> None:
    """The observer learns of the error that the caller gets."""
    recorder = Recorder()
    api = client(ConnectionLost(), observer=recorder)
    with pytest.raises(OutcomeUnknown):
        await api.start_purchase("p", 1, "u")
    assert recorder.told == [
        "started start_purchase",
        "attempted 1 None ConnectionLost",
        "finished 1 OutcomeUnknown",
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(("money", "raised"), [(False, DecodeError), (True, OutcomeUnknown)])
async def test_an_answer_that_cannot_be_read_is_told(money: bool, raised: type[PhygitalsError]) -> None:
    """A 2xx that is no usable answer is no success."""
    recorder = Recorder()
    api = client(Response(200, {}, b"[]"), observer=recorder)
    with pytest.raises(raised):
        await (api.start_purchase("p", 1, "u") if money else api.get_inventory("u"))
    assert recorder.told[-1] == f"finished 1 {raised.__name__}"


@pytest.mark.anyio
async def test_the_progress_of_a_bulk_run_is_told() -> None:
    """Once for every outcome the consumer takes."""
    recorder = Recorder()
    unknown_user = Response(404, {}, b'{"error":"User not found"}')
    api = client(empty_inventories, unknown_user, empty_inventories, observer=recorder)
    async with api.stream_inventories(["a", "b", "c"], limit=1) as outcomes:
        kinds = [type(outcome) async for outcome in outcomes]
    assert kinds.count(Found) == 2
    assert [line for line in recorder.told if line.startswith("progressed")] == [f"progressed {n}" for n in (1, 2, 3)]
    assert sum(line.startswith("started") for line in recorder.told) == 3
    assert sum(line.startswith("finished") for line in recorder.told) == 3


class Faulty:
    """Raises in every hook."""

    def _fail(self, *_: object) -> None:
        msg = "a bug of the observer"
        raise RuntimeError(msg)

    started = attempting = attempted = retrying = finished = progressed = _fail


@pytest.mark.anyio
async def test_an_observer_that_raises_loses_no_result(caplog: pytest.LogCaptureFixture) -> None:
    """Every hook fails, and a purchase, a repeated read and a bulk run give their results; the log says why."""
    faulty: Any = Faulty()
    api = client(Response(200, {}, b'{"session_id":"s"}'), observer=faulty)
    assert (await api.start_purchase("p", 1, "u")).session_id == "s"
    api = client(ConnectError(), empty_inventories, observer=faulty)
    assert (await api.get_inventory("u")).user_id == "u"
    assert len((await api.get_inventories(["a", "b"])).found) == 2
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    # Once for each hook of each client: a fault in a hook must not fill the log.
    assert len(failures) == 4 + 6
    assert all(record.name == "phygitals_async" and record.exc_info for record in failures)


class Half(Observer):
    """Needs one hook only."""

    def __init__(self) -> None:
        self.finished_calls = 0

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Count."""
        self.finished_calls += 1


@pytest.mark.anyio
async def test_a_subclass_inherits_the_hooks_it_does_not_need() -> None:
    """All of them are called, and those not overridden do nothing."""
    half = Half()
    api = client(Response(429, {}, b""), empty_inventories, observer=half)
    await api.get_inventory("u")
    assert len((await api.get_inventories(["a", "b"])).found) == 2
    assert half.finished_calls == 3


class Older:
    """No subclass, and made when there was no hook for the beginning of an attempt."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name == "attempting" or name.startswith("_"):
            raise AttributeError(name)
        return lambda *_: self.told.append(name)


@pytest.mark.anyio
async def test_an_observer_that_leaves_out_the_beginning_of_attempts(caplog: pytest.LogCaptureFixture) -> None:
    """It is called for all else, and nothing is logged."""
    older: Any = Older()
    await client(empty_inventories, observer=older).get_inventory("u")
    assert older.told == ["started", "attempted", "finished"]
    assert caplog.records == []


@pytest.mark.anyio
async def test_a_subclass_that_needs_no_hook_at_all() -> None:
    """It is an observer, and observes nothing."""

    class Blind(Observer):
        pass

    assert (await client(empty_inventories, observer=Blind()).get_inventory("u")).user_id == "u"


@pytest.mark.anyio
async def test_answers_that_nobody_takes_end_their_calls() -> None:
    """Leaving a bulk run early leaves no call open in the eyes of the observer."""
    half = Half()
    api = client(empty_inventories, observer=half)
    async with api.stream_inventories((f"user_{n}" for n in range(50)), limit=8) as outcomes:
        await anext(outcomes)
        await anyio.wait_all_tasks_blocked()
        attempts = outcomes.progress.attempts
    assert half.finished_calls == attempts > 1


def test_hooks_that_would_never_run_are_refused() -> None:
    """A coroutine function would only make coroutines that nobody awaits."""

    class Async(Half):
        async def started(self, call: Call) -> None:  # type: ignore[override]
            raise AssertionError

    with pytest.raises(ConfigurationError, match="the observer's started must be a plain method"):
        client(empty_inventories, observer=Async())


@pytest.mark.anyio
async def test_an_observer_that_raises_does_not_hide_the_error() -> None:
    """The caller gets the call's own error."""
    faulty: Any = Faulty()
    api = client(ConnectionLost("broke"), observer=faulty)
    with pytest.raises(OutcomeUnknown, match="broke"):
        await api.start_purchase("p", 1, "u")


@pytest.mark.anyio
async def test_without_an_observer_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `Attempt` is made and no clock read for nobody; with an observer or debug logging, it is."""
    built = 0

    def counted(**values: Any) -> Attempt:
        nonlocal built
        built += 1
        return Attempt(**values)

    monkeypatch.setattr(exchange_module, "Attempt", counted)
    logging.getLogger("phygitals_async").setLevel(logging.INFO)
    try:
        await client(Response(500, {}, b""), empty_inventories, observer=None).get_inventory("u")
        assert built == 0
        await client(empty_inventories, observer=Recorder()).get_inventory("u")
        assert built == 1
        logging.getLogger("phygitals_async").setLevel(logging.DEBUG)
        await client(empty_inventories, observer=None).get_inventory("u")
        assert built == 2
    finally:
        logging.getLogger("phygitals_async").setLevel(logging.NOTSET)


CALLS: list[Any] = [
    pytest.param(lambda api: api.get_inventory(USER), id="get_inventory"),
    pytest.param(lambda api: api.start_purchase("pack_observed", 1, USER), id="start_purchase"),
    pytest.param(lambda api: api.sell_back("item_observed"), id="sell_back"),
    pytest.param(lambda api: api.get_shipping_order("order_observed"), id="get_shipping_order"),
    pytest.param(lambda api: api.get_inventories([USER]), id="get_inventories"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        empty_inventories,
        Response(404, {}, b'{"error":"User not found"}'),
        Response(500, {}, b'{"error":"no"}'),
        Response(401, {}, b'{"error":"unknown key sandbox-observed-key"}'),
        ConnectionLost("the connection broke"),
        Response(429, {"retry-after": "0"}, b'{"error":"slow down"}'),
    ],
)
async def test_no_id_and_no_key_reaches_an_observer(
    call: Callable[[PhygitalsClient], Awaitable[object]], answer: Any
) -> None:
    """Everything that is handed over is read to the bottom, at the moment it is handed over.

    What the server itself says stays in the errors' texts, so here it says no ids.
    """
    recorder = Recorder()
    times = 1 if getattr(answer, "status", 0) == 429 else 3
    api = client(*[answer] * times, empty_inventories, observer=recorder)
    with suppress(PhygitalsError):
        await call(api)
    assert recorder.everything
    for text in recorder.everything:
        assert KEY not in text
        assert "_observed" not in text
        assert "http" not in text


def test_what_is_handed_over_is_plain() -> None:
    """An `Attempt` can be copied and compared; a `Call` stands for itself."""
    attempt = Attempt(status=404, error=None, request_bytes=0, response_bytes=1, seconds=0.5)
    assert copy.deepcopy(attempt) == attempt
    assert Call("a") != Call("a")
    assert len({Call("a"), Call("a")}) == 2


@pytest.mark.anyio
async def test_concurrent_calls_are_told_apart() -> None:
    """Each hook of a call names that call."""
    recorder = Recorder()
    api = client(empty_inventories, observer=recorder)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(api.get_inventory, "u")
    calls = {id(call): call for call in recorder.calls}
    assert len(calls) == 20
    assert all(call.attempts == 1 for call in calls.values())
    assert all(sum(other is call for other in recorder.calls) == 4 for call in calls.values())


@pytest.mark.anyio
async def test_a_refusal_is_told_with_its_own_class() -> None:
    """The named refusals arrive as such."""
    recorder = Recorder()
    with pytest.raises(UserNotFound):
        await client(Response(404, {}, b'{"error":"User not found"}'), observer=recorder).get_inventory("u")
    assert recorder.told[1:] == ["attempted 1 404 UserNotFound", "finished 1 UserNotFound"]

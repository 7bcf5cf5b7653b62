"""One span for each call: named, timed, and free of ids."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from phygitals_async import (
    Call,
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
)
from phygitals_async._calls.lookups import Counts
from phygitals_async.opentelemetry import OpenTelemetryObserver
from phygitals_transports import MemoryTransport
from support import empty_inventories, inventory_of
from virtual import virtual_backend

anyio_backend = virtual_backend

INVENTORY = inventory_of("user_traced")


class Traces:
    """A tracer, and the spans it ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("tests")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The ended spans."""
        return self._exporter.get_finished_spans()


@pytest.fixture
def traces() -> Traces:
    """Return a tracer of its own for each test."""
    return Traces()


def client(traces: Traces, *answers: Any) -> PhygitalsClient:
    """Return a traced client that gets the answers in turn, the last again and again; errors are raised."""
    left = list(answers)

    async def answer(request: Request) -> Response:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, PhygitalsError):
            raise step
        if step is None:
            await anyio.sleep_forever()
        if step is INVENTORY:
            return empty_inventories(request)
        assert isinstance(step, Response)
        return step

    observer: Observer = OpenTelemetryObserver(traces.tracer)
    retry = RetryPolicy(base=1e-6)
    return PhygitalsClient(MemoryTransport(answer), api_key="sandbox-traced-key", observer=observer, retry=retry)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


@pytest.mark.anyio
async def test_a_call_is_one_span(traces: Traces) -> None:
    """Named for the operation, of kind client, with status and sizes."""
    await client(traces, INVENTORY).get_inventory("user_traced")
    (span,) = traces.spans
    assert span.name == "phygitals get_inventory"
    assert span.kind is SpanKind.CLIENT
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time >= span.start_time
    assert attributes(span) == {
        "http.request.method": "GET",
        "server.address": "api.phygitals.com",
        "server.port": 443,
        "url.template": "/_/api/v1/inventory/{user_id}",
        "http.request.body.size": 0,
        "http.response.status_code": 200,
        "phygitals.response.decoded_size": len(INVENTORY.body),
    }


@pytest.mark.anyio
async def test_where_a_call_goes(traces: Traces) -> None:
    """The port is that of the URL, or of its scheme."""
    roots = {
        "http://127.0.0.1:8765/_": 8765,
        "http://127.0.0.1": 80,
        "https://gw.example/p": 443,
        "http://[::1]:81": 81,
    }
    for root, port in roots.items():
        transport = MemoryTransport(empty_inventories)
        observer = OpenTelemetryObserver(traces.tracer)
        api = PhygitalsClient(transport, api_key="sandbox-traced-key", observer=observer, base_url=root)
        await api.get_inventory("user_traced")
        shown = attributes(traces.spans[-1])
        assert shown["server.port"] == port
        assert f"//{shown['server.address']}".replace("::1", "[::1]") in root
        assert shown["url.template"].endswith("/api/v1/inventory/{user_id}")
    assert attributes(traces.spans[2])["url.template"] == "/p/api/v1/inventory/{user_id}"


@pytest.mark.anyio
async def test_the_span_is_current_while_an_attempt_is_made(traces: Traces) -> None:
    """And not in the pauses, nor afterwards, whatever becomes of the call; a call within an attempt is a child."""
    seen: list[Any] = []
    outer = trace.get_current_span()

    async def handler(request: Request) -> Response:
        current = trace.get_current_span()
        seen.append(current)
        await anyio.sleep(0.001)
        assert trace.get_current_span() is current
        if len(seen) == 1:
            await inner.get_inventory("inner")
            return Response(500, {}, b"")
        assert trace.get_current_span() is current
        return empty_inventories(request)

    def at_the_bottom(request: Request) -> Response:
        seen.append(trace.get_current_span())
        return empty_inventories(request)

    class Pausing(OpenTelemetryObserver):
        def retrying(self, call: Call, seconds: float) -> None:
            super().retrying(call, seconds)
            assert trace.get_current_span() is outer

    observer = Pausing(traces.tracer)
    inner = PhygitalsClient(MemoryTransport(at_the_bottom), api_key="sandbox-traced-key", observer=observer)
    api = PhygitalsClient(
        MemoryTransport(handler), api_key="sandbox-traced-key", observer=observer, retry=RetryPolicy(base=1e-6)
    )
    await api.get_inventory("outer")
    assert trace.get_current_span() is outer
    child, parent = traces.spans
    assert [current.get_span_context() for current in seen] == [parent.context, child.context, parent.context]
    assert child.parent == parent.context
    with anyio.move_on_after(0.0005):
        await api.get_inventory("cancelled")
    assert trace.get_current_span() is outer
    (outcome,) = await api.get_inventories(["bulk"])
    assert isinstance(outcome, Found)
    assert trace.get_current_span() is outer
    assert seen[-1].get_span_context() == traces.spans[-1].context


def test_a_call_that_is_collected_in_another_context(traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    """Its loop left it behind; OpenTelemetry would log that a token belongs elsewhere."""
    api = client(traces, None)
    left = asyncio.new_event_loop()
    abandoned = api.get_inventory("user_traced")

    async def begin() -> None:
        abandoned.send(None)

    left.run_until_complete(begin())
    left.close()
    with suppress(RuntimeError):
        contextvars.Context().run(abandoned.close)
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


@pytest.mark.anyio
async def test_repeats_are_counted_within_the_span(traces: Traces) -> None:
    """Three attempts are two resends, with an event for each pause; the status is the last one's."""
    await client(traces, Response(500, {}, b""), Response(502, {}, b""), INVENTORY).get_inventory("user_traced")
    (span,) = traces.spans
    assert attributes(span)["http.request.resend_count"] == 2
    assert attributes(span)["http.response.status_code"] == 200
    assert [event.name for event in span.events] == ["retry", "retry"]
    assert all(set(event.attributes or {}) == {"pause_seconds"} for event in span.events)
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.anyio
async def test_an_error_shows_by_its_class(traces: Traces) -> None:
    """The span is marked as failed; the server's words stay out of it."""
    with pytest.raises(ServerError):
        await client(traces, Response(500, {}, b'{"error":"user_traced broke"}')).get_inventory("user_traced")
    (span,) = traces.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert attributes(span)["error.type"] == "ServerError"
    assert attributes(span)["http.response.status_code"] == 500


@pytest.mark.anyio
async def test_the_last_attempt_counts_also_where_it_had_no_answer(traces: Traces) -> None:
    """A status of an earlier attempt is not shown as if it were the last one's."""
    with pytest.raises(ConnectionLost):
        await client(traces, Response(500, {}, b"abc"), ConnectionLost()).get_inventory("user_traced")
    (span,) = traces.spans
    assert attributes(span)["error.type"] == "ConnectionLost"
    assert "http.response.status_code" not in attributes(span)
    assert "phygitals.response.decoded_size" not in attributes(span)
    assert span.status.description == "ConnectionLost"


@pytest.mark.anyio
async def test_the_error_is_the_one_that_is_raised(traces: Traces) -> None:
    """A purchase of unknown outcome, and an answer that cannot be read."""
    with pytest.raises(OutcomeUnknown):
        await client(traces, ConnectionLost()).start_purchase("pack_traced", 1, "user_traced")
    with pytest.raises(DecodeError):
        await client(traces, Response(200, {}, b"[]")).get_inventory("user_traced")
    assert [attributes(span).get("error.type") for span in traces.spans] == ["OutcomeUnknown", "DecodeError"]


@pytest.mark.anyio
async def test_a_call_that_is_refused_before_it_is_sent_has_a_span(traces: Traces) -> None:
    """Without an attempt there is no status."""
    with pytest.raises(InvalidArgumentError):
        await client(traces, INVENTORY).get_inventory("")
    (span,) = traces.spans
    assert attributes(span)["error.type"] == "InvalidArgumentError"
    assert not [name for name in attributes(span) if name.startswith(("http.response", "http.request.body"))]


@pytest.mark.anyio
async def test_a_cancelled_call_ends_its_span(traces: Traces) -> None:
    """No span is left open."""
    with anyio.move_on_after(0.01):
        await client(traces, None).get_inventory("user_traced")
    (span,) = traces.spans
    assert span.end_time is not None
    assert "http.response.status_code" not in attributes(span)


@pytest.mark.anyio
async def test_spans_stand_below_the_current_one(traces: Traces) -> None:
    """For single calls and for the lookups of a bulk run, at any concurrency."""
    api = client(traces, INVENTORY)

    async def work(name: str) -> None:
        with traces.tracer.start_as_current_span(name):
            await api.get_inventory("user_traced")
            await api.get_inventories(["a", "b", "c"])

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, f"outer {number}")
    outer = {span.context.span_id: span.name for span in traces.spans if span.name.startswith("outer") and span.context}
    inner = [span for span in traces.spans if span.name == "phygitals get_inventory"]
    assert len(inner) == 20
    parents = [outer[span.parent.span_id] for span in inner if span.parent is not None]
    assert sorted(parents) == sorted(f"outer {n}" for n in range(5) for _ in range(4))


@pytest.mark.anyio
async def test_concurrent_calls_have_spans_of_their_own(traces: Traces) -> None:
    """None is mixed up or lost, and the observer keeps none."""
    api = client(traces, Response(500, {}, b""), Response(500, {}, b""), INVENTORY)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(api.get_inventory, "user_traced")
    assert len({span.context.span_id for span in traces.spans if span.context}) == 50
    assert sum(attributes(span).get("http.request.resend_count", 0) for span in traces.spans) == 2
    hooks = api._engine.hooks
    assert hooks is not None
    observer = hooks._observer
    assert isinstance(observer, OpenTelemetryObserver)
    assert not observer._spans
    observer.progressed(Progress(Counts()))


@pytest.mark.anyio
async def test_no_id_no_key_and_no_url_gets_into_a_span(traces: Traces) -> None:
    """Neither from the arguments nor from what the server says."""
    echo = Response(500, {}, b'{"error":"user_traced sandbox-traced-key https://api.phygitals.com/x"}')
    answers = [echo, echo, ConnectionLost("user_traced"), INVENTORY]
    for count in range(1, len(answers) + 1):
        calls: list[Callable[[PhygitalsClient], Awaitable[object]]] = [
            lambda api: api.get_inventory("user_traced"),
            lambda api: api.start_purchase("pack_traced", 2, "user_traced"),
            lambda api: api.sell_back("item_traced"),
        ]
        for call in calls:
            with suppress(PhygitalsError):
                await call(client(traces, *answers[:count]))
    assert len(traces.spans) == 12
    for span in traces.spans:
        text = span.to_json()
        assert "traced" not in text
        assert "://" not in text
        assert "exception" not in text


def test_by_default_the_global_tracer_is_used() -> None:
    """Without an SDK that one does nothing."""
    observer = OpenTelemetryObserver()
    assert observer._tracer is not None

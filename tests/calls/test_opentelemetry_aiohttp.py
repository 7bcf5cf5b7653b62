"""The spans of an instrumented aiohttp stand below those of the calls."""

from __future__ import annotations

import aiohttp
import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor, create_trace_config
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from phygitals_async import PhygitalsClient, RetryPolicy
from phygitals_async.opentelemetry import OpenTelemetryObserver
from phygitals_transports import AiohttpTransport, GuardedConnector
from raw_server import answer, raw_server
from support import inventory_of


def _by_name(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


@pytest.mark.asyncio
@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("own", [True, False], ids=["own session", "every session"])
async def test_each_attempt_is_a_child_of_its_call(own: bool, bulk: bool) -> None:
    """Both of them, with a session that is traced, and where all are."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = AioHttpClientInstrumentor()
    if not own:
        instrumentor.instrument(tracer_provider=provider)
    try:
        async with raw_server(answer(500, b""), answer(200, inventory_of("u").body)) as server:
            session = None
            if own:
                config = create_trace_config(tracer_provider=provider)
                session = aiohttp.ClientSession(connector=GuardedConnector(limit=0), trace_configs=[config])
            api = PhygitalsClient(
                AiohttpTransport(session), api_key="sandbox-traced", base_url=server.url,
                observer=OpenTelemetryObserver(provider.get_tracer("tests")), retry=RetryPolicy(base=1e-6),
            )  # fmt: skip
            async with api:
                if bulk:
                    (await api.get_inventories(["u"])).raise_failures()
                else:
                    await api.get_inventory("u")
            if session is not None:
                await session.close()
    finally:
        if not own:
            instrumentor.uninstrument()
    (call,) = _by_name(exporter, "phygitals get_inventory")
    attempts = _by_name(exporter, "GET")
    assert [span.parent for span in attempts] == [call.context] * 2
    assert len(exporter.get_finished_spans()) == 3

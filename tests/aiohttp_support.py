"""What the tests of the aiohttp transport share."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from attrs import evolve

from phygitals_async import Request, TransportError
from phygitals_transports import AiohttpTransport, GuardedConnector

KEY = "sandbox-key-for-these-tests"


def get(url: str) -> Request:
    """Return a request as the client makes them."""
    return Request("GET", url, {"X-API-Key": KEY, "Accept": "application/json", "User-Agent": "test/1"})


def sale(url: str) -> Request:
    """Return a request that moves money, as the client makes them."""
    return evolve(get(url), method="POST", body=b"{}", fresh_connection=True)


@asynccontextmanager
async def opened(session: aiohttp.ClientSession | None = None, **settings: Any) -> AsyncIterator[AiohttpTransport]:
    """Give a transport and close it."""
    transport = AiohttpTransport(session, **settings)
    try:
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def opened_with(
    *traces: aiohttp.TraceConfig, connector: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[AiohttpTransport]:
    """Give a transport with a session of one's own, and close both."""
    guarded = GuardedConnector(limit=0, **(connector or {}))
    async with (
        aiohttp.ClientSession(connector=guarded, trace_configs=list(traces), **settings) as session,
        opened(session) as transport,
    ):
        yield transport


def assert_plain(error: BaseException) -> None:
    """See that an error chains no exception of aiohttp, some of which print the request's headers."""
    assert error.__cause__ is None
    assert error.__context__ is None
    assert KEY not in repr(error)
    assert not any(isinstance(value, aiohttp.ClientError | OSError) for value in (*error.args, *vars(error).values()))
    files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)}
    assert not [name for name in files if "/aiohttp/" in name]


async def failure_of(transport: AiohttpTransport, request: Request) -> TransportError:
    """Send a request that fails, and return how."""
    with pytest.raises(TransportError) as caught:
        await transport.send(request)
    assert_plain(caught.value)
    return caught.value


async def until(condition: Any) -> None:
    """Let the loop run until a function returns something true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of events.
            await asyncio.sleep(0)

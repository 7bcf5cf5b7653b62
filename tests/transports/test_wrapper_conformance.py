"""The wrappers under the kit: around a transport that opens connections, in memory, and out of a cassette."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conformance_support import aiohttp_transport
from phygitals_async import Request, Response, Transport
from phygitals_async.conformance import Handler, HttpTransportConformance, Settings, TransportConformance
from phygitals_transports import (
    CachingTransport,
    FaultTransport,
    MemoryTransport,
    RecordingTransport,
    ReplayTransport,
)

# Seconds; the kit asks for the same again and again, and wants it asked.
_AT_ONCE_OVER = 1e-9


class _Wrapping:
    """Wraps what a kit's class is about."""

    path: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "cassette.jsonl"

    def wrap(self, inner: Transport) -> Transport:
        """Return the wrapper around a transport."""
        raise NotImplementedError


class _OverHttp(_Wrapping, HttpTransportConformance):
    event_loops = ("asyncio",)

    def transport(self, settings: Settings) -> Transport:
        """Wrap aiohttp."""
        return self.wrap(aiohttp_transport(settings))


class _InMemory(_Wrapping, TransportConformance):
    @asynccontextmanager
    async def connected(self, handler: Handler) -> AsyncGenerator[tuple[Transport, str]]:
        """Wrap a transport in memory."""
        transport = self.wrap(MemoryTransport(handler))
        yield transport, "http://127.0.0.1:8765"
        await transport.aclose()


class _Caching(_Wrapping):
    def wrap(self, inner: Transport) -> Transport:
        """Keep answers no longer than they are under way."""
        return CachingTransport(inner, _AT_ONCE_OVER)


class _Recording(_Wrapping):
    def wrap(self, inner: Transport) -> Transport:
        """Record."""
        return RecordingTransport(inner, self.path)


class _Faults(_Wrapping):
    def wrap(self, inner: Transport) -> Transport:
        """Have no faults."""
        return FaultTransport(inner)


class _Replay(_Wrapping):
    def wrap(self, inner: Transport) -> Transport:
        """Record, and answer from what was recorded."""
        return _Replaying(inner, self.path)


class _Replaying:
    """Sends each request to record it, and answers it out of the cassette."""

    def __init__(self, inner: Transport, path: Path) -> None:
        self._recording = RecordingTransport(inner, path)
        self._path = path

    async def send(self, request: Request) -> Response:
        """Answer as `ReplayTransport` does."""
        await self._recording.send(request)
        # The last line is this request's: nothing was awaited since it was written.
        cassette = self._path.with_suffix(".one")
        cassette.write_bytes(self._path.read_bytes().splitlines(keepends=True)[-1])
        return await ReplayTransport(cassette).send(request)

    async def aclose(self) -> None:
        """Close what records."""
        await self._recording.aclose()


class TestCachingOverHttp(_Caching, _OverHttp):
    """Around aiohttp."""


class TestCachingInMemory(_Caching, _InMemory):
    """Around memory."""


class TestRecordingOverHttp(_Recording, _OverHttp):
    """Around aiohttp."""


class TestRecordingInMemory(_Recording, _InMemory):
    """Around memory."""


class TestFaultsOverHttp(_Faults, _OverHttp):
    """Around aiohttp."""


class TestFaultsInMemory(_Faults, _InMemory):
    """Around memory."""


class TestReplay(_Replay, _InMemory):
    """Out of a cassette."""

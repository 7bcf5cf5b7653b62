"""The project's own transports under the kit that is there for everybody's."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from phygitals_async import Request, Response, Transport
from phygitals_async.conformance import Handler, HttpTransportConformance, Rule, Settings, TransportConformance
from phygitals_transports import AiohttpTransport, GuardedConnector, Httpx2Transport, MemoryTransport, ReqwestTransport
from phygitals_transports.aiohttp_server import serve
from phygitals_transports.engines import ENGINES
from support import ROOT, script


class TrustingAiohttp:
    """An `AiohttpTransport` with a session that trusts an authority; it closes both."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: tuple[aiohttp.ClientSession, AiohttpTransport] | None = None

    async def send(self, request: Request) -> Response:
        """Make the session in the event loop that uses it."""
        if self._made is None:
            context = ssl.create_default_context(cadata=self._settings.authority)
            session = aiohttp.ClientSession(connector=GuardedConnector(limit=0, ssl=context))
            self._made = session, _aiohttp(self._settings, session)
        return await self._made[1].send(request)

    async def aclose(self) -> None:
        """Close the session and the transport."""
        if self._made is not None:
            session, transport = self._made
            await transport.aclose()
            await session.close()


def _aiohttp(settings: Settings, session: aiohttp.ClientSession | None = None) -> AiohttpTransport:
    return AiohttpTransport(session, max_body=settings.max_body, connect_timeout=settings.connect_timeout)


class TestAiohttp(HttpTransportConformance):
    """The default."""

    event_loops = ("asyncio",)

    def transport(self, settings: Settings) -> Transport:
        """Return an `AiohttpTransport`."""
        return _aiohttp(settings) if settings.authority is None else TrustingAiohttp(settings)


class TestMemory(TransportConformance):
    """A function in this process."""

    @asynccontextmanager
    async def connected(self, handler: Handler) -> AsyncGenerator[tuple[Transport, str]]:
        """Give a `MemoryTransport`."""
        transport = MemoryTransport(handler)
        yield transport, "http://127.0.0.1:8765"
        await transport.aclose()


class TestAiohttpServer(TransportConformance):
    """The server that goes with aiohttp."""

    event_loops = ("asyncio",)

    @asynccontextmanager
    async def connected(self, handler: Handler) -> AsyncGenerator[tuple[Transport, str]]:
        """Serve the handler with aiohttp."""
        async with serve(handler) as url:
            transport = AiohttpTransport()
            yield transport, url
            await transport.aclose()


class TestHttpx2(HttpTransportConformance):
    """httpx2, which speaks HTTP/1.1 to the kit's servers."""

    def transport(self, settings: Settings) -> Transport:
        """Return an `Httpx2Transport`."""
        tls = ssl.create_default_context(cadata=settings.authority)
        return Httpx2Transport(max_body=settings.max_body, connect_timeout=settings.connect_timeout, tls=tls)


class TestReqwest(HttpTransportConformance):
    """reqwest, through pyreqwest."""

    event_loops = ("asyncio",)
    unkept = frozenset({Rule.NEVER_SENT, Rule.TARGETS, Rule.HEADER_NAMES, Rule.HANGS_UP})

    def transport(self, settings: Settings) -> Transport:
        """Return a `ReqwestTransport`."""
        return ReqwestTransport(
            max_body=settings.max_body, connect_timeout=settings.connect_timeout, authority=settings.authority
        )


KITS: Final = {"aiohttp": TestAiohttp, "httpx2": TestHttpx2, "reqwest": TestReqwest}


def test_the_table_of_engines_says_what_the_kits_say() -> None:
    """Every engine that a client can be told to use is in `docs/transports.md`, with what was found out about it."""
    text = (ROOT / "docs" / "transports.md").read_text()
    assert list(KITS) == list(ENGINES)
    assert script("build_engines").render(text, KITS) == text
    assert text.count("| `ReqwestTransport` |") == 1


def _transport_of_the_documents() -> dict[str, Any]:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "conformance.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "conformance_of_the_documents"}
    exec(program, names)  # noqa: S102 - it is ours.
    return names


class TestTransportOfTheDocuments(_transport_of_the_documents()["TestPlainTransport"]):  # type: ignore[misc] # it is found at run time.
    """The one that `docs/conformance.md` shows."""

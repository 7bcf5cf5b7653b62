"""The project's own transports under the kit that is there for everybody's."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from conformance_support import aiohttp_transport
from phygitals_async import Transport
from phygitals_async.conformance import Handler, HttpTransportConformance, Rule, Settings, TransportConformance
from phygitals_transports import AiohttpTransport, Httpx2Transport, MemoryTransport, ReqwestTransport
from phygitals_transports.aiohttp_server import serve
from phygitals_transports.engines import ENGINES
from support import ROOT, script


class TestAiohttp(HttpTransportConformance):
    """The default."""

    event_loops = ("asyncio",)

    def transport(self, settings: Settings) -> Transport:
        """Return an `AiohttpTransport`."""
        return aiohttp_transport(settings)


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

"""What the kit's classes of this project share."""

from __future__ import annotations

import ssl

import aiohttp

from phygitals_async import Request, Response, Transport
from phygitals_async.conformance import Settings
from phygitals_transports import AiohttpTransport, GuardedConnector


def aiohttp_transport(settings: Settings) -> Transport:
    """Return an `AiohttpTransport` as the kit wants it."""
    return _aiohttp(settings) if settings.authority is None else _TrustingAiohttp(settings)


class _TrustingAiohttp:
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

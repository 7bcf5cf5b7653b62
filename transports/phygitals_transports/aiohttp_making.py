"""The making of aiohttp's connections, which ends when they are closed."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from phygitals_async import ConnectError


class InterruptibleConnector(aiohttp.TCPConnector):
    """A `TCPConnector` whose connections can be given up while they are made.

    aiohttp's own `close()` ends those that stand; one in its TLS handshake would go on until its timeout.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.__making: set[asyncio.Timeout] = set()

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        # An aiohttp that no longer asks this method lets such connections end by their timeout.
        making = asyncio.timeout(None)
        try:
            async with making:
                self.__making.add(making)
                try:
                    return await super()._create_connection(req, traces, timeout)
                finally:
                    self.__making.discard(making)
        except TimeoutError:
            if not making.expired():
                raise
            msg = "no connection: the transport was closed while it was made"
            raise ConnectError(msg) from None

    def give_up(self) -> None:
        """End the making of every connection."""
        for making in self.__making:
            if not making.expired():
                making.reschedule(0)

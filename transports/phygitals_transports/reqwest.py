"""The transport over pyreqwest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.lowlevel

from phygitals_async import ClientClosed, ConfigurationError, ConnectError, Request, Response, ResponseTooLarge
from phygitals_async.transport import check_count, check_seconds
from phygitals_transports.extras import is_installed, require

if TYPE_CHECKING or is_installed("pyreqwest"):
    from pyreqwest.http import Url

    from phygitals_transports.reqwest_engine import new_client, translate


class ReqwestTransport:
    """Sends requests with pyreqwest, over Rust's reqwest; runs on asyncio.

    It speaks HTTP/1.1, follows no redirect, keeps no cookie and uses no proxy of the environment.

    It cannot tell whether a request was sent, so every failure is *unknown*: a call that moves money ends as
    `OutcomeUnknown` even where no connection was made. And it cannot take a request back: one whose call is cancelled,
    or ends with its deadline, goes on by itself, until `abandon_after` at the latest.

    Args:
        max_body: The most bytes of a decoded body.
        connect_timeout: Seconds for one connection to be made.
        abandon_after: Seconds for a whole exchange. The client's deadlines should be shorter.
        authority: A certificate in PEM to trust besides those that reqwest brings along.

    Raises:
        ConfigurationError: pyreqwest is not installed, or a number is not positive.
    """

    def __init__(
        self,
        *,
        max_body: int = 16 * 2**20,
        connect_timeout: float = 10.0,
        abandon_after: float = 120.0,
        authority: str | None = None,
    ) -> None:
        require("reqwest", "pyreqwest")
        self._max_body = check_count("max_body", max_body)
        connecting = check_seconds("connect_timeout", connect_timeout)
        whole = check_seconds("abandon_after", abandon_after)
        # By `fresh_connection`. What they keep open ends with the last reference.
        self._clients = {fresh: new_client(connecting, whole, authority, keep=not fresh) for fresh in (False, True)}

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        if not self._clients:
            msg = "the transport was closed"
            raise ClientClosed(msg)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            msg = "ReqwestTransport runs on asyncio only; give the client another transport on this event loop"
            raise ConfigurationError(msg) from None
        # What it is asked for, reqwest does.
        await anyio.lowlevel.checkpoint_if_cancelled()
        try:
            return await self._exchange(request)
        except asyncio.CancelledError:
            # pyreqwest raises one of its own, which anyio does not know for that of its scope.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the request may have been sent.
            failure = translate(error)
        # Raised outside the handler, without the frames that hold the request's headers.
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        """End what is under way, and close all connections that are idle."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def _exchange(self, request: Request) -> Response:
        url = Url(request.url)
        if not str(url).endswith(request.url.split("/", 3)[-1]):
            request.delivery.failed = True
            msg = "no connection: reqwest would change the URL"
            raise ConnectError(msg)
        asking = self._clients[request.fresh_connection].request(request.method, url).headers(request.headers)
        if request.body is not None:
            asking.body_bytes(request.body)
        async with asking.build_streamed() as response:
            body = bytearray()
            while (chunk := await response.body_reader.read_chunk()) is not None:
                body += chunk
                if len(body) > self._max_body:
                    msg = f"the body is larger than {self._max_body} bytes"
                    raise ResponseTooLarge(msg)
            return Response(response.status, response.headers, bytes(body))

"""The seam the other way round: any handler of requests, served over HTTP with aiohttp.web."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import HttpVersion11, web

from phygitals_async import ConnectionLost, Request
from phygitals_transports.memory import Handler

# What concerns the connection it came over, or the bytes before they were decoded.
_DROPPED: Final = frozenset({"connection", "content-encoding", "content-length", "transfer-encoding"})
# Seconds that a request under way has, when serving ends, before it is cancelled.
_GRACE: Final = 1.0


@asynccontextmanager
async def serve(handler: Handler, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve `handler` while the block runs, giving the base URL, such as `http://127.0.0.1:8765`.

    Requests under way at the end of the block have a second before they are cancelled.

    Args:
        handler: Any function of a request, sync or async, such as a `Sandbox`. It sees the raw, still
            encoded request target. Headers of its answer that describe a connection or an encoding are dropped.
            Where it raises `ConnectionLost`, the connection is closed without an answer.
        host: The address to listen on.
        port: The port, or 0 for a free one.

    Raises:
        OSError: The address cannot be listened on.
    """

    async def answer(incoming: web.BaseRequest) -> web.Response:
        if incoming.version == HttpVersion11 and incoming.headers.get("expect", "").lower() == "100-continue":
            await incoming.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer has not begun: where the handler raises, aiohttp's own 500 is still to be sent.
            incoming.writer.output_size = 0
        body = await incoming.read()
        target = incoming.raw_path
        url = f"http://{incoming.host}{target}" if target.startswith("/") else target
        try:
            outgoing = handler(Request(incoming.method, url, incoming.headers, body or None))
            response = await outgoing if inspect.isawaitable(outgoing) else outgoing
        except ConnectionLost:
            incoming.protocol.force_close()
            # aiohttp wants one, and has nowhere to send it.
            return web.Response()
        headers = {name: value for name, value in response.headers.items() if name.lower() not in _DROPPED}
        return web.Response(status=response.status, headers=headers, body=response.body)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{name}:{bound[1]}"
    finally:
        await runner.cleanup()

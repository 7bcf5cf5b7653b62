"""The seam the other way round: any handler of requests, served over HTTP with aiohttp.web."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from phygitals_async import Request
from phygitals_transports.memory import Handler


@asynccontextmanager
async def serve(handler: Handler, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve `handler` while the block runs, giving the base URL, such as `http://127.0.0.1:8765`.

    Args:
        handler: Any function of a request, sync or async, such as a `Sandbox`. It sees the raw, still
            encoded request target.
        host: The address to listen on.
        port: The port, or 0 for a free one.
    """

    async def answer(incoming: web.BaseRequest) -> web.Response:
        body = await incoming.read()
        target = incoming.raw_path
        url = f"http://{incoming.host}{target}" if target.startswith("/") else target
        outgoing = handler(Request(incoming.method, url, incoming.headers, body or None))
        response = await outgoing if inspect.isawaitable(outgoing) else outgoing
        return web.Response(status=response.status, headers=response.headers, body=response.body)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{name}:{bound[1]}"
    finally:
        await runner.cleanup()

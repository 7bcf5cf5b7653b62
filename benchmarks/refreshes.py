"""One bulk refresh, by whatever a partner may use for it: run in a process of its own, it prints what it cost.

python -m benchmarks.refreshes SIDE LOOP URL USERS LIMIT
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from phygitals_async import Inventory, PhygitalsClient

KEY: Final = "sandbox-bench"
HEADERS: Final = {"X-API-Key": KEY, "Accept": "application/json"}

Refresh = Callable[[str, int, int], Coroutine[Any, Any, None]]


def _with_ours(engine: Literal["aiohttp", "httpx2", "reqwest"]) -> Refresh:
    async def refresh(url: str, users: int, limit: int) -> None:
        ids = (f"user_{n}" for n in range(users))
        async with (
            PhygitalsClient(engine, api_key=KEY, base_url=url, max_in_flight=limit) as api,
            api.stream_inventories(ids, limit=limit) as outcomes,
        ):
            async for _ in outcomes:
                pass
        assert outcomes.progress.found == users

    return refresh


async def _by_workers(look_up: Callable[[int], Awaitable[None]], users: int, limit: int) -> None:
    ids = iter(range(users))

    async def work() -> None:
        for n in ids:
            await look_up(n)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())


async def _aiohttp(url: str, users: int, limit: int) -> None:
    """Refresh with the tightest loop that aiohttp allows: fixed workers, encoded URLs, a bare decoder."""
    import aiohttp
    from yarl import URL

    decode = msgspec.json.Decoder(Inventory).decode
    connector = aiohttp.TCPConnector(limit=limit)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(headers=HEADERS, cookie_jar=jar, connector=connector) as session:

        async def look_up(n: int) -> None:
            target = URL(f"{url}/api/v1/inventory/user_{n}", encoded=True)
            async with session.get(target, allow_redirects=False) as response:
                decode(await response.read())

        await _by_workers(look_up, users, limit)


async def _httpx(url: str, users: int, limit: int) -> None:
    """Refresh the same way with httpx."""
    import httpx

    decode = msgspec.json.Decoder(Inventory).decode
    limits = httpx.Limits(max_connections=limit, max_keepalive_connections=limit)
    async with httpx.AsyncClient(headers=HEADERS, limits=limits) as client:

        async def look_up(n: int) -> None:
            decode((await client.get(f"{url}/api/v1/inventory/user_{n}")).content)

        await _by_workers(look_up, users, limit)


async def _gather(url: str, users: int, limit: int) -> None:
    """Refresh the usual way: gather, a semaphore, aiohttp, pydantic, every result kept."""
    import aiohttp

    from benchmarks.payloads import PydanticInventory

    admission = asyncio.Semaphore(limit)

    async def fetch(session: aiohttp.ClientSession, n: int) -> PydanticInventory:
        async with admission, session.get(f"{url}/api/v1/inventory/user_{n}") as response:
            return PydanticInventory.model_validate_json(await response.read())

    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=limit)) as session:
        results = await asyncio.gather(*(fetch(session, n) for n in range(users)))
    assert len(results) == users


async def _generated(url: str, users: int, limit: int) -> None:
    """Refresh with the client that openapi-python-client makes of `docs/openapi.json`; see `benchmarks.generated`."""
    from benchmarks.generated import PACKAGE, operation

    client = importlib.import_module(f"{PACKAGE}.client")
    get_inventory: Any = operation("get_inventory")
    async with client.AuthenticatedClient(
        base_url=f"{url}/api/v1", token=KEY, prefix="", auth_header_name="X-API-Key"
    ) as api:

        async def look_up(n: int) -> None:
            assert (await get_inventory.asyncio(f"user_{n}", client=api)).items

        await _by_workers(look_up, users, limit)


async def _streams(url: str, users: int, limit: int) -> None:
    """Refresh at the limit of Python: HTTP written by hand over asyncio's streams, and the bare decoder."""
    decode = msgspec.json.Decoder(Inventory).decode
    host, port = urlsplit(url).hostname, urlsplit(url).port
    tail = f" HTTP/1.1\r\nHost: {host}:{port}\r\nX-API-Key: {KEY}\r\nAccept: application/json\r\n\r\n"
    ids = iter(range(users))

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for n in ids:
            writer.write(f"GET /api/v1/inventory/user_{n}{tail}".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            decode(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())


SIDES: Final[dict[str, Refresh]] = {
    "aiohttp": _with_ours("aiohttp"),
    "httpx2": _with_ours("httpx2"),
    "reqwest": _with_ours("reqwest"),
    "hand-written aiohttp": _aiohttp,
    "hand-written httpx": _httpx,
    "gather + pydantic": _gather,
    "generated client": _generated,
    "asyncio streams": _streams,
}


def main() -> None:
    """Refresh once small to warm up, once in full, and print the CPU and wall seconds, and the peak memory in MiB."""
    side, loop, url, users, limit = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    else:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(SIDES[side](url, 2 * int(limit), int(limit)))
        wall, cpu = time.perf_counter(), time.process_time()
        runner.run(SIDES[side](url, int(users), int(limit)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": cpu, "wall": wall, "memory": memory}))


if __name__ == "__main__":
    main()

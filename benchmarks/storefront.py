"""What does a page of the storefront with 60 items cost its server?"""

from __future__ import annotations

import asyncio
import socket
import statistics
import tempfile
import time
from pathlib import Path

import uvicorn

from benchmarks.server import canned_server
from phygitals_async import PhygitalsClient
from storefront.app import create_app

ITEMS = 60
PAGES = 200
USER = "user_abc123"


async def measure(url: str, folder: Path) -> list[float]:
    """Return the CPU milliseconds of each page, over HTTP on both sides. Reading it is counted too."""
    app = create_app(
        lambda journal: PhygitalsClient(api_key="sandbox-bench", base_url=url, journal=journal),
        folder,
        users=(USER,),
        images="https://cdn.phygitals.com",
    )
    times = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        # Answered once the shop has started.
        await _get(reader, writer, "/sign-in", "")
        cookie = app.state.shop.signer.sign("user", USER)
        for _ in range(PAGES):
            start = time.process_time()
            page = await _get(reader, writer, "/items", cookie)
            times.append((time.process_time() - start) * 1000)
            assert page.count(b'name="item"') == ITEMS
        writer.close()
        server.should_exit = True
        await serving
    return times


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, cookie: str) -> bytes:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\nCookie: user={cookie}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def main() -> None:
    """Print the median and the slowest but one in a hundred."""
    with canned_server(ITEMS) as url, tempfile.TemporaryDirectory() as folder:
        times = asyncio.run(measure(url, Path(folder)))[PAGES // 10 :]
    slow = statistics.quantiles(times, n=100)[98]
    print(f"\nA page of the storefront with {ITEMS} items, CPU of its server over {len(times)} pages")
    print(f"  median {statistics.median(times):.1f} ms, 99th percentile {slow:.1f} ms")


if __name__ == "__main__":
    main()

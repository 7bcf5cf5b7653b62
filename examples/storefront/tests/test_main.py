"""The storefront as a program of its own: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[Process]:
    """Run it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "storefront", *options,
        cwd=Path(__file__).parents[2], stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def addresses(process: Process) -> dict[str, str]:
    """Return what it serves, by name, as soon as it says so."""
    assert process.stdout is not None
    told: dict[str, str] = {}
    while "storefront" not in told:
        name, address, *_ = (await process.stdout.readline()).decode().split()
        told[name] = address
    return told


async def ends(url: str) -> None:
    """Wait until nobody answers there any more."""
    async with httpx2.AsyncClient() as browser:
        while True:
            try:
                await browser.get(url)
            except httpx2.TransportError:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_it_runs_with_a_sandbox_of_its_own(how: signal.Signals) -> None:
    """One command, with any free ports; both addresses answer, and ending it ends both, however that is done."""
    async with running("--port", "0", "--sandbox-port", "0") as process:
        told = await addresses(process)
        async with httpx2.AsyncClient() as browser:
            assert "Topps Chrome" in (await browser.get(told["storefront"])).text
            assert (await browser.get(told["console"])).status_code == 200
        process.send_signal(how)
        _, complaints = await process.communicate()
        assert complaints == b""
        await ends(told["sandbox"])


async def test_it_says_what_it_waits_for() -> None:
    """Ctrl-C in mid-purchase."""
    async with running("--port", "0", "--sandbox-port", "0") as process, httpx2.AsyncClient() as admin:
        told = await addresses(process)
        fault = {"kind": "latency", "operation": "start_purchase", "seconds": 600}
        await admin.post(told["console"].replace("_console", "_admin/faults"), json=fault)
        async with httpx2.AsyncClient(base_url=told["storefront"], follow_redirects=True) as browser:
            await browser.post("/sign-in", data={"user": "newcomer"})
            (path, *_) = re.findall(r'href="(/packs/[^"]+)"', (await browser.get("/")).text)
            (token,) = re.findall(r'name="token" value="([^"]+)"', (await browser.get(path)).text)
            page = await browser.post("/buy", data={"token": token, "pulls": "1"})
            assert "Buying the pack" in page.text
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        assert re.fullmatch(r"ending: waits up to a minute for what is under way: Purchase of [^\n]+\n", line)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "99999"], "--port: must be 0 to 65535, not 99999"),
        (["--port", "x"], "--port: invalid port value: 'x'"),
        (["--sandbox-port", "-1"], "--sandbox-port: must be 0 to 65535, not -1"),
        (["--port", "TAKEN"], "cannot serve at 127.0.0.1:TAKEN: "),
        (["--port", "0", "--folder", "FILE"], "the folder FILE cannot be used: "),
        (["--port", "0", "--folder", "FILE/below"], "the folder FILE/below cannot be used: "),
        (["--port", "0", "--folder", "BROKEN"], "the folder BROKEN cannot be used: file is not a database"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    """Before anything is served."""
    (tmp_path / "file").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "deals.db").write_bytes(b"no book" * 1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {
            "TAKEN": str(taken.getsockname()[1]),
            "FILE": str(tmp_path / "file"),
            "BROKEN": str(tmp_path / "broken"),
        }
        for name, value in known.items():
            options, words = [option.replace(name, value) for option in options], words.replace(name, value)
        async with running(*options) as process:
            told, complaint = await process.communicate()
    assert (told, process.returncode in (1, 2)) == (b"", True)
    assert re.fullmatch(rf"storefront: [^\n]*{re.escape(words)}[^\n]*\n", complaint.decode())

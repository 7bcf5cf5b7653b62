"""Writes docs/pictures: the demo in a terminal, the sandbox's console and the storefront in a browser.

It takes Chromium, Playwright and what the storefront needs; `make pictures` has all but the first.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "docs" / "pictures"
_LOOKS: Final = {"viewport": {"width": 1120, "height": 700}, "device_scale_factor": 1, "color_scheme": "light"}


@contextmanager
def _storefront() -> Iterator[dict[str, str]]:
    """Run the storefront and its sandbox, giving the addresses they print, by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "storefront", "--port", str(port), "--sandbox-port", "0"]
    paths = os.pathsep.join([str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:  # noqa: S603 - ours.
        try:
            told: dict[str, str] = {}
            for line in process.stdout or ():
                name, address, *_ = line.split()
                told[name] = address
                if name == "storefront":
                    break
            yield told
        finally:
            process.send_signal(signal.SIGTERM)


async def take(folder: Path) -> None:
    """Take the pictures in a browser; a test does so, too."""
    # What the tests in a browser use.
    from browser_support import chromium, visiting

    path = chromium()
    if path is None:
        sys.exit("needs Chromium and Playwright")
    with _storefront() as told:
        async with visiting(path, **_LOOKS) as visit:
            await _take(visit.page, told, folder)


async def _take(page: Any, told: dict[str, str], folder: Path) -> None:
    where = urlsplit(told["storefront"])
    with anyio.fail_after(20):
        while True:
            try:
                await (await anyio.connect_tcp("127.0.0.1", where.port or 80)).aclose()
                break
            except OSError:
                await anyio.sleep(0.05)
    await page.goto(told["storefront"] + "/sign-in")
    await page.get_by_role("button", name="user_000002").click()
    await page.wait_for_load_state("networkidle")
    await page.screenshot(path=folder / "storefront.png")
    await page.goto(told["console"])
    await page.wait_for_load_state("load")
    await page.screenshot(path=folder / "console.png")


def _demo() -> None:
    command = [sys.executable, str(ROOT / "examples" / "night_job.py")]
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, check=True, **output)  # noqa: S603 - ours.
    folder = re.search(r"^What is left is in (\S+):", done.stdout, re.MULTILINE)
    assert folder is not None  # noqa: S101 - it is what the example prints.
    # How `make demo` calls it, wherever this runs.
    calls = re.compile(r"^  \S*(?:phygitals|python\S* -m phygitals_async)(?= )", re.MULTILINE)
    told = calls.sub("  .venv/bin/phygitals", done.stdout.replace(folder[1], "demo"))
    console = Console(record=True, width=104, file=io.StringIO())
    console.print(Text("$ make demo\n" + told.rstrip()))
    drawn = console.export_svg(title="make demo")
    # Its fonts would come from another host; the reader's own will do.
    (FOLDER / "demo.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL))


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    sys.path.append(str(ROOT / "tests"))
    asyncio.run(take(FOLDER))
    _demo()


if __name__ == "__main__":
    main()

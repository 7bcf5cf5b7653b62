"""Writes docs/pictures: the demo in a terminal, the sandbox's console and the storefront in a browser.

It takes Chromium, Playwright and what the storefront needs; `make pictures` has all but the first.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "docs" / "pictures"
_LOOKS: Final = {"viewport": {"width": 1120, "height": 700}, "device_scale_factor": 1, "color_scheme": "light"}


@contextmanager
def _storefront() -> Iterator[dict[str, str]]:
    """Run the storefront and its sandbox, giving the addresses they print, by name."""
    command = [sys.executable, "-m", "storefront", "--port", "8091", "--sandbox-port", "0"]
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


async def _visit(told: dict[str, str]) -> None:
    # What the tests in a browser use.
    sys.path.append(str(ROOT / "tests"))
    from browser_support import chromium, visiting

    path = chromium()
    if path is None:
        sys.exit("needs Chromium and Playwright")
    async with visiting(path, **_LOOKS) as visit:
        page: Any = visit.page
        for _ in range(50):
            try:
                await page.goto(told["storefront"] + "/sign-in")
                break
            except Exception:  # noqa: BLE001 - it is not up yet.
                await asyncio.sleep(0.1)
        await page.get_by_role("button", name="user_000002").click()
        await page.wait_for_load_state("networkidle")
        await page.screenshot(path=FOLDER / "storefront.png")
        await page.goto(told["console"])
        await page.wait_for_load_state("load")
        await page.screenshot(path=FOLDER / "console.png")


def _demo() -> None:
    command = [sys.executable, str(ROOT / "examples" / "night_job.py")]
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, check=True, **output)  # noqa: S603 - ours.
    folder = re.search(r"^What is left is in (\S+):", done.stdout, re.MULTILINE)
    assert folder is not None  # noqa: S101 - it is what the example prints.
    console = Console(record=True, width=104, file=io.StringIO())
    console.print(Text("$ make demo\n" + done.stdout.replace(folder[1], "demo").rstrip()))
    drawn = console.export_svg(title="make demo")
    # Its fonts would come from another host; the reader's own will do.
    (FOLDER / "demo.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL))


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    with _storefront() as told:
        asyncio.run(_visit(told))
    _demo()


if __name__ == "__main__":
    main()

"""The examples run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from phygitals_async import Sandbox
from phygitals_transports.aiohttp_server import serve
from support import ROOT

EXAMPLE = ROOT / "examples" / "lifecycle.py"


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the life cycle with nothing but these variables configured."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PHYGITALS_")}
    command = [sys.executable, "-W", "error", str(EXAMPLE)]
    return subprocess.run(command, env={**bare, **variables}, capture_output=True, text=True, check=False)


def test_the_life_cycle_runs_in_memory() -> None:
    """Without a key it needs nothing, and ends with a queued order."""
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "order of 2 cards with USPS: queued"


@pytest.mark.asyncio
async def test_the_life_cycle_runs_over_http() -> None:
    """Two variables turn the same program to a server."""
    import anyio.to_thread

    async with serve(Sandbox()) as url:
        done = await anyio.to_thread.run_sync(
            lambda: run(PHYGITALS_API_KEY="sandbox-local", PHYGITALS_BASE_URL=f"{url}/_")
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "order of 2 cards with USPS: queued"


def test_the_night_job_is_killed_and_loses_nobody() -> None:
    """What `make demo` runs: the second process goes on, and the second night tells what the market did."""
    command = [sys.executable, "-W", "error", str(EXAMPLE.parent / "night_job.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known, strangers, asked, skipped = (
        [int(count.replace(",", "")) for count in re.findall(rf"^{fact}\t([0-9,]+)$", done.stdout, re.MULTILINE)]
        for fact in ("users known", "users unknown", "asked just now", "asked before")
    )
    assert (known, strangers) == ([2000, 2000], [0, 0])
    assert (asked[0] + skipped[0], asked[1], skipped[1]) == (2000, 2000, 0)
    assert 0 < skipped[0] < 1100
    changed = re.search(r"^what changed: (\d+) repriced, 20 \w+, 20 \w+$", done.stdout, re.MULTILINE)
    assert changed is not None
    folder = re.search(r"^What is left is in (\S+):", done.stdout, re.MULTILINE)
    assert folder is not None
    suggested = re.search(r"^  (.* changes .*)$", done.stdout, re.MULTILINE)
    assert suggested is not None
    shown = subprocess.run(shlex.split(suggested[1]), capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 1 + 40 + int(changed[1])
    shutil.rmtree(folder[1])


def test_the_life_cycle_is_one_short_file() -> None:
    """From a pack to a queued order in under 60 lines."""
    assert len(EXAMPLE.read_text().splitlines()) < 60

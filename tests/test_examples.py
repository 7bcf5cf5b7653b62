"""The examples run as they stand."""

from __future__ import annotations

import os
import re
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


def test_the_bulk_refresh_counts_everybody() -> None:
    """What `make demo` runs finds each of its users once, knows the strangers, and loses nobody."""
    command = [sys.executable, "-W", "error", str(EXAMPLE.parent / "refresh_inventories.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = dict(re.findall(r"^(users \w+|items) +([0-9,]+) *$", done.stdout, re.MULTILINE))
    assert (facts["users found"], facts["users unknown"], facts["users failed"]) == ("2,000", "25", "0")
    assert "The ten most valuable cards" in done.stdout


def test_the_life_cycle_is_one_short_file() -> None:
    """From a pack to a queued order in under 60 lines."""
    assert len(EXAMPLE.read_text().splitlines()) < 60

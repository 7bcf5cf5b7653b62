"""Small helpers that tests import by name."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final

from phygitals_async import RetryPolicy

# For tests of a single attempt: nothing is repeated.
ONCE: Final = RetryPolicy(retries=0)

FIXTURES = Path(__file__).parent / "fixtures"


def fixture_bytes(name: str) -> bytes:
    """Return a documented payload as it stands in `tests/fixtures`."""
    return (FIXTURES / name).read_bytes()


def fixture_json(name: str) -> Any:
    """Return a documented payload as plain Python values."""
    return json.loads(fixture_bytes(name))


async def noting(seen: list[BaseException], call: Awaitable[object]) -> None:
    """Await a call, and note what it raises on its way out, cancellation too."""
    try:
        await call
    except BaseException as error:
        seen.append(error)
        raise

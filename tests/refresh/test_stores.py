"""Every store passes the tests that stores of others are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phygitals_async.refresh import MemoryStore, PostgresStore, SqliteStore, Store, conformance

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_conformance(kind: str, check: Any, tmp_path: Path) -> None:
    """On asyncio and on trio."""
    memory = MemoryStore()

    def open_store() -> Store:
        return memory if kind == "memory" else SqliteStore(tmp_path / "store.db")

    await check(open_store)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_conformance_of_postgres(check: Any, postgres: str, schema: str) -> None:
    """Against a real server, on asyncio, which is all that asyncpg knows."""
    await check(lambda: PostgresStore(postgres, schema=schema))

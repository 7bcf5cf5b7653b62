"""Every store passes the tests that stores of others are held to."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

import phygitals_async.refresh as refresh_module
from phygitals_async.refresh import (
    MemoryStore,
    PostgresStore,
    Run,
    SqliteStore,
    Store,
    StoredUser,
    conformance,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_conformance(kind: str, check: Any, tmp_path: Path) -> None:
    """On asyncio and on trio."""
    memory = MemoryStore()

    def open_store() -> Store:
        return memory if kind == "memory" else SqliteStore(tmp_path / "store.db")

    await check(open_store)


class Forgetful(MemoryStore):
    """A store that loses what it is given last."""

    async def commit(self, run: Run, users: Sequence[StoredUser] = (), *rest: Any, **more: Any) -> Collection[str]:
        """Commit all but one user."""
        return await super().commit(run, users[:-1], *rest, **more)


class Shared(MemoryStore):
    """A store that lets everybody in."""

    async def acquire(self) -> None:
        """Refuse nobody."""


class Generous(MemoryStore):
    """A store that gives everybody the same seconds."""

    async def reserve(self, name: str, seconds: float) -> float:
        """Reserve nothing."""
        return 0.0


@pytest.mark.parametrize(
    ("store", "finds"),
    [
        (Forgetful(), "expected .*, found"),
        (Shared(), "a second run got"),
        (Generous(), r"expected 0, 20, 40, found \[0.0, 0.0, 0.0\]"),
    ],
)
async def test_the_checks_find_what_is_wrong(store: MemoryStore, finds: str) -> None:
    """A store that does not keep what it promises fails some of them."""
    found = ""
    for check in conformance.CHECKS:
        try:
            await check(lambda: store)
        except (AssertionError, IndexError) as error:
            found += f"{error}\n"
    assert re.search(finds, found)


async def test_the_module_offers_its_names_and_no_other() -> None:
    """They are loaded when they are first asked for."""
    assert sorted(refresh_module.__all__) == dir(refresh_module)
    assert all(getattr(refresh_module, name) is not None for name in refresh_module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = refresh_module.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_conformance_of_postgres(check: Any, postgres: str, schema: str) -> None:
    """Against a real server, on asyncio, which is all that asyncpg knows."""
    await check(lambda: PostgresStore(postgres, schema=schema))

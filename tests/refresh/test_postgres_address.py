"""What is shown of the address of a database, and what is refused for one."""

from __future__ import annotations

import pytest

from phygitals_async import ConfigurationError
from phygitals_async.refresh import open_store
from phygitals_async.refresh._postgres_address import shown


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("postgresql://me:secret@db.example.com:5432/users", "db.example.com:5432/users"),
        ("postgres://me:se%2Fcret@db/users?sslmode=require", "db/users"),
        ("postgresql://me:se@cret@db/users", "db/users"),
        ("postgresql://a:1,b:2/users", "a:1,b:2/users"),
        ("postgresql://[::1]:5432/users", "[::1]:5432/users"),
        ("postgresql:///users?password=secret", "/users"),
        ("postgresql://?host=/var/run/postgresql&password=secret", "of this machine"),
        ("postgresql://db:", "db:"),
    ],
)
def test_shown(address: str, place: str) -> None:
    """The host and the database, and no password."""
    assert shown(address) == place


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:ge/secret@db:5432/users",
        "postgresql://me:ge?secret@db:5432/users",
        "postgresql://me:ge#secret@db:5432/users",
        "postgresql://me:12/secret@db:5432/users",
        "postgresql://me:ge@secret/x@db:5432/users",
        "postgresql://me:secret@db:99999/users",
        "postgresql://me:secret@db:port/users",
        "postgresql://me:secret@[::1/users",
    ],
)
def test_refused(address: str) -> None:
    """In one line that shows nothing of it."""
    pytest.importorskip("asyncpg", reason="not run: asyncpg is not installed")
    with pytest.raises(ConfigurationError, match="the address of the database cannot be read") as caught:
        open_store(address)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("address", ["sqlite:///x.db", "mysql://me:secret@db/users", "postgresql+asyncpg://db/users"])
def test_another_kind_of_address(address: str) -> None:
    """What a store is, is told."""
    with pytest.raises(ConfigurationError, match="a store is a file, given by its path alone, or a database") as caught:
        open_store(address)
    assert "secret" not in str(caught.value)

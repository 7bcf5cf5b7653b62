"""A store by its address."""

from __future__ import annotations

import os

from phygitals_async.refresh._store import Store


def open_store(location: str | os.PathLike[str]) -> Store:
    """Return the store at an address, to be used as `async with open_store(...) as store`.

    Args:
        location: `postgresql://...` for a `PostgresStore`, anything else is the path of an `SqliteStore`.
    """
    address = os.fspath(location)
    if address.startswith(("postgresql://", "postgres://")):
        from phygitals_async.refresh._postgres import PostgresStore

        return PostgresStore(address)
    from phygitals_async.refresh._sqlite import SqliteStore

    return SqliteStore(address)

"""A store by its address."""

from __future__ import annotations

import os

from phygitals_async.errors import ConfigurationError
from phygitals_async.refresh._store import Store


def open_store(location: str | os.PathLike[str]) -> Store:
    """Return the store at an address, to be used as `async with open_store(...) as store`.

    Args:
        location: `postgresql://...` for a `PostgresStore`, anything else is the path of an `SqliteStore`.

    Raises:
        ConfigurationError: It is the address of some other thing, or one that cannot be read; or the extra `postgres`
            is not installed.
    """
    address = os.fspath(location)
    if address.startswith(("postgresql://", "postgres://")):
        from phygitals_async.refresh._postgres import PostgresStore

        return PostgresStore(address)
    scheme, is_url, _ = address.partition("://")
    if is_url:
        msg = f"a store is a file, given by its path alone, or a database, by postgresql://...: not {scheme}://"
        raise ConfigurationError(msg)
    from phygitals_async.refresh._sqlite import SqliteStore

    return SqliteStore(address)

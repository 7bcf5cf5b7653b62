"""Connections to a PostgreSQL database, and the lock that a run holds there."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

from phygitals_async._extras import load
from phygitals_async._loop.affinity import Affinity, current_task
from phygitals_async.errors import (
    ConfigurationError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
)
from phygitals_async.refresh._postgres_address import shown

T = TypeVar("T")

# For readers and the journal; a run has a connection of its own.
_MOST_CONNECTIONS: Final = 4
# "phyg": the first half of the numbers of our advisory locks.
_LOCKS: Final = 0x70687967
_TIMEOUT: Final = 30.0


class PostgresPool:
    """Opens connections when they are first needed, and brings the schema to its newest version.

    Args:
        address: Of the database, with the password if it takes one.
        schema: Where the tables are.
        steps: The statements that lead from each version of the tables to the next.

    Raises:
        ConfigurationError: The address is none, or the extra is not installed.
    """

    def __init__(self, address: str, schema: str, steps: Sequence[str]) -> None:
        self._asyncpg = load("asyncpg", "postgres")
        self._address = address
        self._place = f"the database {shown(address)}, schema {schema}"
        self._schema = schema
        self._quoted = '"' + schema.replace('"', '""') + '"'
        self._steps = steps
        self._affinity = Affinity("this store")
        self._pool: Any = None
        self._run: Any = None
        self._is_closed = False

    async def read(self, query: str, *arguments: object) -> list[Any]:
        """Return the rows of a query, in a connection that no run has."""
        async with self._connection() as connection:
            rows: list[Any] = await connection.fetch(query, *arguments)
            return rows

    async def write(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do some work as one transaction, in the run's connection if there is one: it goes if the run's lock goes."""
        async with self._connection(self._run) as connection, connection.transaction():
            return await work(connection)

    async def open(self) -> None:
        """Connect, so that what is wrong is told now."""
        async with self._connection():
            pass

    async def acquire(self) -> None:
        """Lock the tables for a run. The lock ends with the connection, which the server may notice a little late.

        Raises:
            StoreBusy: They are locked.
        """
        await self.open()
        if self._run is None:
            with self._translating():
                connection = await self._asyncpg.connect(self._address, **self._options)
                try:
                    await connection.execute("SET lock_timeout = '2s'")
                    await connection.execute("SELECT pg_advisory_lock($1, $2)", _LOCKS, self._lock)
                except self._asyncpg.LockNotAvailableError:
                    await connection.close()
                except BaseException:  # Cancellation too: nobody else knows of the connection. Passed on.
                    connection.terminate()
                    raise
                else:
                    self._run = connection
                    return
        msg = f"another run is under way in {self._place}"
        raise StoreBusy(msg)

    async def release(self) -> None:
        """Unlock them."""
        connection, self._run = self._run, None
        if connection is not None:
            with self._translating():
                await connection.close(timeout=_TIMEOUT)

    async def aclose(self) -> None:
        """Close all connections."""
        self._is_closed = True
        await self.release()
        pool, self._pool = self._pool, None
        if pool is not None:
            with self._translating():
                await pool.close()

    @property
    def _options(self) -> dict[str, Any]:
        return {"server_settings": {"search_path": self._quoted}, "command_timeout": _TIMEOUT, "timeout": _TIMEOUT}

    @property
    def _lock(self) -> int:
        # A number of 32 bits, signed.
        return zlib.crc32(self._schema.encode()) - 2**31

    @asynccontextmanager
    async def _connection(self, mine: Any = None) -> AsyncIterator[Any]:
        with self._translating():
            if mine is not None:
                yield mine
                return
            await self._open()
            async with self._pool.acquire() as connection:
                yield connection

    async def _open(self) -> None:
        if self._is_closed:
            msg = "the store was closed"
            raise StoreUnavailable(msg)
        if current_task() is None:
            msg = "a PostgresStore works with asyncio only"
            raise ConfigurationError(msg)
        if self._affinity.must_start_afresh() or self._pool is None:
            self._run = None
            connection = await self._asyncpg.connect(self._address, **self._options)
            try:
                await self._migrate(connection)
            finally:
                await connection.close()
            self._pool = await self._asyncpg.create_pool(
                self._address, min_size=0, max_size=_MOST_CONNECTIONS, **self._options
            )

    async def _migrate(self, connection: Any) -> None:
        async with connection.transaction():
            # Two that come at once do it one after the other.
            await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _LOCKS + 1, self._lock)
            if await connection.fetchval("SELECT to_regclass($1)", f"{self._quoted}.version") is None:
                # Whoever may not make a schema has one given.
                if await connection.fetchval("SELECT to_regnamespace($1)", self._quoted) is None:
                    await connection.execute(f"CREATE SCHEMA {self._quoted}")
                await connection.execute("CREATE TABLE version (number int NOT NULL)")
                await connection.execute("INSERT INTO version VALUES (0)")
            version: int = await connection.fetchval("SELECT number FROM version")
            if version > len(self._steps):
                msg = (
                    f"{self._place}, has version {version}, and this library knows {len(self._steps)}: "
                    "update phygitals-async"
                )
                raise StoreTooNew(msg)
            for step in self._steps[version:]:
                await connection.execute(step)
            await connection.execute("UPDATE version SET number = $1 WHERE number < $1", len(self._steps))

    @contextmanager
    def _translating(self) -> Iterator[None]:
        asyncpg = self._asyncpg
        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            msg = f"{self._place}: {str(error) or type(error).__name__}"
            raise self._class_of(error)(msg) from error

    def _class_of(self, error: Exception) -> type[StoreError]:
        state = getattr(error, "sqlstate", None) or ""
        if state == "53100":
            return StoreFull
        return StoreCorrupt if state in ("XX001", "XX002") else StoreUnavailable

"""A connection to an SQLite file in a thread of its own, which does one piece of work after another."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from phygitals_async.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
)

T = TypeVar("T")

# "phyg": tells a store from any other database.
_APPLICATION: Final = 0x70687967
# How long a writer waits for that of another process, in seconds.
_PATIENCE: Final = 10.0
# The primary codes of what cannot be written to, or have a file beside it.
_UNWRITABLE: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_CLASSES: Final[dict[int, type[StoreError]]] = {
    sqlite3.SQLITE_BUSY: StoreBusy,
    sqlite3.SQLITE_LOCKED: StoreBusy,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CORRUPT: StoreCorrupt,
    sqlite3.SQLITE_NOTADB: StoreCorrupt,
}


class SqliteThread:
    """Opens the file when it is first needed, and brings it to the newest schema.

    Args:
        path: Of the file.
        steps: The statements that lead from each version of the schema to the next, from an empty file on.
    """

    def __init__(self, path: Path, steps: Sequence[str]) -> None:
        self._path = path
        self._steps = steps
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="phygitals-store")
        self._connection: sqlite3.Connection | None = None
        self._lock: sqlite3.Connection | None = None
        self._is_closed = False

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run some work in the thread, after what was given before. Once begun, it is not cancelled."""
        if self._is_closed:
            msg = f"the store {self._path} was closed"
            raise StoreUnavailable(msg)
        return await self._await(lambda: work(self._open()))

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run some work as one transaction, and if it is to be durable, one that a power cut does not take back."""

        def write(connection: sqlite3.Connection) -> T:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            return _transact(connection, work)

        return await self.do(write)

    async def acquire(self) -> None:
        """Lock the store for a run. The lock is the operating system's: it ends with the process.

        Raises:
            StoreBusy: It is locked.
        """
        got = []

        def acquire(_: sqlite3.Connection) -> None:
            self._acquire()
            got.append(True)

        def give_back() -> None:
            if got:
                self._release()

        try:
            await self.do(acquire)
        except BaseException:  # Whoever is cancelled while the thread works does not come to release it. Passed on.
            self._executor.submit(give_back)
            raise

    async def release(self) -> None:
        """Unlock it."""
        if not self._is_closed:
            await self._await(self._release)

    async def aclose(self) -> None:
        """Close the file, and end the thread."""
        if not self._is_closed:
            self._is_closed = True
            try:
                await self._await(self._close)
            finally:
                self._executor.shutdown(wait=False)

    async def _await(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            with self._translating():
                return work()

        future = self._executor.submit(translated)
        # A limiter of its own: the program's may be used up by threads that wait for this one.
        return await anyio.to_thread.run_sync(future.result, limiter=anyio.CapacityLimiter(1))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = self._opened(str(self._path), self._prepare)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _UNWRITABLE or not self._is_at_rest():
                    raise
                # SQLite has to write beside a file of this kind, but for one that it is told nobody writes to.
                self._connection = self._opened(f"{self._path.as_uri()}?immutable=1", self._check_unwritable)
        return self._connection

    def _opened(self, place: str, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
        connection = self._connect(place, _PATIENCE)
        try:
            prepare(connection)
        except BaseException:  # Whatever it was: the next try opens it anew. Passed on.
            connection.close()
            raise
        return connection

    def _connect(self, place: str, patience: float) -> sqlite3.Connection:
        is_uri = place.startswith("file:///")
        return sqlite3.connect(place, timeout=patience, isolation_level=None, check_same_thread=False, uri=is_uri)

    def _is_at_rest(self) -> bool:
        """Whether the file is there, and has all that was committed: none of it is in the file beside it."""
        beside = self._path.with_name(f"{self._path.name}-wal")
        return self._path.is_file() and not (beside.is_file() and beside.stat().st_size)

    def _check_unwritable(self, connection: sqlite3.Connection) -> None:
        self._check_ours(connection)
        if self._check_version(connection) < len(self._steps):
            msg = f"{self._path} is of an older version, and cannot be brought up to date where it cannot be written"
            raise StoreUnavailable(msg)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._check_ours(connection)
        self._check_version(connection)
        self._write_ahead(connection)
        if self._check_version(connection) < len(self._steps):
            _transact(connection, self._migrate)

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        # One look, for another process may be making the store.
        connection.execute("BEGIN")
        ((application,),) = connection.execute("PRAGMA application_id")
        is_empty = not connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        connection.execute("ROLLBACK")
        if application != _APPLICATION and not is_empty:
            msg = f"{self._path} is a database of another program"
            raise StoreCorrupt(msg)

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        # Where another process does the same with a new file, SQLite does not wait as it does for commits.
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return

    def _check_version(self, connection: sqlite3.Connection) -> int:
        version: int
        ((version,),) = connection.execute("PRAGMA user_version")
        if version > len(self._steps):
            msg = (
                f"{self._path} has version {version} of the schema, and this library knows {len(self._steps)}: "
                "update phygitals-async"
            )
            raise StoreTooNew(msg)
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        # Asked again inside the transaction: another process may have done it.
        for step in self._steps[self._check_version(connection) :]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(self._steps)}")

    def _acquire(self) -> None:
        if self._lock is None:
            lock = self._connect(f"{self._path}.lock", 0.0)
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as error:
                lock.close()
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
            else:
                self._lock = lock
                return
        msg = f"another run is under way on {self._path}"
        raise StoreBusy(msg)

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _close(self) -> None:
        self._release()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The primary code is the last byte of the extended one.
            cls = _CLASSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, StoreUnavailable)
            msg = f"the store {self._path}: {error}"
            raise cls(msg) from error


def _transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = work(connection)
        connection.execute("COMMIT")
    except BaseException:  # Whatever it was: all of it, or nothing. Passed on.
        # SQLite itself has rolled back after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return done

"""A store in one SQLite file, for one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from attrs import astuple

from phygitals_async._calls.journal import JournalEntry
from phygitals_async.refresh._entries import decode_entry, encode_entry
from phygitals_async.refresh._sqlite_thread import SqliteThread
from phygitals_async.refresh._store import Part, Run, StoredChanges, StoredUser, next_free

# Step by step from one version of the schema to the next: a step that was released is never changed.
STEPS: Final = (
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, started_at TEXT NOT NULL, finished_at TEXT,
        known INTEGER NOT NULL, unknown INTEGER NOT NULL, changed INTEGER NOT NULL, repriced INTEGER NOT NULL,
        changes INTEGER NOT NULL, failed INTEGER NOT NULL
    );
    CREATE TABLE users (
        user_id TEXT PRIMARY KEY, run INTEGER NOT NULL, known INTEGER NOT NULL, cards BLOB NOT NULL,
        prices BLOB NOT NULL, checksum BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE snapshots (user_id TEXT PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, user_id TEXT NOT NULL, at TEXT NOT NULL,
        body BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE journal (id TEXT PRIMARY KEY, started_at TEXT NOT NULL, is_open INTEGER NOT NULL, entry TEXT NOT NULL);
    CREATE INDEX open_entries ON journal (started_at) WHERE is_open
    """,
    """
    CREATE TABLE budgets (name TEXT PRIMARY KEY, reserved_until REAL NOT NULL) WITHOUT ROWID
    """,
    # What was counted of a run is counted of its parts.
    """
    CREATE TABLE parts (
        run INTEGER NOT NULL, number INTEGER NOT NULL, ids BLOB NOT NULL, is_done INTEGER NOT NULL,
        known INTEGER NOT NULL, unknown INTEGER NOT NULL, changed INTEGER NOT NULL, repriced INTEGER NOT NULL,
        changes INTEGER NOT NULL, PRIMARY KEY (run, number)
    ) WITHOUT ROWID;
    INSERT INTO parts SELECT number, 0, x'', 0, known, unknown, changed, repriced, changes FROM runs;
    ALTER TABLE runs RENAME TO counted_runs;
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, started_at TEXT NOT NULL, finished_at TEXT,
        failed INTEGER NOT NULL
    );
    INSERT INTO runs SELECT number, name, started_at, finished_at, failed FROM counted_runs;
    DROP TABLE counted_runs
    """,
    """
    CREATE INDEX entries ON journal (started_at, id)
    """,
)

_UPSERT_RUN: Final = """
    INSERT INTO runs VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET finished_at = excluded.finished_at, failed = excluded.failed
"""
_ADD_TO_PART: Final = """
    INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run, number) DO UPDATE SET ids = excluded.ids,
        is_done = excluded.is_done OR (is_done AND ids = excluded.ids), known = known + excluded.known,
        unknown = unknown + excluded.unknown, changed = changed + excluded.changed,
        repriced = repriced + excluded.repriced, changes = changes + excluded.changes
"""
_RUNS: Final = """
    SELECT last.number, name, started_at, finished_at, coalesce(sum(known), 0), coalesce(sum(unknown), 0),
        coalesce(sum(changed), 0), coalesce(sum(repriced), 0), coalesce(sum(changes), 0), failed
    FROM (SELECT * FROM runs ORDER BY number DESC LIMIT ?) AS last LEFT JOIN parts ON run = last.number
    GROUP BY last.number ORDER BY last.number DESC
"""
_UPSERT_USER: Final = """
    INSERT INTO users VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (user_id) DO UPDATE SET run = excluded.run, known = excluded.known, cards = excluded.cards,
        prices = excluded.prices, checksum = excluded.checksum
"""
_UPSERT_SNAPSHOT: Final = """
    INSERT INTO snapshots VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET body = excluded.body
"""
# SQLite takes no more than 999 parameters on some machines.
_MOST_PARAMETERS: Final = 500


class SqliteStore:
    """Keeps everything in one file, for the runs of one machine; see `Store`.

    A thread of its own does all the reading and writing. Beside the file there are two of SQLite's own while it is
    open, and one named `.lock` that a run holds. Other processes may read while a run writes. What was committed
    survives the end of the process, however sudden. A power cut may take the last commits of a run back, which are done
    again, and no entry of the journal. Where nothing can be written, a store can be read that was closed.

    Args:
        path: Of the file, which is made where there is none. Its folder must be there. A symbolic link is followed; a
            second name of the file (a hard link) must not be used.

    Raises:
        StoreError: It cannot be opened; said when it is first used.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A link to a store is that store, with the same lock.
        self._path = Path(os.path.realpath(path))
        self._thread = SqliteThread(self._path, STEPS)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path}>"

    def __reduce__(self) -> tuple[object, ...]:
        return SqliteStore, (self._path,)

    async def __aenter__(self) -> Self:
        await self._thread.do(_nothing)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def acquire(self) -> None:
        """See `Store`."""
        await self._thread.acquire()

    async def release(self) -> None:
        """See `Store`."""
        await self._thread.release()

    async def runs(self, limit: int | None = None) -> Sequence[Run]:
        """See `Store`."""
        rows = await self._read(_RUNS, -1 if limit is None else limit)
        return [
            Run(number, name, datetime.fromisoformat(started), ended and datetime.fromisoformat(ended), *counts)
            for number, name, started, ended, *counts in rows
        ]

    async def users(self, user_ids: Sequence[str]) -> Mapping[str, StoredUser]:
        """See `Store`."""
        rows = await self._read_of("SELECT * FROM users WHERE user_id IN ({})", user_ids)
        return {row[0]: _user(row) for row in rows}

    async def snapshots(self, user_ids: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store`."""
        return dict(await self._read_of("SELECT * FROM snapshots WHERE user_id IN ({})", user_ids))

    async def commit(
        self,
        run: Run,
        users: Sequence[StoredUser] = (),
        snapshots: Mapping[str, bytes] | None = None,
        changes: Sequence[StoredChanges] = (),
        seen: Sequence[str] = (),
        part: Part | None = None,
    ) -> Collection[str]:
        """See `Store`."""

        def write(connection: sqlite3.Connection) -> Collection[str]:
            if part is None:
                ended = run.finished_at and run.finished_at.isoformat()
                times = (run.number, run.name, run.started_at.isoformat(), ended, run.failed)
                connection.execute(_UPSERT_RUN, times)
            elif taken := _taken(connection, run.number, [*(user.user_id for user in users), *seen]):
                return taken
            else:
                connection.execute(_ADD_TO_PART, (run.number, *astuple(part)))
            connection.executemany(
                _UPSERT_USER, [(u.user_id, u.run, u.known, u.cards, u.prices, u.checksum) for u in users]
            )
            connection.executemany("UPDATE users SET run = ? WHERE user_id = ?", [(run.number, one) for one in seen])
            connection.executemany(_UPSERT_SNAPSHOT, (snapshots or {}).items())
            connection.executemany(
                "INSERT INTO changes (run, user_id, at, body) VALUES (?, ?, ?, ?)",
                [(c.run, c.user_id, c.at.isoformat(), c.body) for c in changes],
            )
            return ()

        return await self._thread.write(write)

    async def part(self, run: int, number: int) -> Part | None:
        """See `Store`."""
        rows = await self._read("SELECT * FROM parts WHERE run = ? AND number = ?", run, number)
        return next((Part(number, ids, bool(is_done), *counts) for _, number, ids, is_done, *counts in rows), None)

    async def user_count(self) -> int:
        """See `Store`."""
        ((users,),) = await self._read("SELECT count(*) FROM users")
        return int(users)

    async def user_page(self, after: str, limit: int) -> Sequence[str]:
        """See `Store`."""
        query = "SELECT user_id FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?"
        return [user_id for (user_id,) in await self._read(query, after, limit)]

    async def snapshot_page(self, after: str, limit: int) -> Sequence[tuple[StoredUser, bytes]]:
        """See `Store`."""
        query = """
            SELECT users.*, body FROM snapshots JOIN users USING (user_id) WHERE user_id > ? ORDER BY user_id LIMIT ?
        """
        return [(_user(row), row[-1]) for row in await self._read(query, after, limit)]

    async def change_page(self, after: int, limit: int, *, since: int = 0) -> Sequence[StoredChanges]:
        """See `Store`."""
        query = "SELECT * FROM changes WHERE number > ? AND run > ? ORDER BY number LIMIT ?"
        rows = await self._read(query, after, since, limit)
        return [
            StoredChanges(number, run, user_id, datetime.fromisoformat(at), body)
            for number, run, user_id, at, body in rows
        ]

    async def write_entry(self, entry: JournalEntry) -> None:
        """See `Journal`."""
        values = (entry.id, entry.started_at.isoformat(), entry.is_open, encode_entry(entry).decode())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?)", values)

        await self._thread.write(write, durable=True)

    async def read_entry(self, entry_id: str) -> JournalEntry | None:
        """See `Journal`."""
        rows = await self._read("SELECT entry FROM journal WHERE id = ?", entry_id)
        return decode_entry(rows[0][0]) if rows else None

    async def open_entries(self) -> Sequence[JournalEntry]:
        """See `Journal`."""
        rows = await self._read("SELECT entry FROM journal WHERE is_open ORDER BY started_at")
        return [decode_entry(entry) for (entry,) in rows]

    async def entry_page(self, since: datetime, after: str, limit: int) -> Sequence[JournalEntry]:
        """See `Journal`."""
        query = "SELECT entry FROM journal WHERE (started_at, id) > (?, ?) ORDER BY started_at, id LIMIT ?"
        return [decode_entry(entry) for (entry,) in await self._read(query, since.isoformat(), after, limit)]

    async def reserve(self, name: str, seconds: float) -> float:
        """See `Store`. It goes by the machine's clock."""

        def write(connection: sqlite3.Connection) -> float:
            found = connection.execute("SELECT reserved_until FROM budgets WHERE name = ?", (name,)).fetchone()
            now = time.time()
            begins = next_free(found[0] if found else now, now)
            connection.execute("INSERT OR REPLACE INTO budgets VALUES (?, ?)", (name, begins + seconds))
            return begins - now

        return await self._thread.write(write)

    async def aclose(self) -> None:
        """See `Store`."""
        await self._thread.aclose()

    async def _read(self, query: str, *parameters: object) -> list[Any]:
        return await self._thread.do(lambda connection: connection.execute(query, parameters).fetchall())

    async def _read_of(self, query: str, user_ids: Sequence[str]) -> list[Any]:
        """Return what a query has of some users."""

        return await self._thread.do(lambda connection: _rows_of(connection, query, user_ids))


def _rows_of(connection: sqlite3.Connection, query: str, user_ids: Sequence[str]) -> list[Any]:
    rows = []
    for start in range(0, len(user_ids), _MOST_PARAMETERS):
        some = user_ids[start : start + _MOST_PARAMETERS]
        rows += connection.execute(query.format(",".join("?" * len(some))), some).fetchall()
    return rows


def _taken(connection: sqlite3.Connection, run: int, user_ids: Sequence[str]) -> Collection[str]:
    """Return those of some users whom a part of a run must not write any more."""
    if connection.execute("SELECT 1 FROM runs WHERE number > ?", (run,)).fetchone():
        return user_ids
    query = f"SELECT user_id FROM users WHERE run >= {run:d} AND user_id IN ({{}})"  # noqa: S608 - it is a number.
    return [user_id for (user_id,) in _rows_of(connection, query, user_ids)]


def _user(row: tuple[Any, ...]) -> StoredUser:
    user_id, run, known, cards, prices, checksum = row[:6]
    return StoredUser(user_id, run, bool(known), cards, prices, checksum)


def _nothing(_: sqlite3.Connection) -> None:
    """Have the file opened."""

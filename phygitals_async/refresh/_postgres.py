"""A store in a PostgreSQL database, for teams and for several machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from attrs import astuple

from phygitals_async._calls.journal import JournalEntry
from phygitals_async.refresh._entries import decode_entry, encode_entry
from phygitals_async.refresh._postgres_pool import PostgresPool
from phygitals_async.refresh._store import FURTHEST_RESERVED, Part, Run, StoredChanges, StoredUser

# Step by step from one version of the tables to the next: a step that was released is never changed.
STEPS: Final = (
    """
    CREATE TABLE runs (
        number bigint PRIMARY KEY, name text NOT NULL UNIQUE, started_at timestamptz NOT NULL,
        finished_at timestamptz, known bigint NOT NULL, unknown bigint NOT NULL, changed bigint NOT NULL,
        repriced bigint NOT NULL, changes bigint NOT NULL, failed bigint NOT NULL
    );
    CREATE TABLE users (
        user_id text COLLATE "C" PRIMARY KEY, run bigint NOT NULL, known boolean NOT NULL, cards bytea NOT NULL,
        prices bytea NOT NULL, checksum bytea NOT NULL
    );
    CREATE TABLE snapshots (user_id text COLLATE "C" PRIMARY KEY, body bytea NOT NULL);
    CREATE TABLE changes (
        number bigserial PRIMARY KEY, run bigint NOT NULL, user_id text NOT NULL, at timestamptz NOT NULL,
        body bytea NOT NULL
    );
    -- Both are compressed as they come.
    ALTER TABLE snapshots ALTER body SET STORAGE EXTERNAL;
    ALTER TABLE changes ALTER body SET STORAGE EXTERNAL;
    """,
    """
    CREATE TABLE journal (id text PRIMARY KEY, started_at timestamptz NOT NULL, is_open boolean NOT NULL,
        entry text NOT NULL);
    CREATE INDEX open_entries ON journal (started_at) WHERE is_open;
    """,
    """
    -- The end of the server may cost it: what was reserved is over by the time it is up again.
    CREATE UNLOGGED TABLE budgets (name text PRIMARY KEY, reserved_until double precision NOT NULL);
    """,
    # What was counted of a run is counted of its parts.
    """
    CREATE TABLE parts (
        run bigint NOT NULL, number bigint NOT NULL, ids bytea NOT NULL, is_done boolean NOT NULL,
        known bigint NOT NULL, unknown bigint NOT NULL, changed bigint NOT NULL, repriced bigint NOT NULL,
        changes bigint NOT NULL, PRIMARY KEY (run, number)
    );
    INSERT INTO parts SELECT number, 0, '', false, known, unknown, changed, repriced, changes FROM runs;
    ALTER TABLE runs DROP known, DROP unknown, DROP changed, DROP repriced, DROP changes;
    """,
    """
    ALTER TABLE journal ALTER id TYPE text COLLATE "C";
    CREATE INDEX entries ON journal (started_at, id);
    """,
)

_UPSERT_RUN: Final = """
    INSERT INTO runs VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (number) DO UPDATE SET finished_at = excluded.finished_at, failed = excluded.failed
"""
_ADD_TO_PART: Final = """
    INSERT INTO parts AS former VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (run, number) DO UPDATE SET ids = excluded.ids,
        is_done = excluded.is_done OR (former.is_done AND former.ids = excluded.ids),
        known = former.known + excluded.known, unknown = former.unknown + excluded.unknown,
        changed = former.changed + excluded.changed, repriced = former.repriced + excluded.repriced,
        changes = former.changes + excluded.changes
"""
_RUNS: Final = """
    SELECT last.number, name, started_at, finished_at, known, unknown, changed, repriced, changes, failed
    FROM (SELECT * FROM runs ORDER BY number DESC LIMIT $1) AS last CROSS JOIN LATERAL (
        SELECT coalesce(sum(known), 0)::bigint AS known, coalesce(sum(unknown), 0)::bigint AS unknown,
            coalesce(sum(changed), 0)::bigint AS changed, coalesce(sum(repriced), 0)::bigint AS repriced,
            coalesce(sum(changes), 0)::bigint AS changes
        FROM parts WHERE run = last.number
    ) AS summed ORDER BY last.number DESC
"""
# In an order, so that of two that want the same rows one waits for the other.
_LOCK_USERS: Final = "SELECT user_id, run FROM users WHERE user_id = ANY ($1) ORDER BY user_id FOR UPDATE"
_UPSERT_USERS: Final = """
    INSERT INTO users
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bool[], $4::bytea[], $5::bytea[], $6::bytea[])
        AS given (user_id, run, known, cards, prices, checksum)
    ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET run = excluded.run, known = excluded.known, cards = excluded.cards,
        prices = excluded.prices, checksum = excluded.checksum
    WHERE users.run < excluded.run OR NOT $7
    RETURNING user_id
"""
_UPSERT_SNAPSHOTS: Final = """
    INSERT INTO snapshots SELECT * FROM unnest($1::text[], $2::bytea[])
    ON CONFLICT (user_id) DO UPDATE SET body = excluded.body
"""
_INSERT_CHANGES: Final = """
    INSERT INTO changes (run, user_id, at, body)
    SELECT run, user_id, at, body FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::bytea[])
        WITH ORDINALITY AS given (run, user_id, at, body, place)
    ORDER BY place
"""
_LOCK_CHANGES: Final = "SELECT pg_advisory_xact_lock('changes'::regclass::oid::bigint)"
_UPSERT_ENTRY: Final = """
    INSERT INTO journal VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, entry = excluded.entry
"""
# As `next_free` does, by the server's clock.
_NOW: Final = "extract(epoch FROM clock_timestamp())::double precision"
_RESERVE: Final = f"""
    INSERT INTO budgets AS budget VALUES ($1, {_NOW} + $2)
    ON CONFLICT (name) DO UPDATE SET reserved_until = $2 + CASE
        WHEN budget.reserved_until BETWEEN {_NOW} AND {_NOW} + {FURTHEST_RESERVED} THEN budget.reserved_until
        ELSE {_NOW} END
    RETURNING greatest(reserved_until - $2 - {_NOW}, 0)
"""  # noqa: S608 - constants of ours.


class PostgresStore:
    """Keeps everything in a PostgreSQL database, for runs on any machine, one at a time; see `Store`.

    It needs the extra `postgres`, and asyncio. The tables are made where there are none, in a schema of their own. A
    run holds a connection, and the store as long as that: where it is lost, the run ends and can be gone on with.

    Args:
        address: Such as `postgresql://user:password@host:5432/database`. Errors show its host and database alone.
        schema: Where the tables are; another one is another store.

    Raises:
        ConfigurationError: The extra is not installed, the address is none, or it is used with another event loop than
            asyncio's.
        StoreError: The database cannot be reached; said when it is first used.
    """

    def __init__(self, address: str, *, schema: str = "phygitals") -> None:
        self._address = address
        self._schema = schema
        self._pool = PostgresPool(address, schema, STEPS)

    def __repr__(self) -> str:
        return f"<PostgresStore in the schema {self._schema}>"

    def __reduce__(self) -> tuple[object, ...]:
        return partial(PostgresStore, schema=self._schema), (self._address,)

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def acquire(self) -> None:
        """See `Store`."""
        await self._pool.acquire()

    async def release(self) -> None:
        """See `Store`."""
        await self._pool.release()

    async def runs(self, limit: int | None = None) -> Sequence[Run]:
        """See `Store`."""
        return [Run(*row) for row in await self._pool.read(_RUNS, limit)]

    async def users(self, user_ids: Sequence[str]) -> Mapping[str, StoredUser]:
        """See `Store`."""
        rows = await self._pool.read("SELECT * FROM users WHERE user_id = ANY ($1)", user_ids)
        return {row[0]: StoredUser(*row) for row in rows}

    async def snapshots(self, user_ids: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store`."""
        return dict(await self._pool.read("SELECT * FROM snapshots WHERE user_id = ANY ($1)", user_ids))

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
        ids = [user.user_id for user in users]

        async def write(connection: Any) -> None:
            if part is None:
                # Parts of the run before that are being committed come first, and no more come after it.
                await connection.execute("LOCK TABLE runs IN EXCLUSIVE MODE")
                times = (run.number, run.name, run.started_at, run.finished_at, run.failed)
                await connection.execute(_UPSERT_RUN, *times)
            else:
                await connection.execute("LOCK TABLE runs IN ROW SHARE MODE")
                _refuse(await _taken(connection, run.number, [*ids, *seen]))
            columns = ([getattr(user, name) for user in users] for name in StoredUser.__match_args__)
            written = {row[0] for row in await connection.fetch(_UPSERT_USERS, *columns, part is not None)}
            # Who was not there a moment ago may have been written meanwhile.
            _refuse([user_id for user_id in ids if user_id not in written])
            await connection.execute("UPDATE users SET run = $1 WHERE user_id = ANY ($2)", run.number, seen)
            bodies = snapshots or {}
            await connection.execute(_UPSERT_SNAPSHOTS, list(bodies), list(bodies.values()))
            if part is not None:
                await connection.execute(_ADD_TO_PART, run.number, *astuple(part))
            if changes:
                # One after the other, so that whoever reads by number misses none.
                await connection.execute(_LOCK_CHANGES)
                columns = ([getattr(change, name) for change in changes] for name in ("run", "user_id", "at", "body"))
                await connection.execute(_INSERT_CHANGES, *columns)

        try:
            await self._pool.write(write)
        except _TakenError as error:
            return error.user_ids
        return ()

    async def part(self, run: int, number: int) -> Part | None:
        """See `Store`."""
        rows = await self._pool.read("SELECT * FROM parts WHERE run = $1 AND number = $2", run, number)
        return Part(*tuple(rows[0])[1:]) if rows else None

    async def user_count(self) -> int:
        """See `Store`."""
        ((users,),) = await self._pool.read("SELECT count(*) FROM users")
        return int(users)

    async def user_page(self, after: str, limit: int) -> Sequence[str]:
        """See `Store`."""
        query = "SELECT user_id FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2"
        return [user_id for (user_id,) in await self._pool.read(query, after, limit)]

    async def snapshot_page(self, after: str, limit: int) -> Sequence[tuple[StoredUser, bytes]]:
        """See `Store`."""
        query = """
            SELECT users.*, body FROM snapshots JOIN users USING (user_id) WHERE user_id > $1 ORDER BY user_id LIMIT $2
        """
        return [(StoredUser(*row[:-1]), row[-1]) for row in map(tuple, await self._pool.read(query, after, limit))]

    async def change_page(self, after: int, limit: int, *, since: int = 0) -> Sequence[StoredChanges]:
        """See `Store`."""
        query = "SELECT * FROM changes WHERE number > $1 AND run > $2 ORDER BY number LIMIT $3"
        return [StoredChanges(*row) for row in await self._pool.read(query, after, since, limit)]

    async def write_entry(self, entry: JournalEntry) -> None:
        """See `Journal`."""
        values = (entry.id, entry.started_at, entry.is_open, encode_entry(entry).decode())
        await self._pool.read(_UPSERT_ENTRY, *values)

    async def read_entry(self, entry_id: str) -> JournalEntry | None:
        """See `Journal`."""
        rows = await self._pool.read("SELECT entry FROM journal WHERE id = $1", entry_id)
        return decode_entry(rows[0][0]) if rows else None

    async def open_entries(self) -> Sequence[JournalEntry]:
        """See `Journal`."""
        rows = await self._pool.read("SELECT entry FROM journal WHERE is_open ORDER BY started_at")
        return [decode_entry(entry) for (entry,) in rows]

    async def entry_page(self, since: datetime, after: str, limit: int) -> Sequence[JournalEntry]:
        """See `Journal`."""
        query = "SELECT entry FROM journal WHERE (started_at, id) > ($1, $2) ORDER BY started_at, id LIMIT $3"
        return [decode_entry(entry) for (entry,) in await self._pool.read(query, since, after, limit)]

    async def reserve(self, name: str, seconds: float) -> float:
        """See `Store`. It goes by the server's clock."""
        ((begins,),) = await self._pool.read(_RESERVE, name, seconds)
        return float(begins)

    async def aclose(self) -> None:
        """See `Store`."""
        await self._pool.aclose()


class _TakenError(Exception):
    """Rolls a commit back: these users are another's."""

    def __init__(self, user_ids: Collection[str]) -> None:
        super().__init__(user_ids)
        self.user_ids = user_ids


def _refuse(taken: Collection[str]) -> None:
    if taken:
        raise _TakenError(taken)


async def _taken(connection: Any, run: int, user_ids: Sequence[str]) -> Collection[str]:
    """Return those of some users whom a part of a run must not write any more, and lock them all."""
    if await connection.fetchval("SELECT coalesce(max(number), 0) FROM runs") > run:
        return user_ids
    return [user_id for user_id, last in await connection.fetch(_LOCK_USERS, user_ids) if last >= run]

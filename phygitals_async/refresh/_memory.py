"""A store that forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import NoReturn, Self

import anyio.lowlevel
from attrs import evolve

from phygitals_async._calls.journal import JournalEntry
from phygitals_async.errors import StoreBusy
from phygitals_async.refresh._store import Part, Run, StoredChanges, StoredUser, next_free, plus, uncounted


class MemoryStore:
    """Keeps everything in this process, for tests; see `Store`.

    Args:
        clock: Returns the time that budgets go by, in seconds; such as `clock.now` of a `SkippingClock`.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_held = False
        self._runs: dict[int, Run] = {}
        self._parts: dict[tuple[int, int], Part] = {}
        self._users: dict[str, StoredUser] = {}
        self._snapshots: dict[str, bytes] = {}
        self._changes: list[StoredChanges] = []
        self._entries: dict[str, JournalEntry] = {}
        self._budgets: dict[str, float] = {}

    def __reduce__(self) -> NoReturn:
        msg = "a MemoryStore is in one process only, and cannot be pickled"
        raise TypeError(msg)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def acquire(self) -> None:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        if self._is_held:
            msg = "another run is under way on this store"
            raise StoreBusy(msg)
        self._is_held = True

    async def release(self) -> None:
        """See `Store`."""
        self._is_held = False

    async def runs(self, limit: int | None = None) -> Sequence[Run]:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return [self._summed(self._runs[number]) for number in sorted(self._runs, reverse=True)][:limit]

    async def users(self, user_ids: Sequence[str]) -> Mapping[str, StoredUser]:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return {user_id: self._users[user_id] for user_id in user_ids if user_id in self._users}

    async def snapshots(self, user_ids: Sequence[str]) -> Mapping[str, bytes]:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return {user_id: self._snapshots[user_id] for user_id in user_ids if user_id in self._snapshots}

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
        await anyio.lowlevel.checkpoint()
        if part is None:
            self._runs[run.number] = uncounted(run)
        elif taken := self._taken(run, [*(user.user_id for user in users), *seen]):
            return taken
        else:
            self._add(run, part)
        self._users.update((user.user_id, user) for user in users)
        self._users.update((user_id, evolve(self._users[user_id], run=run.number)) for user_id in seen)
        self._snapshots.update(snapshots or {})
        first = len(self._changes) + 1
        self._changes.extend(evolve(change, number=number) for number, change in enumerate(changes, first))
        return ()

    async def part(self, run: int, number: int) -> Part | None:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return self._parts.get((run, number))

    async def user_count(self) -> int:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return len(self._users)

    async def user_page(self, after: str, limit: int) -> Sequence[str]:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return sorted(user_id for user_id in self._users if user_id > after)[:limit]

    async def snapshot_page(self, after: str, limit: int) -> Sequence[tuple[StoredUser, bytes]]:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        ids = sorted(user_id for user_id in self._snapshots if user_id > after)[:limit]
        return [(self._users[user_id], self._snapshots[user_id]) for user_id in ids]

    async def change_page(self, after: int, limit: int, *, since: int = 0) -> Sequence[StoredChanges]:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        return [change for change in self._changes[after:] if change.run > since][:limit]

    async def write_entry(self, entry: JournalEntry) -> None:
        """See `Journal`."""
        await anyio.lowlevel.checkpoint()
        self._entries[entry.id] = entry

    async def read_entry(self, entry_id: str) -> JournalEntry | None:
        """See `Journal`."""
        await anyio.lowlevel.checkpoint()
        return self._entries.get(entry_id)

    async def open_entries(self) -> Sequence[JournalEntry]:
        """See `Journal`."""
        await anyio.lowlevel.checkpoint()
        return sorted((e for e in self._entries.values() if e.is_open), key=lambda entry: entry.started_at)

    async def entry_page(self, since: datetime, after: str, limit: int) -> Sequence[JournalEntry]:
        """See `Journal`."""
        await anyio.lowlevel.checkpoint()
        later = [entry for entry in self._entries.values() if (entry.started_at, entry.id) > (since, after)]
        return sorted(later, key=lambda entry: (entry.started_at, entry.id))[:limit]

    async def reserve(self, name: str, seconds: float) -> float:
        """See `Store`."""
        await anyio.lowlevel.checkpoint()
        now = self._clock()
        begins = next_free(self._budgets.get(name, now), now)
        self._budgets[name] = begins + seconds
        return begins - now

    async def aclose(self) -> None:
        """See `Store`. What it holds can still be read."""
        await self.release()

    def _summed(self, run: Run) -> Run:
        return plus(run, *(part for (number, _), part in self._parts.items() if number == run.number))

    def _taken(self, run: Run, user_ids: Sequence[str]) -> Collection[str]:
        if max(self._runs, default=0) > run.number:
            return user_ids
        return [one for one in user_ids if one in self._users and self._users[one].run >= run.number]

    def _add(self, run: Run, part: Part) -> None:
        former = self._parts.get((run.number, part.number), Part(part.number))
        is_done = part.is_done or (former.is_done and former.ids == part.ids)
        self._parts[run.number, part.number] = evolve(plus(former, part), ids=part.ids, is_done=is_done)

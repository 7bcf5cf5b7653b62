"""What a refresh keeps, and the protocol of what keeps it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from attrs import evolve, frozen

from phygitals_async._calls.journal import Journal
from phygitals_async._checks import has_surrogate
from phygitals_async.models.fields import Instant

# Seconds. What is reserved of a budget further ahead than this was reserved before the clock was set back.
FURTHEST_RESERVED: Final = 300.0


@frozen
class Run:
    """One refresh of all users, however often it was interrupted.

    Attributes:
        number: Counts the runs of a store, from 1.
        name: What it is called: given, or made of the time it started.
        started_at: When, UTC.
        finished_at: When every user had been looked up, UTC; None until then: the run can be gone on with.
        known: Users whose inventory was answered. A store sums this and the next four up over the run's parts.
        unknown: Users whom the API does not know.
        changed: Users of whom there is something to tell.
        repriced: Those of them who own the same cards at other sellback values.
        changes: What there is to tell of them, such as one card bought.
        failed: Users whose lookup failed when the run finished; the next run asks again.
    """

    number: int
    name: str
    started_at: Instant
    finished_at: Instant | None = None
    known: int = 0
    unknown: int = 0
    changed: int = 0
    repriced: int = 0
    changes: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Users who were looked up, known or not."""
        return self.known + self.unknown


@frozen
class Part:
    """A part of a run's users, as one worker looks them up; a run on one machine has only the part 0.

    On several machines, nobody is looked up as the part 0.

    Attributes:
        number: Counts the parts of a run.
        ids: Digest of the ids that it consists of; of the part 0, of those that the run was begun with.
        is_done: Whether all of them were looked up, and none failed.
        known: Users whose inventory was answered.
        unknown: Users whom the API does not know.
        changed: Users of whom there is something to tell.
        repriced: Those of them who own the same cards at other sellback values.
        changes: What there is to tell of them.
    """

    number: int
    ids: bytes = b""
    is_done: bool = False
    known: int = 0
    unknown: int = 0
    changed: int = 0
    repriced: int = 0
    changes: int = 0


Counted = TypeVar("Counted", Run, Part)


def plus(counted: Counted, *more: Run | Part) -> Counted:
    """Return a run or a part with the counts of others added."""
    every = (counted, *more)
    return evolve(
        counted,
        known=sum(one.known for one in every),
        unknown=sum(one.unknown for one in every),
        changed=sum(one.changed for one in every),
        repriced=sum(one.repriced for one in every),
        changes=sum(one.changes for one in every),
    )


def uncounted(run: Run) -> Run:
    """Return a run without the counts of its parts."""
    return evolve(run, known=0, unknown=0, changed=0, repriced=0, changes=0)


@frozen
class StoredUser:
    """What a store knows of a user, beside the snapshot.

    Attributes:
        user_id: Who.
        run: The number of the run that looked the user up last.
        known: Whether the API knew the user then.
        cards: Digest of which cards were owned; empty where there is no snapshot.
        prices: Digest of which cards were owned at which sellback values; empty where there is no snapshot.
        checksum: Of the answer that the snapshot was made of; empty where there is none.
    """

    user_id: str
    run: int
    known: bool
    cards: bytes = b""
    prices: bytes = b""
    checksum: bytes = b""


@frozen
class StoredChanges:
    """What a run found changed about a user.

    Attributes:
        number: Counts these in a store, ascending; 0 before it is stored.
        run: The number of the run.
        user_id: Who.
        at: When it was noticed, UTC.
        body: The changes, encoded.
    """

    number: int
    run: int
    user_id: str
    at: Instant
    body: bytes


class Store(Journal, Protocol):
    """What keeps the users' last snapshots, what changed, and how far each run has come. It is a `Journal` as well.

    `phygitals_async.refresh.conformance` has the tests that every store passes. It is used as `async with`, or closed
    with `aclose`. A store may be used by any number of
    tasks of one event loop, and holds snapshots and changes as bytes that are its caller's business. Any method may
    raise a `StoreError`; none leaves half of its work behind.

    One that several machines can open is pickled as what it takes to open it there, as `refresh(..., on=)` needs it.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    async def acquire(self) -> None:
        """Reserve the store for one run, until `release` or the end of the process, however sudden.

        Raises:
            StoreBusy: Another run has it, in this process or another.
        """
        ...

    async def release(self) -> None:
        """Give the store back. Does nothing where it is not held."""
        ...

    async def runs(self, limit: int | None = None) -> Sequence[Run]:
        """Return the last runs, all by default, the newest first."""
        ...

    async def users(self, user_ids: Sequence[str]) -> Mapping[str, StoredUser]:
        """Return what is known of each of some users; one never seen is left out."""
        ...

    async def snapshots(self, user_ids: Sequence[str]) -> Mapping[str, bytes]:
        """Return the last snapshot of each of some users; one without is left out."""
        ...

    async def commit(
        self,
        run: Run,
        users: Sequence[StoredUser] = (),
        snapshots: Mapping[str, bytes] | None = None,
        changes: Sequence[StoredChanges] = (),
        seen: Sequence[str] = (),
        part: Part | None = None,
    ) -> Collection[str]:
        """Write all of this, or nothing: users, new snapshots, and what changed.

        A user given without a snapshot keeps the former one. The changes are numbered in the order given, and nobody
        sees one before those of lower numbers. Of the users who were only `seen`, nothing is new but that it was in
        this run.

        Without a part, the run is written too: its times and failures, for its other counts are those of its parts.
        With one, its counts are added to what it has, and the users must not be of this run yet. Parts are committed by
        several workers at once, and some may be late.

        Returns:
            The users who are of this run already, all of them where a later run has begun. If there are any, nothing
            was written.
        """
        ...

    async def part(self, run: int, number: int) -> Part | None:
        """Return a part of a run as it was committed last, with the counts of all its commits."""
        ...

    async def user_count(self) -> int:
        """Return how many users there are, known to the API or not."""
        ...

    async def user_page(self, after: str, limit: int) -> Sequence[str]:
        """Return the first ids of users after an id, in some fixed order. The empty text is before all of them."""
        ...

    async def snapshot_page(self, after: str, limit: int) -> Sequence[tuple[StoredUser, bytes]]:
        """Return the first users with a snapshot after an id, in the order of `user_page`, each with it."""
        ...

    async def change_page(self, after: int, limit: int, *, since: int = 0) -> Sequence[StoredChanges]:
        """Return the first changes after a number, in their order: those of runs after the run numbered `since`."""
        ...

    async def reserve(self, name: str, seconds: float) -> float:
        """Reserve the next seconds of a budget that nobody has, and return in how many seconds from now they begin.

        All who share the store reserve one after the other, by one clock. Where that was set back, what seems to be
        reserved for more than 300 seconds ahead counts as over.
        """
        ...

    async def aclose(self) -> None:
        """Close the store; again, it does nothing."""
        ...


def can_be_named(name: object) -> bool:
    """Whether a run or a budget can have a name in every store."""
    return isinstance(name, str) and bool(name) and "\0" not in name and not has_surrogate(name)


def next_free(reserved_until: float, now: float) -> float:
    """Return when the seconds of a budget begin that nobody has reserved."""
    return reserved_until if now <= reserved_until <= now + FURTHEST_RESERVED else now

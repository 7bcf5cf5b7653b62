"""What a refresh makes of a bulk run: keep what is found, tell what changed."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Final

import anyio
from attrs import evolve

from phygitals_async._api.wire import Wire
from phygitals_async._bulk.fan_out import FanOut
from phygitals_async._bulk.outcomes import Failed, Outcome
from phygitals_async._calls.exchange import Exchange
from phygitals_async.errors import (
    AuthenticationError,
    ClientClosed,
    DecodeError,
    InvalidArgumentError,
    NotAttempted,
    PhygitalsError,
    Sent,
    StoreError,
    UserNotFound,
)
from phygitals_async.models import Inventory
from phygitals_async.observer import logger
from phygitals_async.refresh._batch import Batch, can_be_kept, counted
from phygitals_async.refresh._changes import ChangeKind, Difference, differences
from phygitals_async.refresh._report import RefreshReport
from phygitals_async.refresh._snapshots import checksum, compress, decode, digests, encode, problems_of
from phygitals_async.refresh._store import Part, Run, Store, StoredChanges, StoredUser

# A commit holds so many users at most, and none that waited so many seconds when another outcome comes.
_COMMIT_USERS: Final = 500
_COMMIT_SECONDS: Final = 1.0
MOST_FAILURES: Final = 100
# Stands for an inventory whose answer was kept before, down to the last character.
_SAME: Final = Inventory("", ())


class Job:
    """Looks up the users of one part of a run, and commits what comes of them.

    Args:
        store: Keeps it.
        on_commit: Is called after each commit with the report so far.
    """

    _run: Run
    _part: Part

    def __init__(self, store: Store, on_commit: Callable[[RefreshReport], object] | None = None) -> None:
        self._store = store
        self._on_commit = on_commit
        self._batch = Batch(time.monotonic())
        # What the store knows of those who are read and not committed; None for one it does not know.
        self._pending: dict[str, StoredUser | None] = {}
        # Of the answer that the outcome at hand was made of; and it itself, where it can be kept as it is.
        self._checksum = b""
        self._body = b""
        # Whether its inventory is what any other client would have made of it.
        self._is_usual = False
        # Whether it is known what the store holds: where a commit fails or is cut short, it may or may not have it.
        self._is_certain = True
        self._asked = 0
        self._skipped = 0
        self._failed = 0
        self._failures: list[Failed[str]] = []
        self._stopped_by: PhygitalsError | None = None
        # Why nobody was reached, as long as nobody was.
        self._outage: PhygitalsError | None = None

    def begin(self, run: Run, part: Part) -> None:
        """Be this part of a run, which the store has already; before the first id is wanted.

        Args:
            run: The run.
            part: The number of the part, and the digest of its ids.
        """
        self._run, self._part = run, part

    def report(self) -> RefreshReport:
        """Return what was done so far."""
        return RefreshReport(
            self._run, self._asked, self._skipped, self._failed, tuple(self._failures), self._stopped_by
        )

    async def wanted(self, groups: AsyncGenerator[list[str], None]) -> AsyncGenerator[str, None]:
        """Yield the ids that this run has not looked up, each once."""
        async with aclosing(groups):
            async for group in groups:
                kept = [user_id for user_id in group if can_be_kept(user_id)]
                if len(kept) < len(group):
                    for user_id in itertools.filterfalse(can_be_kept, group):
                        self._fail(user_id, InvalidArgumentError("no store can keep such a user id"))
                stored = await self._store.users(kept)
                for user_id in kept:
                    before = stored.get(user_id)
                    if user_id in self._pending or (before is not None and before.run == self._run.number):
                        self._skipped += 1
                        continue
                    self._pending[user_id] = before
                    yield user_id
                    if self._stopped_by is not None:
                        return

    async def work(self, outcomes: FanOut[str, Inventory]) -> None:
        """Take every outcome, and commit."""
        # What is not a bulk run of lookups itself may look into what comes out of one.
        if type(outcomes) is FanOut and outcomes.finish is Exchange.result:
            outcomes.finish = self._result
        try:
            async with outcomes:
                while (outcome := await self._next(outcomes)) is not None:
                    self._take(outcome)
                    if self._is_due():
                        await self._commit()
        except BaseException:  # Cancellation too: what was answered is worth keeping; passed on.
            if self._batch.size and self._is_certain:
                with anyio.CancelScope(shield=True), suppress(StoreError):
                    await self._commit()
            raise
        # Where each user had been tried by then, no outcome tells of it.
        if self._stopped_by is None and (outage := self._outage or getattr(outcomes, "ended_by", None)) is not None:
            self._stopped_by = NotAttempted(f"an outage has outlasted this run: {outage}")
            self._stopped_by.__cause__ = outage
        is_done = self._stopped_by is None and not self._failed
        if self._batch.size or (is_done and self._part.number):
            await self._commit(is_done=is_done)

    async def _next(self, outcomes: FanOut[str, Inventory]) -> Outcome[str, Inventory] | None:
        self._checksum = self._body = b""
        self._is_usual = False
        return await anext(outcomes, None)

    def _result(self, exchange: Exchange[Inventory]) -> Inventory:
        """Return the result of a lookup; an answer that was kept before is not decoded again."""
        return exchange.result(self._recognise)

    def _recognise(self, wire: Wire, arguments: Mapping[str, Any], body: bytes) -> Inventory | None:
        self._checksum = checksum(body)
        if self._is_kept(self._pending.get(arguments.get("user_id", ""))):
            return _SAME
        self._is_usual = wire.converter.is_as_built_for(Inventory)
        self._body = body if self._is_usual and wire.can_keep(body) else b""
        return None

    def _is_kept(self, before: StoredUser | None) -> bool:
        return before is not None and before.known and before.checksum == self._checksum

    def _is_due(self) -> bool:
        batch = self._batch
        return batch.size >= _COMMIT_USERS or (batch.size > 0 and time.monotonic() - batch.began >= _COMMIT_SECONDS)

    def _take(self, outcome: Outcome[str, Inventory]) -> None:
        if not self._batch.size:
            self._batch = Batch(time.monotonic())
        if isinstance(outcome, Failed):
            self._take_failure(outcome.key, outcome.error)
            return
        self._count(None)
        if outcome.value is _SAME:
            self._batch.seen[outcome.key] = True
        elif outcome.value.unreadable:
            problems = [problem for row in outcome.value.unreadable for problem in row.problems]
            unreadable = DecodeError("some items cannot be read", problems=problems, partial=outcome.value)
            self._fail(outcome.key, unreadable)
        else:
            self._take_inventory(outcome.key, outcome.value)

    def _take_failure(self, user_id: str, error: PhygitalsError) -> None:
        if isinstance(error, StoreError):
            # That of the client's budget: the others would fail by it too, one after the other.
            raise error
        if isinstance(error, NotAttempted | ClientClosed | AuthenticationError):
            del self._pending[user_id]
            # The refused key says more than what was not attempted for it.
            if self._stopped_by is None or isinstance(error, AuthenticationError):
                self._stopped_by = error
            return
        self._count(error)
        if isinstance(error, UserNotFound):
            self._take_stranger(user_id)
        else:
            self._fail(user_id, error)

    def _count(self, error: PhygitalsError | None) -> None:
        """Count one who was looked up: where nobody was reached, that is no user's fault."""
        was_reached = error is None or error.sent is not Sent.NEVER
        self._outage = None if was_reached or (self._asked and self._outage is None) else error
        self._asked += 1

    def _fail(self, user_id: str, error: PhygitalsError) -> None:
        self._pending.pop(user_id, None)
        self._failed += 1
        if len(self._failures) < MOST_FAILURES:
            self._failures.append(Failed(user_id, error))

    def _take_inventory(self, user_id: str, inventory: Inventory) -> None:
        batch, before = self._batch, self._pending[user_id]
        try:
            data = self._body or encode(inventory)
        except UnicodeEncodeError:
            self._fail(user_id, DecodeError("what was made of the answer holds half a character, and cannot be kept"))
            return
        # A client may be wrapped in what has its answers from elsewhere.
        self._checksum = self._checksum or checksum(data)
        if self._is_kept(before):
            batch.seen[user_id] = True
            return
        if not self._is_usual and (problems := problems_of(data)):
            self._fail(user_id, DecodeError("what was made of the answer could not be read back", problems=problems))
            return
        cards, prices = digests(inventory)
        batch.users[user_id] = StoredUser(user_id, self._run.number, True, cards, prices, self._checksum)
        batch.snapshots[user_id] = compress(data)
        if before is None or not before.known:
            batch.news[user_id] = [Difference(ChangeKind.NEW_USER)]
        if before is not None and before.checksum and before.prices != prices:
            batch.moved[user_id] = inventory
            if before.cards == cards:
                batch.repriced.add(user_id)

    def _take_stranger(self, user_id: str) -> None:
        batch, before = self._batch, self._pending[user_id]
        if before is not None and not before.known:
            batch.seen[user_id] = False
            return
        former = StoredUser(user_id, 0, known=False) if before is None else before
        batch.users[user_id] = evolve(former, run=self._run.number, known=False)
        batch.news[user_id] = [Difference(ChangeKind.UNKNOWN_USER)]

    async def _commit(self, *, is_done: bool = False) -> None:
        """Commit the batch, and add it to the counts of the part."""
        batch, self._batch = self._batch, Batch(time.monotonic())
        former = await self._store.snapshots(list(batch.moved)) if batch.moved else {}
        for user_id, inventory in batch.moved.items():
            # Another converter may have spelt the user's id otherwise.
            before = evolve(decode(former[user_id]), user_id=inventory.user_id)
            batch.news.setdefault(user_id, []).extend(differences(before, inventory))
        while taken := await self._write(batch, is_done):
            # Another worker has this part too, or another part these users.
            for user_id in taken:
                batch.drop(user_id)
                del self._pending[user_id]
        self._run = counted(self._run, batch)
        for user_id in (*batch.users, *batch.seen):
            del self._pending[user_id]
        logger.debug("refresh %s: committed %d users", self._run.name, batch.size)
        if self._on_commit is not None:
            self._on_commit(self.report())

    async def _write(self, batch: Batch, is_done: bool) -> Collection[str]:
        """Write a batch, or return those of its users whom the run has already."""
        now = datetime.now(UTC)
        news = {user_id: encode(told) for user_id, told in batch.news.items()}
        # Most are the same: a new user.
        bodies = {told: compress(told) for told in set(news.values())}
        changes = [StoredChanges(0, self._run.number, user_id, now, bodies[told]) for user_id, told in news.items()]
        part, self._is_certain = counted(evolve(self._part, is_done=is_done), batch), False
        users, seen = list(batch.users.values()), list(batch.seen)
        taken = await self._store.commit(self._run, users, batch.snapshots, changes, seen, part)
        self._is_certain = True
        return taken

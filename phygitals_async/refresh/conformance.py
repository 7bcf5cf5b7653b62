"""What every `Store` must do, as tests for stores of your own.

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", conformance.CHECKS)
    async def test_conformance(check, tmp_path):
        await check(lambda: MyStore(tmp_path / "store"))

Each check is given what opens the store: an empty one at first, and the same one each time it is called again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from attrs import evolve

from phygitals_async._calls.journal import JournalEntry
from phygitals_async.errors import StoreBusy
from phygitals_async.refresh._store import Part, Run, Store, StoredChanges, StoredUser, plus

Open: TypeAlias = Callable[[], Store]

_NOW: Final = datetime(2026, 4, 18, 19, 5, 14, 123456, tzinfo=UTC)
_RUN: Final = Run(1, "first", _NOW)
# Ids are any text but the empty one, and the two that mean a folder.
_IDS: Final = (
    "user_abc123",
    "User_abc123",
    "a b",
    "a/b",
    "it's",
    '"',
    "%_",
    "ж",
    "é",
    "😀",
    " ",
    "x" * 2000,
    "1",
    "01",
)


async def an_empty_store_has_nothing(open_store: Open) -> None:
    """Nothing is found in it, and that is no error."""
    async with open_store() as store:
        _same(await store.runs(), [])
        _same(await store.users(["a"]), {})
        _same(await store.users([]), {})
        _same(await store.snapshots(["a"]), {})
        _same(await store.user_page("", 10), [])
        _same(await store.user_count(), 0)
        _same(await store.snapshot_page("", 10), [])
        _same(await store.change_page(0, 10), [])


async def what_was_committed_is_there(open_store: Open) -> None:
    """All of it, as it was given, in the store that is opened next as well."""
    users = [StoredUser(user_id, 1, True, b"\0cards", user_id.encode(), b"check") for user_id in _IDS]
    snapshots = {user_id: b"\0body of " + user_id.encode() for user_id in _IDS}
    changes = [StoredChanges(0, 1, user_id, _NOW, b"\0change of " + user_id.encode()) for user_id in _IDS]
    async with open_store() as store:
        await store.commit(_RUN, users, snapshots, changes)
    async with open_store() as store:
        _same(await store.runs(), [_RUN])
        _same(await store.users([*_IDS, "nobody", "a b"]), {user.user_id: user for user in users})
        _same(await store.snapshots([*_IDS, "nobody"]), snapshots)
        found = await store.change_page(0, 100)
        _same([evolve(change, number=0) for change in found], changes)


async def a_user_without_a_new_snapshot_keeps_the_former_one(open_store: Open) -> None:
    """The rest of what is known of the user is new."""
    before, after = StoredUser("a", 1, True, b"c", b"p", b"s"), StoredUser("a", 2, False, b"c", b"p", b"s")
    async with open_store() as store:
        await store.commit(_RUN, [before], {"a": b"body"})
        await store.commit(evolve(_RUN, number=2, name="second"), [after])
        _same(await store.users(["a"]), {"a": after})
        _same(await store.snapshots(["a"]), {"a": b"body"})
        await store.commit(evolve(_RUN, number=2, name="second"), [after], {"a": b"new body"})
        _same(await store.snapshots(["a"]), {"a": b"new body"})
        await store.commit(evolve(_RUN, number=3, name="third"), seen=["a"])
        _same(await store.users(["a"]), {"a": evolve(after, run=3)})
        _same(await store.snapshots(["a"]), {"a": b"new body"})


async def runs_come_newest_first(open_store: Open) -> None:
    """Each as it was committed last."""
    runs = [Run(n, f"run {n}", _NOW + timedelta(days=n), failed=n) for n in range(1, 12)]
    async with open_store() as store:
        for run in runs:
            await store.commit(evolve(run, failed=0))
            await store.commit(evolve(run, finished_at=run.started_at + timedelta(seconds=1)))
        await store.commit(runs[-1])
        done = [evolve(run, finished_at=run.started_at + timedelta(seconds=1)) for run in runs[:-1]]
        _same(await store.runs(), [runs[-1], *reversed(done)])
        _same(await store.runs(2), [runs[-1], done[-1]])


async def a_run_counts_what_its_parts_do(open_store: Open) -> None:
    """Each commit of a part adds to it; a part stays done until it is one of other users."""
    first, fifth = (Part(number, b"ids" * number, False, 1, 20, 300, 4000, 50000) for number in (0, 5))
    async with open_store() as store:
        _same(await store.part(1, 0), None)
        for number in (1, 2):
            await store.commit(evolve(_RUN, number=number, name=f"run {number}", known=7))
        await store.commit(evolve(_RUN, number=2), part=first)
        await store.commit(evolve(_RUN, number=2), part=evolve(fifth, is_done=True))
        await store.commit(evolve(_RUN, number=2), part=fifth)
        twice = evolve(plus(fifth, fifth), is_done=True)
        _same(await store.part(2, 5), twice)
        last = plus(evolve(_RUN, number=2, name="run 2"), twice, first)
        _same(await store.runs(2), [last, evolve(_RUN, name="run 1")])
        await store.commit(evolve(_RUN, number=2), part=Part(5, b"other ids"))
    async with open_store() as store:
        _same(await store.part(2, 5), evolve(twice, ids=b"other ids", is_done=False))
        _same(await store.part(1, 5), None)


async def nobody_is_written_twice_in_a_run(open_store: Open) -> None:
    """A part that brings a user whom the run has already is told so, and writes nothing, whoever else it brings."""
    mine, late = StoredUser("a", 1, True, b"c", b"p", b"s"), StoredUser("a", 1, True, b"late")
    change = StoredChanges(0, 1, "a", _NOW, b"change")
    async with open_store() as store:
        await store.commit(_RUN)
        given = [mine, StoredUser("z", 1, False)]
        _same(list(await store.commit(_RUN, given, {"a": b"body"}, [change], part=Part(1, known=1, unknown=1))), [])
    async with open_store() as store:
        for users, seen in (([late, StoredUser("b", 1, True)], ["z"]), ([StoredUser("b", 1, True)], ["a", "z"])):
            bodies = {user.user_id: b"late" for user in users}
            taken = await store.commit(_RUN, users, bodies, [change], seen, Part(1, b"", True, 5, 5, 5, 5, 5))
            _same(sorted(taken), ["a", "z"])
            _same(await store.users(["a", "b"]), {"a": mine})
            _same(await store.snapshots(["a", "b"]), {"a": b"body"})
            _same(len(await store.change_page(0, 100)), 1)
            _same(await store.part(1, 1), Part(1, known=1, unknown=1))
        # In the next run everybody is new; and what is left of this one must not take them back.
        second = evolve(_RUN, number=2, name="second")
        await store.commit(second)
        _same(list(await store.commit(second, [evolve(mine, run=2)], seen=["z"], part=Part(1))), [])
        _same(sorted(await store.commit(_RUN, [late], seen=["b"], part=Part(1))), ["a", "b"])
        _same((await store.users(["a"]))["a"], evolve(mine, run=2))


async def pages_hold_everything_once(open_store: Open) -> None:
    """Users and snapshots come in one order, however long the pages; one without a snapshot is a user too."""
    users = [StoredUser(user_id, 1, True) for user_id in _IDS]
    async with open_store() as store:
        await store.commit(_RUN, [*users, StoredUser("stranger", 1, False)], dict.fromkeys(_IDS, b"body"))
        _same(await store.user_count(), len(users) + 1)
        every = await store.user_page("", 1000)
        _same(sorted(every), sorted([*_IDS, "stranger"]))
        for size in (1, 3, len(every)):
            _same(await _in_pages(store.user_page, size), every)
        with_snapshot = [user_id for user_id in every if user_id != "stranger"]
        pairs = await store.snapshot_page("", 1000)
        _same([(user, body) for user, body in pairs], [(StoredUser(one, 1, True), b"body") for one in with_snapshot])
        second = await store.snapshot_page(with_snapshot[0], 1)
        _same([user.user_id for user, _ in second], with_snapshot[1:2])


async def changes_are_numbered_in_order(open_store: Open) -> None:
    """From one commit to the next, and are found by number and by run."""
    async with open_store() as store:
        for number in (1, 2, 3):
            changes = [StoredChanges(0, number, user_id, _NOW, b"body") for user_id in ("b", "a", "b")]
            await store.commit(evolve(_RUN, number=number, name=f"run {number}"), changes=changes)
        every = await store.change_page(0, 100)
        _same([(change.run, change.user_id) for change in every], [(run, who) for run in (1, 2, 3) for who in "bab"])
        numbers = [change.number for change in every]
        _expect(numbers == sorted(set(numbers)) and numbers[0] > 0, f"numbers ascend from 1, and do not: {numbers}")
        _same(await store.change_page(numbers[1], 2), every[2:4])
        _same(await store.change_page(0, 2, since=1), every[3:5])
        _same(await store.change_page(numbers[4], 100, since=1), every[5:])
        _same(await store.change_page(0, 100, since=3), [])
        _same(await store.change_page(numbers[-1], 100), [])


async def many_users_are_found_at_once(open_store: Open) -> None:
    """As many as a caller likes to ask for."""
    ids = [f"user_{number}" for number in range(2500)]
    async with open_store() as store:
        await store.commit(_RUN, [StoredUser(user_id, 1, True) for user_id in ids], dict.fromkeys(ids, b"body"))
        _same(len(await store.users(ids)), len(ids))
        _same(await store.snapshots(ids), dict.fromkeys(ids, b"body"))


async def one_run_at_a_time(open_store: Open) -> None:
    """Whoever comes second is refused until the first has released the store, or closed it."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_store())
        await first.acquire()
        await _refused(first)
        async with open_store() as second:
            if second is not first:
                await _refused(second)
                # What is refused can still be read, and closing it takes nothing from the other.
                _same(await second.runs(), [])
    async with open_store() as store:
        await store.release()
        await store.acquire()
        await store.release()
        await store.acquire()
        await store.commit(_RUN)
    async with open_store() as store:
        await store.acquire()
        await store.release()


async def entries_of_the_journal_are_kept(open_store: Open) -> None:
    """One of the same id replaces the former; those without an outcome, or an unknown one, are open, oldest first."""
    entries = [
        JournalEntry(str(number), "sell_back", {"item_id": f"v1|{number}|0 ж"}, _NOW - timedelta(seconds=number))
        for number in range(5)
    ]
    ended = _NOW + timedelta(seconds=1)
    done = evolve(entries[1], ended_at=ended, outcome="done", detail={"amount": "8.50"})
    lost = evolve(entries[2], ended_at=ended, outcome="unknown", detail={"class": "ConnectionLost"})
    failed = evolve(entries[3], ended_at=ended, outcome="failed")
    async with open_store() as store:
        _same(await store.open_entries(), [])
        for entry in (*entries, done, lost, failed):
            await store.write_entry(entry)
    async with open_store() as store:
        _same(await store.open_entries(), [entries[4], lost, entries[0]])
        for entry in (entries[0], done, lost, failed):
            _same(await store.read_entry(entry.id), entry)
        _same(await store.read_entry("none"), None)


async def entries_of_the_journal_are_read_page_by_page(open_store: Open) -> None:
    """By when they started, and then by id; an outcome moves none."""
    moments = [_NOW, _NOW, _NOW, _NOW + timedelta(microseconds=1), _NOW + timedelta(seconds=1)]
    entries = [JournalEntry(id, "sell_back", {"item_id": id}, at) for id, at in zip("BaЖAC", moments, strict=True)]  # noqa: A001 - of an entry.
    async with open_store() as store:
        for entry in reversed(entries):
            await store.write_entry(entry)
        entries[1] = evolve(entries[1], ended_at=_NOW, outcome="done")
        await store.write_entry(entries[1])
        _same(await store.entry_page(_NOW - timedelta(seconds=1), "", 10), entries)
        _same(await store.entry_page(_NOW, "", 2), entries[:2])
        _same(await store.entry_page(_NOW, "a", 2), entries[2:4])
        _same(await store.entry_page(entries[3].started_at, "A", 2), entries[4:])
        _same(await store.entry_page(entries[4].started_at, "C", 2), [])


async def a_budget_is_reserved_one_after_the_other(open_store: Open) -> None:
    """Each time behind what was reserved before, from whichever store it was; another budget is another."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_store())
        second = await stack.enter_async_context(open_store())
        began = time.monotonic()
        found = [await store.reserve("shared", 20.0) for store in (first, second, first)]
        took = time.monotonic() - began
        late = [nth * 20.0 - begins for nth, begins in enumerate(found)]
        # What has passed meanwhile is all that it may be less.
        _expect(all(-0.1 <= seconds <= took + 0.1 for seconds in late), f"expected 0, 20, 40, found {found}")
        _same(await second.reserve("another 'ж", 1.0), 0.0)
        await first.reserve("set back", 100_000.0)
        _same(await second.reserve("set back", 1.0), 0.0)
        _expect(await first.reserve("set back", 1.0) > 0.0, "what was reserved after the clock was set back is lost")


async def it_can_be_closed_twice(open_store: Open) -> None:
    """As whatever is closed by several owners."""
    async with open_store() as store:
        await store.aclose()
        await store.aclose()


CHECKS: Final[tuple[Callable[[Open], Awaitable[None]], ...]] = (
    an_empty_store_has_nothing,
    what_was_committed_is_there,
    a_user_without_a_new_snapshot_keeps_the_former_one,
    runs_come_newest_first,
    a_run_counts_what_its_parts_do,
    nobody_is_written_twice_in_a_run,
    pages_hold_everything_once,
    changes_are_numbered_in_order,
    many_users_are_found_at_once,
    one_run_at_a_time,
    entries_of_the_journal_are_kept,
    entries_of_the_journal_are_read_page_by_page,
    a_budget_is_reserved_one_after_the_other,
    it_can_be_closed_twice,
)


async def _in_pages(read: Callable[[str, int], Awaitable[Sequence[str]]], size: int) -> list[str]:
    every: list[str] = []
    while page := await read(every[-1] if every else "", size):
        _expect(len(page) <= size, f"a page of {len(page)} is longer than {size}")
        every += page
    return every


async def _refused(store: Store) -> None:
    try:
        await store.acquire()
    except StoreBusy:
        return
    _expect(False, "a second run got the store")


def _same(found: Any, expected: Any) -> None:
    _expect(found == expected, f"expected {expected!r}, found {found!r}")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)

"""The run of a refresh: what it keeps, what it tells, and how it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve, frozen

from phygitals_async import (
    AuthenticationError,
    ConnectError,
    DecodeError,
    InvalidArgumentError,
    Inventory,
    NotAttempted,
    Observer,
    PhygitalsClient,
    PhygitalsConverter,
    Progress,
    Request,
    Response,
    Sandbox,
    ServerError,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    build_converter,
    fan_out,
)
from phygitals_async._structuring.hooks import register_hooks
from phygitals_async.refresh import (
    Budget,
    ChangeKind,
    MemoryStore,
    Part,
    Run,
    read_changes,
    read_inventories,
    refresh,
)
from phygitals_async.refresh._run import Job
from phygitals_async.refresh._snapshots import decompress
from phygitals_async.refresh._sources import groups
from phygitals_transports import MemoryTransport
from support import ONCE, last_segment
from virtual import virtual_backend

anyio_backend = virtual_backend
pytestmark = pytest.mark.anyio


def inventory_with(mint_address: str | None, price: str = "8.5") -> Response:
    """Return the answer of a user "a" with one card."""
    address = "null" if mint_address is None else f'"{mint_address}"'
    body = f"""{{"user_id": "a", "items": [{{"id": "v1|1|0", "claw_id": "c", "claw_slug": null,
        "buyback_price": {price}, "mint_address": {address}, "purchased_at": "2026-04-18T19:05:14.000Z",
        "buyback_expires_at": null, "content": {{"metadata": {{"name": "Pikachu", "image": null}}}}}}]}}"""
    return Response(200, {"content-type": "application/json"}, body.encode())


class World:
    """A sandbox, a client of it, and whom it was asked about."""

    def __init__(self, *user_ids: str, **options: Any) -> None:
        self.sandbox = Sandbox(seed=1)
        self.items = {user_id: self.give(user_id, "Pikachu") for user_id in user_ids}
        self.faults: dict[str, Response] = {}
        self.transport = MemoryTransport(self.answer)
        self.api = PhygitalsClient(self.transport, api_key="sandbox-test", retry=ONCE, **options)
        self.store = MemoryStore()

    def answer(self, request: Request) -> Response:
        """Answer as the sandbox does, but for the users who are told to fail."""
        return self.faults.get(last_segment(request)) or self.sandbox(request)

    def give(self, user_id: str, name: str, price: str = "8.50") -> Any:
        """Give a user a card."""
        return self.sandbox.add_item(user_id, name=name, buyback_price=Decimal(price))

    async def reprice(self, user_id: str, price: str) -> None:
        """Let the market move for a user's card."""
        await self.api.sell_back(self.items[user_id].id)
        self.sandbox.put_item(user_id, evolve(self.items[user_id], buyback_price=Decimal(price)))

    @property
    def asked(self) -> list[str]:
        """Who was asked about since the last look, in order."""
        asked = [last_segment(request) for request in self.transport.sent]
        self.transport.sent.clear()
        return sorted(asked)

    async def changes(self, **options: Any) -> list[tuple[str, str, str | None, str | None]]:
        """Return who changed how, and the names before and after."""
        return [
            (
                c.user_id,
                str(c.kind),
                None if c.before is None else c.before.name,
                None if c.after is None else c.after.name,
            )
            async for c in read_changes(self.store, **options)
        ]


async def test_the_first_run_keeps_every_inventory_and_tells_of_new_users() -> None:
    """What a new user owns is in the snapshot; somebody whom the API does not know is told of once."""
    world = World("a", "b")
    report = await refresh(world.api, ["a", "b", "nobody"], world.store, run="first")
    assert (report.run.name, report.run.number, report.run.known, report.run.unknown) == ("first", 1, 2, 1)
    assert (report.asked, report.failed, report.skipped, report.resumable) == (3, 0, 0, False)
    kept = {inventory.user_id: inventory async for inventory in read_inventories(world.store)}
    assert kept == {user_id: await world.api.get_inventory(user_id) for user_id in ("a", "b")}
    assert sorted(await world.changes()) == [
        ("a", "new user", None, None),
        ("b", "new user", None, None),
        ("nobody", "unknown user", None, None),
    ]
    again = await refresh(world.api, ["a", "b", "nobody"], world.store)
    assert (again.run.changed, again.run.changes) == (0, 0)
    assert again.run.number == 2
    assert len(await world.changes()) == 3


async def test_what_changed_is_told_with_before_and_after() -> None:
    """Bought, gone and repriced cards, and nothing of those who stayed as they were."""
    world = World("a", "b", "c", "d")
    await refresh(world.api, ["a", "b", "c", "d"], world.store, run="first")
    world.give("a", "Mewtwo")
    await world.api.sell_back(world.items["b"].id)
    await world.reprice("c", "9.25")
    report = await refresh(world.api, ["a", "b", "c", "d"], world.store)
    assert (report.run.changed, report.run.changes, report.run.repriced) == (3, 3, 1)
    told = [change async for change in read_changes(world.store, since="first")]
    assert sorted(await world.changes(since="first")) == [
        ("a", "bought", None, "Mewtwo"),
        ("b", "gone", "Pikachu", None),
        ("c", "repriced", "Pikachu", "Pikachu"),
    ]
    (repriced,) = (change for change in told if change.kind == ChangeKind.REPRICED)
    assert repriced.before == world.items["c"]
    assert repriced.after is not None
    assert (repriced.before and repriced.before.buyback_price, repriced.after.buyback_price) == (
        Decimal("8.50"),
        Decimal("9.25"),
    )
    assert repriced.run == report.run.name
    assert repriced.at.utcoffset() is not None
    # Whoever follows goes on after the last number.
    assert [change async for change in read_changes(world.store, after=told[-1].number)] == []
    assert {i.user_id: i async for i in read_inventories(world.store)} == {
        user_id: await world.api.get_inventory(user_id) for user_id in "abcd"
    }


async def test_whoever_stops_within_a_users_changes_is_told_all_of_them_again() -> None:
    """Nothing is lost, whichever of the changes was the last to be seen."""
    world = World("a", "b", "c")
    await refresh(world.api, ["a", "b", "c"], world.store)
    for user_id in ("a", "b", "c"):
        for name in ("Mewtwo", "Charizard", "Gengar"):
            world.give(user_id, name)
    await refresh(world.api, ["a", "b", "c"], world.store)
    every = [change async for change in read_changes(world.store)]
    assert len(every) == 3 + 9
    numbers = [change.number for change in every]
    assert numbers == sorted(numbers)
    for nth, change in enumerate(every):
        later = [one async for one in read_changes(world.store, after=change.number)]
        assert later[-len(every[nth + 1 :]) :] == every[nth + 1 :] or nth == len(every) - 1
        # What is told again is of the same user.
        assert {one.user_id for one in later[: len(later) - len(every[nth + 1 :])]} <= {change.user_id}
    assert [one async for one in read_changes(world.store, after=numbers[-1])] == []


async def test_details_reach_the_snapshot_and_are_no_change() -> None:
    """Such as an item that is minted: nothing was bought, sold or repriced, and an export must not be stale."""
    body = inventory_with(mint_address=None)
    minted = inventory_with(mint_address="BSG6DyEihFFtfvxtL9mKYsvTwiZXB1rq5gARMTJC2xAM")
    reordered = inventory_with(mint_address=None, price="8.500")
    world = World()
    world.faults["a"] = body
    await refresh(world.api, ["a"], world.store, run="first")
    for answer in (minted, reordered):
        world.faults["a"] = answer
        report = await refresh(world.api, ["a"], world.store)
        assert (report.run.known, report.run.changed) == (1, 0)
        (kept,) = [inventory async for inventory in read_inventories(world.store)]
        assert kept == await world.api.get_inventory("a")
    assert len(await world.changes()) == 1


async def test_users_come_and_go() -> None:
    """Unknown once told is not told again; one who is known again is told of, with what changed meanwhile."""
    world = World("a")
    await refresh(world.api, ["a"], world.store)
    world.faults["a"] = Response(404, {}, b'{"error": "User not found"}')
    for _ in range(2):
        report = await refresh(world.api, ["a"], world.store)
        assert (report.run.known, report.run.unknown) == (0, 1)
    # The last that was known of them is kept, and they own nothing.
    assert list(await world.store.snapshots(["a"])) == ["a"]
    assert [inventory async for inventory in read_inventories(world.store)] == []
    world.faults.clear()
    await refresh(world.api, ["a"], world.store)
    world.faults["a"] = Response(404, {}, b'{"error": "User not found"}')
    await refresh(world.api, ["a"], world.store)
    world.faults.clear()
    world.give("a", "Mewtwo")
    await refresh(world.api, ["a"], world.store)
    assert [(kind, after) for _, kind, _, after in await world.changes()] == [
        ("new user", None),
        ("unknown user", None),
        ("new user", None),
        ("unknown user", None),
        ("new user", None),
        ("bought", "Mewtwo"),
    ]


# Going on


async def test_a_run_that_was_cut_short_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody whose answer was committed is asked again."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 2)
    ids = [f"user_{number}" for number in range(10)]
    world = World(*ids)
    reports = []

    def stop(report: Any) -> None:
        reports.append(report)
        if report.run.done >= 4:
            raise KeyError("a bug of the caller's")

    with pytest.raises(KeyError):
        await refresh(world.api, ids, world.store, limit=1, on_commit=stop)
    assert reports[0].run.done == 2
    (run,) = await world.store.runs()
    assert run.finished_at is None
    before, asked = run.done, world.asked
    report = await refresh(world.api, ids, world.store)
    assert (report.run.number, report.run.done, report.skipped) == (1, 10, before)
    assert report.run.finished_at is not None
    assert len(world.asked) == 10 - before
    assert len(asked) >= before
    assert len(await world.changes()) == 10


async def test_a_named_run_asks_nobody_twice() -> None:
    """Also after it has finished: only who is new, or failed."""
    world = World("a", "b", "c")
    world.faults["b"] = Response(500, {}, b"")
    first = await refresh(world.api, ["a", "b"], world.store, run="today", patience=0)
    assert (first.run.done, first.run.failed, first.resumable) == (1, 1, False)
    assert [(failure.key, type(failure.error)) for failure in first.failures] == [("b", ServerError)]
    world.faults.clear()
    assert set(world.asked) == {"a", "b"}
    again = await refresh(world.api, ["a", "b", "c"], world.store, run="today")
    assert world.asked == ["b", "c"]
    assert (again.run.number, again.run.done, again.run.failed, again.skipped) == (1, 3, 0, 1)
    third = await refresh(world.api, ["a", "b", "c"], world.store, run="today")
    assert (third.asked, third.skipped, world.asked) == (0, 3, [])


async def test_a_run_that_others_followed_cannot_be_gone_on_with() -> None:
    """What it looked up is not told apart any more."""
    world = World("a")
    await refresh(world.api, ["a"], world.store, run="first")
    await refresh(world.api, ["a"], world.store)
    with pytest.raises(InvalidArgumentError, match="the run 'first' was followed by another"):
        await refresh(world.api, ["a"], world.store, run="first")
    with pytest.raises(InvalidArgumentError, match="no run named 'nonsense'"):
        await world.changes(since="nonsense")


async def test_an_unfinished_run_may_be_left_behind() -> None:
    """With `resume=False`, or under another name."""
    world = World("a")
    await world.store.commit(Run(1, "left", (await _now(world))))
    assert (await refresh(world.api, [], world.store, resume=False)).run.number == 2
    await world.store.commit(Run(3, "left again", (await _now(world))))
    assert (await refresh(world.api, [], world.store, run="other")).run.number == 4


def _numbered(first: int, users: int) -> list[str]:
    return [f"user_{number}" for number in range(first, first + users)]


async def _cut_short(world: World, ids: Any) -> Run:
    """Begin a run, and have it end after the first answers."""

    def stop(_: Any) -> None:
        raise KeyError("a bug of the caller's")

    with pytest.raises(KeyError):
        await refresh(world.api, ids, world.store, limit=1, on_commit=stop)
    run, *_ = await world.store.runs()
    assert run.finished_at is None
    world.transport.sent.clear()
    return run


@pytest.mark.parametrize(
    "others",
    [_numbered(0, 1), _numbered(0, 999), _numbered(0, 1001), _numbered(1000, 1), [], None],
    ids=["done", "fewer", "more", "another", "nobody", "the store's"],
)
async def test_other_ids_do_not_finish_a_run(others: list[str] | None) -> None:
    """They begin one of their own: nobody is left out since another list was half done."""
    ids = _numbered(0, 1000)
    world = World(*ids)
    await _cut_short(world, ids)
    known = await world.store.user_page("", 2000)
    report = await refresh(world.api, others, world.store)
    assert (report.run.number, report.skipped, report.resumable) == (2, 0, False)
    assert world.asked == sorted(known if others is None else others)
    assert [run.finished_at is None for run in await world.store.runs()] == [False, True]


async def test_the_same_ids_go_on_in_whatever_form_and_order(tmp_path: Path) -> None:
    """A file, a list, a set."""
    ids = _numbered(0, 1000)
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(ids))
    for again in (ids, path, set(ids), ids[::-1]):
        world = World()
        run = await _cut_short(world, path)
        report = await refresh(world.api, again, world.store)
        assert (report.run.number, report.run.unknown, report.skipped) == (1, 1000, run.unknown)


async def test_ids_that_are_read_once_are_told_by_the_first_of_them() -> None:
    """What comes after them is not known before they are looked up."""
    world = World()
    await _cut_short(world, iter(_numbered(0, 1000)))
    report = await refresh(world.api, iter(_numbered(0, 600)), world.store)
    assert (report.run.number, report.run.unknown) == (1, 600)
    await _cut_short(world, iter(_numbered(0, 1000)))
    report = await refresh(world.api, iter(_numbered(1, 1000)), world.store)
    assert (report.run.number, report.skipped) == (3, 0)


async def test_a_run_that_is_begun_by_name_goes_on_with_whatever_ids_are_given() -> None:
    """And without its name, with those it was begun with."""
    world = World()
    run = await _cut_short(world, _numbered(0, 1000))
    monday = await refresh(world.api, _numbered(0, 1001), world.store, run=run.name)
    assert (monday.run.number, monday.skipped) == (1, run.unknown)
    await world.store.commit(evolve(run, finished_at=None))
    assert (await refresh(world.api, _numbered(0, 1000), world.store)).run.number == 1
    await world.store.commit(evolve(run, finished_at=None))
    assert (await refresh(world.api, _numbered(0, 1001), world.store)).run.number == 2


async def _now(world: World) -> Any:
    report = await refresh(world.api, [], MemoryStore())
    return report.run.started_at


async def test_a_repeated_id_is_asked_about_once() -> None:
    """However far apart the two are."""
    world = World("a", "b")
    report = await refresh(world.api, ["a", "a", *["b"] * 1000, "a"], world.store)
    assert world.asked == ["a", "b"]
    assert (report.asked, report.skipped) == (2, 1001)


# What ends a run, and what does not


async def test_a_refused_key_ends_the_run_and_it_can_be_gone_on_with() -> None:
    """The source is read no further, what was answered is kept."""
    ids = [f"user_{number}" for number in range(1000)]
    world = World(*ids[:20])
    world.faults["user_7"] = Response(401, {}, b'{"error": "Invalid API key"}')
    read = []

    def source() -> Iterator[str]:
        for user_id in ids:
            read.append(user_id)
            yield user_id

    report = await refresh(world.api, source(), world.store, limit=4)
    assert isinstance(report.stopped_by, AuthenticationError)
    assert report.resumable
    assert report.failed == 0
    assert 0 < report.run.done < 20
    assert len(read) <= 256
    world.faults.clear()
    done = report.run.done
    world.transport.sent.clear()
    report = await refresh(world.api, source(), world.store)
    assert not report.resumable
    assert report.run.done == 1000
    assert len(world.asked) == 1000 - done
    assert len(await world.changes()) == 1000


async def test_an_outage_beyond_patience_ends_the_run() -> None:
    """The users who were not reached are left for the next call."""
    ids = [f"user_{number}" for number in range(100)]
    world = World(*ids)
    for user_id in ids:
        world.faults[user_id] = Response(503, {}, b"")
    report = await refresh(world.api, ids, world.store, limit=8, patience=10)
    assert isinstance(report.stopped_by, NotAttempted)
    assert report.resumable
    world.faults.clear()
    report = await refresh(world.api, ids, world.store)
    assert (report.resumable, report.run.done) == (False, 100)


@pytest.mark.parametrize("known", [0, 5])
@pytest.mark.parametrize("users", [16, 63, 64, 65])
async def test_an_outage_beyond_patience_ends_a_run_of_few_users_too(users: int, known: int) -> None:
    """Where all of them had been tried by then, none is left that was not attempted."""
    ids = _numbered(0, users)
    world = World(*ids)
    answers = [known]

    def answer(request: Request) -> Response:
        answers[0] -= 1
        return world.answer(request) if answers[0] >= 0 else Response(503, {}, b"")

    async with PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test", retry=ONCE) as api:
        report = await refresh(api, ids, world.store, patience=10)
    assert isinstance(report.stopped_by, NotAttempted)
    assert "503" in str(report.stopped_by) or users == 65
    assert (report.resumable, report.run.known) == (True, known)
    report = await refresh(world.api, ids, world.store)
    assert (report.run.number, report.skipped, report.resumable, report.run.done) == (1, known, False, users)


@pytest.mark.parametrize("users", [1, 3])
async def test_where_nothing_listens_the_run_is_not_finished(users: int) -> None:
    """It is not that the users failed, even where they are too few to tell an outage."""

    def refuse(request: Request) -> Response:
        with request.delivery.connecting():
            raise ConnectError("nothing listens")
        return world.answer(request)

    world = World()
    async with PhygitalsClient(MemoryTransport(refuse), api_key="sandbox-test", retry=ONCE) as api:
        report = await refresh(api, _numbered(0, users), world.store, patience=3)
    assert isinstance(report.stopped_by, NotAttempted)
    assert "nothing listens" in str(report.stopped_by)
    assert report.resumable


async def test_one_user_who_cannot_be_reached_does_not_hold_the_run_up() -> None:
    """Whatever the others got."""
    for others in (["a", "b"], ["b", "a"]):
        world = World("a", "b")
        world.faults["b"] = Response(500, {}, b"")
        report = await refresh(world.api, others, world.store, patience=3, limit=1)
        assert (report.failed, report.stopped_by, report.resumable) == (1, None, False)
    world = World("b")
    world.faults["b"] = Response(500, {}, b"")
    report = await refresh(world.api, ["b"], world.store, patience=3)
    assert (report.failed, report.stopped_by, report.resumable) == (1, None, False)


async def test_a_closed_client_ends_the_run() -> None:
    """It is not that the users failed."""
    world = World("a")
    await world.api.aclose()
    report = await refresh(world.api, ["a"], world.store)
    assert report.resumable
    assert report.failed == 0


async def test_items_that_cannot_be_read_fail_the_user() -> None:
    """What is missing would pass for sold; the former snapshot stays."""
    world = World("a", on_unreadable="keep")
    await refresh(world.api, ["a"], world.store)
    world.faults["a"] = Response(200, {}, b'{"user_id": "a", "items": [{}]}')
    report = await refresh(world.api, ["a"], world.store)
    assert (report.failed, report.asked, report.run.changes) == (1, 1, 0)
    assert isinstance(report.failures[0].error, DecodeError)
    (kept,) = [inventory async for inventory in read_inventories(world.store)]
    assert kept.items == (world.items["a"],)


async def test_an_id_that_nothing_can_keep_fails_alone() -> None:
    """It is not asked about."""
    world = World("a")
    odd: list[Any] = ["a\0b", "\ud800", 5, "ж" * 1001, "", "a"]
    report = await refresh(world.api, odd, world.store)
    assert (report.run.known, report.failed, report.resumable) == (1, 5, False)
    assert world.asked == ["a"]
    assert [failure.key for failure in report.failures] == ["a\0b", "\ud800", 5, "ж" * 1001, ""]
    assert all(isinstance(failure.error, InvalidArgumentError) for failure in report.failures)


async def test_no_more_than_a_hundred_failures_are_told() -> None:
    """Memory stays flat also where everything fails."""
    world = World()
    report = await refresh(world.api, [f"{number}\0" for number in range(300)], world.store)
    assert (report.failed, len(report.failures)) == (300, 100)


async def test_a_source_that_fails_is_told_after_what_it_gave_is_kept() -> None:
    """The run can be gone on with."""
    world = World("a", "b")

    async def source() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        msg = "the database of users is gone"
        raise OSError(msg)

    with pytest.raises(OSError, match="database of users"):
        await refresh(world.api, source(), world.store, run="today")
    (run,) = await world.store.runs()
    assert (run.known, run.finished_at) == (2, None)

    async def broken() -> AsyncIterator[str]:
        msg = "the database of users was never there"
        raise OSError(msg)
        yield "d"

    with pytest.raises(OSError, match="never there"):
        await refresh(world.api, broken(), world.store)
    assert await world.store.runs() == [run]

    def plain() -> Iterator[str]:
        yield "c"
        msg = "the file of users is gone"
        raise OSError(msg)

    with pytest.raises(OSError, match="file of users"):
        await refresh(world.api, plain(), world.store, run="today")
    (run,) = await world.store.runs()
    assert (run.known, run.unknown, run.finished_at) == (2, 1, None)


async def test_cancelling_keeps_what_was_answered() -> None:
    """And gives the store back."""
    world = World("a", "b")
    gate = anyio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    class Waiting(MemoryTransport):
        async def send(self, request: Request) -> Response:
            if last_segment(request) == "b":
                gate.set()
                await anyio.sleep_forever()
            return await super().send(request)

    api = PhygitalsClient(Waiting(world.sandbox), api_key="sandbox-test")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refresh, api, source(), world.store)
        await gate.wait()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    (run,) = await world.store.runs()
    assert (run.known, run.finished_at) == (1, None)
    report = await refresh(world.api, ["a", "b"], world.store)
    assert (report.asked, report.skipped) == (1, 1)
    await api.aclose()


class Full(MemoryStore):
    """A store on a disk that fills up."""

    # For the run, its ids, and one batch.
    room = 3

    async def commit(self, *arguments: Any, **more: Any) -> Collection[str]:
        """Commit while there is room."""
        self.room -= 1
        if self.room < 0:
            msg = "the disk is full"
            raise StoreFull(msg)
        return await super().commit(*arguments, **more)


async def test_a_store_that_fails_ends_the_run_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not committed is asked again."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 2)
    ids = [f"user_{number}" for number in range(10)]
    world = World(*ids)
    world.store = store = Full()
    with pytest.raises(StoreFull):
        await refresh(world.api, ids, store)
    store.room = 100
    report = await refresh(world.api, ids, store)
    assert (report.run.number, report.run.done, report.skipped) == (1, 10, 2)
    assert len(await world.changes()) == 10


class Exhausted(MemoryStore):
    """A store whose budget works for so many reservations."""

    good = 3

    async def reserve(self, name: str, seconds: float) -> float:
        """Reserve, or fail."""
        self.good -= 1
        if self.good < 0:
            msg = "the database is gone"
            raise StoreUnavailable(msg)
        return await super().reserve(name, seconds)


async def test_a_budget_whose_store_fails_ends_the_run_and_nothing_is_lost() -> None:
    """What was answered is kept, the others are not asked, and the run goes on where it was."""
    ids = [f"user_{number}" for number in range(1000)]
    store = Exhausted(clock=anyio.current_time)
    world = World(*ids, rate=Budget(store, 10.0))
    world.store = store
    with pytest.raises(StoreUnavailable, match="the database is gone"):
        await refresh(world.api, ids, store)
    asked = len(world.asked)
    assert 1 <= asked <= 3
    store.good = 10_000
    report = await refresh(world.api, ids, store)
    assert (report.run.number, report.run.known, report.failed) == (1, 1000, 0)
    assert 1 <= report.skipped <= asked


async def test_a_commit_that_is_cut_short_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether the store has it: what changed would be told twice."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 2)
    world = World("a", "b", "c")

    class Slow(MemoryStore):
        async def commit(self, run: Run, users: Any = (), *rest: Any, **more: Any) -> Collection[str]:
            taken = await super().commit(run, users, *rest, **more)
            if users:
                entered.set()
                await anyio.sleep_forever()
            return taken

    entered, slow = anyio.Event(), Slow()
    world.store = slow
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refresh, world.api, ["a", "b"], slow)
        await entered.wait()
        monkeypatch.setattr(Slow, "commit", MemoryStore.commit)
        tasks.cancel_scope.cancel()
    (run,) = await slow.runs()
    report = await refresh(world.api, ["a", "b", "c"], slow, run=run.name)
    assert report.skipped == 2
    assert len(await world.changes()) == 3


async def test_two_runs_on_one_store() -> None:
    """The second is refused, and asks nobody."""
    world = World("a")
    await world.store.acquire()
    with pytest.raises(StoreBusy):
        await refresh(world.api, ["a"], world.store)
    assert world.asked == []
    await world.store.release()
    assert (await refresh(world.api, ["a"], world.store)).run.known == 1


async def test_a_run_over_time_commits_without_waiting_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lookups are slow, a kill costs no more than a second's answers."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_SECONDS", 0.0)
    world = World("a", "b", "c")
    seen = []
    await refresh(world.api, ["a", "b", "c"], world.store, on_commit=lambda report: seen.append(report.run.done))
    assert seen == [1, 2, 3, 3]


async def test_users_whom_another_worker_has_looked_up_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left as that one wrote them, told of once, and the rest of the batch is committed."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 3)
    world = World("a", "b", "c")
    await refresh(world.api, ["a", "b", "nobody"], world.store, run="first")
    world.give("a", "Mewtwo")
    await world.reprice("b", "9.25")

    class Late(MemoryStore):
        """Commits what somebody else has looked up just before."""

        async def commit(self, run: Run, users: Any = (), *rest: Any, **more: Any) -> Collection[str]:
            if users and not late:
                late.append(run)
                monkeypatch.setattr(Late, "commit", MemoryStore.commit)
                job = Job(self)
                job.begin(run, Part(0))
                async with aclosing(job.wanted(groups(["a", "b"], self))) as wanted:
                    await job.work(world.api.stream_inventories(wanted))
            return await MemoryStore.commit(self, run, users, *rest, **more)

    late: list[Run] = []
    world.store.__class__ = Late
    report = await refresh(world.api, ["a", "b", "c"], world.store, run="second")
    assert (len(late), report.asked, report.resumable) == (1, 3, False)
    assert sorted(await world.changes(since="first")) == [
        ("a", "bought", None, "Mewtwo"),
        ("b", "repriced", "Pikachu", "Pikachu"),
        ("c", "new user", None, None),
    ]
    (last, _) = await world.store.runs()
    assert (last.known, last.changed, last.repriced, last.changes) == (3, 3, 1, 3)


async def test_a_run_that_a_later_one_followed_writes_nothing_more() -> None:
    """What is left of it on some machine may come late."""
    world = World("a", "b")
    await refresh(world.api, ["a"], world.store, run="first")
    (first,) = await world.store.runs()
    await refresh(world.api, ["a"], world.store, run="second")
    before = await world.store.users(["a", "b"])
    job = Job(world.store)
    job.begin(first, Part(0))
    async with aclosing(job.wanted(groups(["a", "b"], world.store))) as wanted:
        await job.work(world.api.stream_inventories(wanted))
    assert await world.store.users(["a", "b"]) == before
    assert len(await world.changes()) == 1


async def test_what_makes_clients_is_for_a_cluster() -> None:
    """It is refused before anything is done."""
    store = MemoryStore()
    with pytest.raises(InvalidArgumentError, match="api must be a client"):
        await refresh(PhygitalsClient, ["a"], store)
    assert await store.runs() == []


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", 5, b"monday"])
async def test_a_name_that_no_run_can_have(name: Any) -> None:
    """It is refused before anybody is asked."""
    world = World("a")
    with pytest.raises(InvalidArgumentError, match="the name of a run"):
        await refresh(world.api, ["a"], world.store, run=name)
    assert world.asked == []


# Where ids come from


async def test_ids_from_a_file(tmp_path: Path) -> None:
    """One on each line, whatever the line ends with."""
    path = tmp_path / "ids.txt"
    path.write_bytes("\ufeffa\r\nb \n\n \t\nc d\t\n\ufeffж".encode())
    world = World("a", "b", "c d", "ж")
    report = await refresh(world.api, path, world.store)
    assert (report.run.known, report.failed, report.asked) == (4, 0, 4)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a\n\xff\n", "are not UTF-8 text"), (b"\xff\xfea\0", "are not UTF-8 text"), (b"\n \r\n", "no user ids")],
)
async def test_a_file_that_has_no_ids_finishes_no_run(tmp_path: Path, content: bytes, says: str) -> None:
    """It is a mistake: nobody refreshes nobody every night."""
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    world = World("a")
    with pytest.raises(InvalidArgumentError, match=says):
        await refresh(world.api, path, world.store)
    assert [run for run in await world.store.runs() if run.finished_at is not None] == []


async def test_ids_from_a_pipe_are_read_once(tmp_path: Path) -> None:
    """It cannot be opened again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    world = World("a", "b")
    writer = threading.Thread(target=path.write_text, args=["a\nb\n"])
    writer.start()
    report = await refresh(world.api, path, world.store)
    writer.join()
    assert (report.run.known, report.resumable) == (2, False)


async def test_a_file_that_cannot_be_read_is_told_before_anything_is_done(tmp_path: Path) -> None:
    """And so is what is no source of ids."""
    world = World()
    with pytest.raises(InvalidArgumentError, match="the file of user ids cannot be read: No such file"):
        await refresh(world.api, tmp_path / "none", world.store)
    wrong: Any = "a single id"
    with pytest.raises(InvalidArgumentError, match="not a single str"):
        await refresh(world.api, wrong, world.store)


async def test_ids_that_the_store_knows() -> None:
    """Those who were unknown too: they may have bought meanwhile."""
    ids = [f"user_{number}" for number in range(600)]
    world = World(*ids)
    await refresh(world.api, [*ids, "nobody"], world.store)
    _ = world.asked
    report = await refresh(world.api, None, world.store)
    assert world.asked == sorted([*ids, "nobody"])
    assert (report.run.known, report.run.unknown, report.run.changed) == (600, 1, 0)


async def test_ids_from_an_async_source_are_read_in_groups_and_it_is_closed() -> None:
    """Also where the run ends before it does."""
    world = World()
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            for number in range(10_000):
                yield f"user_{number}"
        finally:
            closed.append(True)

    report = await refresh(world.api, source(), world.store)
    assert (report.run.unknown, closed) == (10_000, [True])
    world.faults["user_3"] = Response(401, {}, b"")
    report = await refresh(world.api, source(), world.store)
    assert report.resumable
    assert closed == [True, True]


async def test_a_class_of_an_async_iterator_has_nothing_to_be_closed() -> None:
    """It is read like any other."""

    class Source:
        def __init__(self) -> None:
            self._ids = iter(["a", "b"])

        def __aiter__(self) -> AsyncIterator[str]:
            return self

        async def __anext__(self) -> str:
            for user_id in self._ids:
                return user_id
            raise StopAsyncIteration

    world = World("a", "b")
    assert (await refresh(world.api, Source(), world.store)).run.known == 2


async def test_a_client_wrapped_in_what_answers_otherwise() -> None:
    """Where no answer of the API's belongs to an outcome, the inventory itself is compared."""
    world = World("a", "b")

    class Cached(PhygitalsClient):
        def stream_inventories(self, user_ids: Any, **options: Any) -> Any:
            return fan_out(self.remembered, user_ids)

        async def remembered(self, user_id: str) -> Inventory:
            return await world.api.get_inventory(user_id)

    api = Cached(world.transport, api_key="sandbox-test")
    for changed in (2, 0):
        report = await refresh(api, ["a", "b"], world.store)
        assert (report.run.known, report.run.changed) == (2, changed)
    world.give("b", "Mewtwo")
    await refresh(api, ["a", "b"], world.store)
    assert (await world.changes())[-1] == ("b", "bought", None, "Mewtwo")


class Counting:
    """A bulk run whose outcomes somebody looks into on their way."""

    def __init__(self, run: Any, seen: list[int]) -> None:
        self._run = run
        self._seen = seen

    async def __aenter__(self) -> Self:
        await self._run.__aenter__()
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._run.__aexit__(*ended)

    async def __anext__(self) -> Any:
        outcome = await anext(self._run)
        self._seen.append(len(outcome.value.items))
        return outcome


async def test_whoever_looks_into_outcomes_on_their_way_sees_the_inventories() -> None:
    """Also those whose answers were kept before, which are not decoded otherwise."""
    world, seen = World("a"), list[int]()

    class Looking(PhygitalsClient):
        def stream_inventories(self, *arguments: Any, **options: Any) -> Any:
            return Counting(super().stream_inventories(*arguments, **options), seen)

    api = Looking(world.transport, api_key="sandbox-test")
    for _ in range(2):
        assert (await refresh(api, ["a"], world.store)).run.known == 1
    assert seen == [1, 1]
    assert len(await world.changes()) == 1


@frozen(kw_only=True)
class Odd(Inventory):
    """What a caller's own converter may make of an answer."""

    note: complex = 1j


async def test_inventories_of_a_class_of_the_callers_own() -> None:
    """What the library knows of them is kept and compared."""
    world = World("a")
    converter = build_converter()
    plain = build_converter()
    converter.register_structure_hook(
        Inventory, lambda value, _: Odd(**_fields(plain.structure(value, Inventory)), note=2j)
    )
    api = PhygitalsClient(world.transport, api_key="sandbox-test", converter=converter)
    await refresh(api, ["a"], world.store)
    world.give("a", "Mewtwo")
    await refresh(api, ["a"], world.store)
    assert [after for _, _, _, after in await world.changes()] == [None, "Mewtwo"]
    (kept,) = [inventory async for inventory in read_inventories(world.store)]
    assert kept == await world.api.get_inventory("a")


def _fields(inventory: Inventory) -> dict[str, Any]:
    return {"user_id": inventory.user_id, "items": inventory.items}


def kept_of(store: MemoryStore) -> bytes:
    """Return what the store keeps of the inventory of "a", as it was before it was compressed."""
    return decompress(store._snapshots["a"])


async def test_an_answer_is_kept_as_it_came() -> None:
    """Also with what this version of the library does not read, such as a field whose name it has for its own use."""
    world, answer = World(), inventory_with(None, price='"8.5"')
    body = answer.body.replace(b"{", b'{"unreadable": [{"path": "$", "problems": ["x"], "raw": "y"}], "level": 3,', 1)
    world.faults["a"] = evolve(answer, body=body)
    await refresh(world.api, ["a"], world.store)
    assert kept_of(world.store) == body
    (kept,) = [inventory async for inventory in read_inventories(world.store)]
    assert kept == await world.api.get_inventory("a")
    assert kept.unreadable == ()


@pytest.mark.parametrize(
    "echo",
    ["sandbox-test", r"sandbo\u0078-test", "sandbo%78-test", "sandbo&#120;-test"],
    ids=["plain", "JSON", "URL", "HTML"],
)
async def test_what_an_answer_repeats_of_the_key_is_not_kept(echo: str) -> None:
    """Then it is the inventory that is kept, which has no place for it."""
    world, answer = World(), inventory_with(None)
    world.faults["a"] = evolve(answer, body=answer.body.replace(b"{", b'{"debug": "%s",' % echo.encode(), 1))
    await refresh(world.api, ["a"], world.store)
    assert b"debug" not in kept_of(world.store)
    (kept,) = [inventory async for inventory in read_inventories(world.store)]
    assert kept == await world.api.get_inventory("a")


async def test_what_a_converter_of_the_callers_own_made_of_an_answer_is_kept() -> None:
    """It may read what the usual one refuses."""
    world, converter = World(), build_converter()
    converter.register_structure_hook(Decimal, lambda value, _: Decimal(str(value).removeprefix("$")))
    api = PhygitalsClient(world.transport, api_key="sandbox-test", converter=converter)
    world.faults["a"] = inventory_with(None, price='"$8.50"')
    await refresh(api, ["a"], world.store)
    (kept,) = [inventory async for inventory in read_inventories(world.store)]
    assert kept == await api.get_inventory("a")
    assert kept.items[0].buyback_price == Decimal("8.50")


async def test_what_could_not_be_read_back_fails_the_user() -> None:
    """One user must not make the whole store unreadable, whatever a caller's own converter takes."""
    world, converter = World("b"), build_converter()
    converter.register_structure_hook(str, lambda value, _: value)
    api = PhygitalsClient(world.transport, api_key="sandbox-test", converter=converter)
    answer = inventory_with(None)
    bodies = [answer.body.replace(b'"Pikachu"', name) for name in (b"true", rb'"\ud83d"')]
    for body, problem in zip(
        bodies, ["$.items[0].content.metadata.name: expected a string", "half a character"], strict=True
    ):
        world.faults["a"] = evolve(answer, body=body)
        report = await refresh(api, ["a", "b"], world.store)
        assert (report.run.known, report.failed) == (1, 1)
        assert isinstance(report.failures[0].error, DecodeError)
        assert problem in str(report.failures[0].error)
    assert [inventory.user_id async for inventory in read_inventories(world.store)] == ["b"]


async def test_a_converter_that_spells_users_otherwise_than_the_one_before() -> None:
    """The run goes on, and tells what changed."""
    world, converter = World("a"), build_converter()
    converter.register_structure_hook(str, lambda value, _: value.upper())
    await refresh(world.api, ["a"], world.store, run="first")
    world.give("a", "Mewtwo")
    api = PhygitalsClient(world.transport, api_key="sandbox-test", converter=converter)
    await refresh(api, ["a"], world.store)
    assert ("a", "bought", None, "MEWTWO") in await world.changes(since="first")


class Unwrapping(PhygitalsConverter):
    """Reads answers that somebody on the way has put into an envelope."""

    def loads(self, data: bytes, cl: type[Any]) -> Any:
        """Decode what is in the envelope."""
        return super().loads(json.dumps(json.loads(data)["data"]).encode(), cl)


async def test_what_a_converter_of_a_class_of_the_callers_own_made_of_an_answer_is_kept() -> None:
    """It may read bodies that no other does."""
    world, converter, answer = World(), Unwrapping(), inventory_with(None)
    register_hooks(converter)
    api = PhygitalsClient(world.transport, api_key="sandbox-test", converter=converter)
    world.faults["a"] = evolve(answer, body=b'{"data": %s}' % answer.body)
    await refresh(api, ["a"], world.store)
    (kept,) = [inventory async for inventory in read_inventories(world.store)]
    assert kept == await api.get_inventory("a")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_whatever_an_observer_begins_meanwhile_sees_the_inventories() -> None:
    """A refresh does not decode what it has kept before; a task of its observer gets the inventory all the same."""

    class Asking(Observer):
        def progressed(self, progress: Progress) -> None:
            # The task works in a copy of the context in which it is begun.
            tasks.append(asyncio.create_task(world.api.get_inventory("b")))

    tasks = list[asyncio.Task[Inventory]]()
    world = World("a", "b", observer=Asking())
    for _ in range(2):
        await refresh(world.api, ["a", "b"], world.store, limit=1)
        world.faults["a"] = Response(404, {}, b'{"error": "User not found"}')
    assert [inventory.user_id for inventory in await asyncio.gather(*tasks)] == ["b"] * 4


async def test_changes_of_a_run_that_began_while_they_were_read() -> None:
    """Whoever follows a store meets runs that were not there at first."""
    world = World("a")
    await refresh(world.api, ["a"], world.store, run="first")
    changes = read_changes(world.store)
    assert (await anext(changes)).run == "first"
    world.give("a", "Mewtwo")
    await refresh(world.api, ["a"], world.store, run="second")
    assert [change.run async for change in changes] == ["second"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_cancellation_of_asyncio_leaves_the_store_held() -> None:
    """The store is given back, however often the run is cancelled meanwhile."""
    releasing, goes_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def release(self) -> None:
            releasing.set()
            await goes_on.wait()
            await super().release()

    store = Slow()
    running = asyncio.create_task(refresh(World().api, [], store))
    await releasing.wait()
    for _ in range(2):
        running.cancel()
        await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    await store.acquire()

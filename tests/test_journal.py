"""The journal: each call that moves money or goods is written down before it is sent, and after its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve

from phygitals_async import (
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    Destination,
    InvalidArgumentError,
    ItemNotFound,
    NotOwned,
    OutcomeUnknown,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    Sent,
    StoreFull,
    sync,
)
from phygitals_async.journal import Finding, JournalEntry, Verdict, reconcile, settle
from phygitals_async.refresh import MemoryStore, SqliteStore
from phygitals_transports import MemoryTransport
from support import ONCE, last_segment
from virtual import virtual_backend

anyio_backend = virtual_backend
pytestmark = pytest.mark.anyio

HOME = Destination(name="Jane Doe", line1="123 Main St", city="Austin", state="TX", postal_code="78701", country="US")


class World:
    """A sandbox, a client with a journal, and answers that are lost."""

    def __init__(self, store: Any = None, **options: Any) -> None:
        self.sandbox = Sandbox(seed=1, clock=lambda: datetime.now(UTC))
        self.item = self.sandbox.add_item("a", name="Pikachu", buyback_price=Decimal("8.50"))
        self.pack = self.sandbox.packs[0]
        self.store = MemoryStore() if store is None else store
        # What becomes of a request, by what its path ends with: before it arrives, or after.
        self.before: dict[str, Callable[[], Any]] = {}
        self.after: dict[str, Callable[[], Any]] = {}
        self.open_when_sent: list[int] = []
        self.transport = MemoryTransport(self.answer)
        self.api = PhygitalsClient(self.transport, api_key="sandbox-test", journal=self.store, **options)

    async def answer(self, request: Request) -> Response:
        """Answer as the sandbox does, between what was told to happen."""
        name = last_segment(request)
        if request.method == "POST":
            self.open_when_sent.append(len(await self.store.open_entries()))
        if name in self.before:
            return self.before[name]()  # type: ignore[no-any-return]  # Most of them raise.
        response = self.sandbox(request)
        return self.after[name]() if name in self.after else response

    async def only_entry(self) -> JournalEntry:
        """Return the one entry that is open."""
        (entry,) = await self.store.open_entries()
        return entry

    async def finding(self) -> Finding:
        """Return what is found of the one entry that is open."""
        (finding,) = await reconcile(self.api, self.store)
        return finding


def lose() -> Any:
    """Lose the answer, or the request."""
    msg = "the connection was lost"
    raise ConnectionLost(msg)


async def grow_old(world: World) -> None:
    """Let the one entry that is open be an hour older."""
    entry, hour = await world.only_entry(), timedelta(hours=1)
    ended = None if entry.ended_at is None else entry.ended_at - hour
    await world.store.write_entry(evolve(entry, started_at=entry.started_at - hour, ended_at=ended))


def entries(store: MemoryStore) -> list[JournalEntry]:
    """Return all entries."""
    return list(store._entries.values())


async def test_the_intent_is_there_before_the_call_and_the_outcome_after_it() -> None:
    """Of each of the three; no address is written down."""
    world = World()
    started = await world.api.start_purchase(world.pack.id, 1, "a")
    quotes = await world.api.quote_shipping([world.item.id], HOME, owner="a")
    order = await world.api.request_shipping(quotes.quotes[0].id)
    sold = await world.api.sell_back(started.nfts[0].id, owner="a")
    assert world.open_when_sent == [1, 0, 1, 1]
    assert await world.store.open_entries() == []
    told = [entry for entry in entries(world.store) if entry.operation != "quote_shipping"]
    assert [(entry.operation, entry.outcome, dict(entry.arguments)) for entry in told] == [
        ("start_purchase", "done", {"pack_id": world.pack.id, "amount": 1, "user_id": "a"}),
        ("request_shipping", "done", {"quote_id": quotes.quotes[0].id}),
        ("sell_back", "done", {"item_id": started.nfts[0].id, "owner": "a"}),
    ]
    assert [told[0].detail["session_id"], told[1].detail["order_id"]] == [started.session_id, order.order_id]
    assert Decimal(told[2].detail["amount"]) == sold.amount
    assert all(entry.ended_at is not None and entry.started_at <= entry.ended_at for entry in told)
    assert "Austin" not in repr(entries(world.store))
    assert "sandbox-test" not in repr(entries(world.store))


async def test_a_refusal_closes_the_entry() -> None:
    """It is certain that nothing moved."""
    world = World()
    with pytest.raises(ItemNotFound):
        await world.api.sell_back("nonsense")
    with pytest.raises(NotOwned):
        await world.api.sell_back("nonsense", owner="a")
    assert await world.store.open_entries() == []
    # What the look into the inventory refuses was never intended.
    (entry,) = entries(world.store)
    assert (entry.outcome, entry.detail["class"]) == ("failed", "ItemNotFound")


async def test_what_could_not_be_sent_is_not_intended() -> None:
    """An argument that is none."""
    world = World()
    wrong: Any = 5
    with pytest.raises(InvalidArgumentError) as caught:
        await world.api.sell_back(wrong)
    assert caught.value.operation == "sell_back"
    with pytest.raises(InvalidArgumentError):
        await world.api.quote_shipping("a single id", HOME)
    assert entries(world.store) == []
    assert world.transport.sent == []


class Broken(MemoryStore):
    """A journal that fails from some write on."""

    def __init__(self, writes: int, failure: BaseException | None = None, seconds: float = 0.0) -> None:
        super().__init__()
        self.writes = writes
        self.failure = StoreFull("the disk is full") if failure is None else failure
        self.seconds = seconds

    async def write_entry(self, entry: JournalEntry) -> None:
        """Write, or fail."""
        self.writes -= 1
        if self.writes < 0:
            await anyio.sleep(self.seconds)
            raise self.failure
        await super().write_entry(entry)


async def test_nothing_is_sent_where_the_intent_cannot_be_written() -> None:
    """The error says what was not done."""
    world = World(Broken(0))
    for call in (
        world.api.start_purchase(world.pack.id, 1, "a"),
        world.api.sell_back(world.item.id, owner="a"),
        world.api.request_shipping("a quote"),
        world.api.purchase(world.pack.id, 1, "a"),
    ):
        with pytest.raises(StoreFull) as caught:
            await call
        assert caught.value.operation in ("start_purchase", "sell_back", "request_shipping")
        assert caught.value.sent is Sent.NEVER
    assert [last_segment(request) for request in world.transport.sent] == ["a"]


async def test_a_journal_that_takes_too_long_uses_up_the_deadline() -> None:
    """Nothing is sent, and the error says so."""
    world = World(Broken(0, seconds=100.0))
    with pytest.raises(DeadlineExceeded) as caught:
        await world.api.sell_back(world.item.id, deadline=5.0)
    assert caught.value.sent is Sent.NEVER
    assert world.transport.sent == []


@pytest.mark.parametrize("failure", [StoreFull("the disk is full"), KeyError("a bug of the journal's")])
async def test_the_answer_is_not_lost_where_the_outcome_cannot_be_written(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the entry stays open: what became of the call can be found out."""
    world = World(Broken(1, failure))
    sold = await world.api.sell_back(world.item.id, owner="a")
    assert sold.amount == Decimal("8.50")
    assert "the outcome could not be written to the journal: done" in caplog.text
    assert (await world.finding()).verdict is Verdict.HAPPENED


async def test_the_answer_does_not_wait_long_for_the_outcome_to_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A database that hangs costs ten seconds."""
    world = World(Broken(1, seconds=1000.0))
    began = anyio.current_time()
    await world.api.sell_back(world.item.id)
    assert anyio.current_time() - began < 11
    assert "was not written to the journal in time" in caplog.text


async def test_a_call_that_is_cancelled_is_open() -> None:
    """And its outcome is written in spite of the cancellation."""
    world = World()
    hangs = anyio.Event()

    class Hanging(MemoryTransport):
        async def send(self, request: Request) -> Response:
            hangs.set()
            await anyio.sleep_forever()
            raise AssertionError

    api = PhygitalsClient(Hanging(world.sandbox), api_key="sandbox-test", journal=world.store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(api.sell_back, world.item.id)
        await hangs.wait()
        tasks.cancel_scope.cancel()
    entry = await world.only_entry()
    assert entry.outcome == "unknown"
    assert "Cancelled" in entry.detail["class"]
    await api.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_cancellation_of_asyncio_loses_the_outcome() -> None:
    """A shield of anyio's does not keep it off, and the answer is there."""
    writing, goes_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def write_entry(self, entry: JournalEntry) -> None:
            if entry.outcome is not None:
                writing.set()
                await goes_on.wait()
            await super().write_entry(entry)

    world = World(Slow())
    sale = asyncio.create_task(world.api.sell_back(world.item.id))
    await writing.wait()
    for _ in range(2):
        sale.cancel()
        await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await sale
    (entry,) = entries(world.store)
    assert entry.outcome == "done"
    assert entry.detail["amount"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_outcome_that_the_end_of_the_loop_cuts_short_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """`asyncio.run` cancels every task that is left."""

    class Hanging(MemoryStore):
        async def write_entry(self, entry: JournalEntry) -> None:
            if entry.outcome is not None:
                for task in asyncio.all_tasks() - {asyncio.current_task(), *others}:
                    task.cancel()
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # It is a task.
                await asyncio.Event().wait()
            await super().write_entry(entry)

    world, others = World(Hanging()), asyncio.all_tasks()
    sale = asyncio.create_task(world.api.sell_back(world.item.id))
    with pytest.raises(asyncio.CancelledError):
        await sale
    (entry,) = entries(world.store)
    assert entry.is_open
    assert "sell_back: the outcome did not get into the journal: done" in caplog.text


# What the state of the API says


async def test_a_sellback_whose_answer_is_lost() -> None:
    """It happened if the item is gone; that it did not is only known when it cannot be under way any more."""
    for lost, verdict in ((world_after, Verdict.HAPPENED), (world_before, Verdict.DID_NOT_HAPPEN)):
        world = lost("buyback")
        with pytest.raises(OutcomeUnknown):
            await world.api.sell_back(world.item.id, owner="a")
        if verdict is Verdict.DID_NOT_HAPPEN:
            early = await world.finding()
            assert early.verdict is Verdict.UNDECIDED
            assert "may be under way" in early.reason
            await grow_old(world)
        finding = await world.finding()
        assert (finding.verdict, finding.entry.outcome) == (verdict, "unknown")
        assert [item.id for item in finding.items] == [world.item.id] * (verdict is Verdict.DID_NOT_HAPPEN)
        assert await settle(world.store, finding.entry, happened=verdict is Verdict.HAPPENED)
        assert await world.store.open_entries() == []
        kept = await world.store.read_entry(finding.entry.id)
        assert kept is not None
        assert kept.outcome == ("done" if verdict is Verdict.HAPPENED else "failed")


def world_after(name: str) -> World:
    """Return a world in which the answer is lost."""
    world = World()
    world.after[name] = lose
    return world


def world_before(name: str) -> World:
    """Return a world in which the request is lost."""
    world = World()
    world.before[name] = lose
    return world


async def test_a_sellback_without_an_owner_is_undecided() -> None:
    """The API asks for none, and tells of none."""
    world = world_after("buyback")
    with pytest.raises(OutcomeUnknown):
        await world.api.sell_back(world.item.id)
    finding = await world.finding()
    assert finding.verdict is Verdict.UNDECIDED
    assert "name the owner" in finding.reason


async def test_a_purchase_whose_answer_is_lost() -> None:
    """It happened if the inventory shows as many of the pack, bought since."""
    world = world_after("init")
    world.sandbox.add_item(
        "b", name="Mewtwo", buyback_price=Decimal(1), purchased_at=datetime.now(UTC) - timedelta(days=1)
    )
    with pytest.raises(OutcomeUnknown):
        await world.api.start_purchase(world.pack.id, 2, "b")
    finding = await world.finding()
    assert (finding.verdict, len(finding.items)) == (Verdict.HAPPENED, 2)
    # Somebody's other purchase looks the same.
    world.sandbox.add_item("b", name="Pikachu", buyback_price=Decimal(1), claw_id=world.pack.id)
    assert (await world.finding()).verdict is Verdict.UNDECIDED


async def test_a_purchase_that_never_arrived() -> None:
    """Production may be late with what was bought: only after a while it is decided."""
    world = world_before("init")
    with pytest.raises(OutcomeUnknown):
        await world.api.start_purchase(world.pack.id, 1, "new")
    finding = await world.finding()
    assert finding.verdict is Verdict.UNDECIDED
    assert "may take a while" in finding.reason
    await grow_old(world)
    finding = await world.finding()
    assert finding.verdict is Verdict.UNDECIDED
    assert "may have been sold or shipped" in finding.reason


async def test_what_ends_while_it_is_looked_up_keeps_its_outcome() -> None:
    """It was open when it was found, and its answer came since."""
    world, arrived, goes_on = World(), anyio.Event(), anyio.Event()

    class Slow(MemoryTransport):
        async def send(self, request: Request) -> Response:
            if request.method == "POST":
                arrived.set()
                await goes_on.wait()
            return await super().send(request)

    findings: list[Finding] = []
    async with (
        PhygitalsClient(Slow(world.sandbox), api_key="sandbox-test", journal=world.store) as api,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(partial(api.sell_back, world.item.id, owner="a"))
        await arrived.wait()
        findings.append(await world.finding())
        goes_on.set()
    (finding,) = findings
    assert finding.verdict is Verdict.UNDECIDED
    assert await settle(world.store, finding.entry, happened=False) is False
    (entry,) = entries(world.store)
    assert entry.outcome == "done"
    assert entry.detail["amount"]
    assert await settle(world.store, evolve(entry, id="none"), happened=True) is False


async def test_a_call_to_another_api_is_undecided() -> None:
    """What a sandbox shows says nothing of production."""
    world = world_before("buyback")
    with pytest.raises(OutcomeUnknown):
        await world.api.sell_back(world.item.id, owner="a")
    await world.store.write_entry(evolve(await world.only_entry(), api="https://api.phygitals.com/api/v1"))
    await grow_old(world)
    finding = await world.finding()
    assert finding.verdict is Verdict.UNDECIDED
    assert "it was made at https://api.phygitals.com/api/v1" in finding.reason


async def test_an_owner_whom_the_api_does_not_know_decides_nothing() -> None:
    """An inventory that is not there does not show that the item is gone."""
    world = world_after("buyback")
    with pytest.raises(OutcomeUnknown):
        await world.api.sell_back(world.item.id, owner="a")
    entry = await world.only_entry()
    await world.store.write_entry(evolve(entry, arguments={**entry.arguments, "owner": "nobody"}))
    finding = await world.finding()
    assert finding.verdict is Verdict.UNDECIDED
    assert "does not know the owner" in finding.reason


async def test_a_purchase_of_which_the_session_is_known() -> None:
    """Of a broken answer that much could be read: the session tells."""
    world = World()
    started = await world.api.start_purchase(world.pack.id, 1, "a")
    body = b'{"session_id": "%s", "nfts": 5}' % started.session_id.encode()
    world.after["init"] = lambda: Response(200, {}, body)
    with pytest.raises(OutcomeUnknown):
        await world.api.start_purchase(world.pack.id, 1, "a")
    finding = await world.finding()
    assert finding.verdict is Verdict.HAPPENED
    assert started.session_id in finding.reason
    world.after["status"] = lambda: Response(200, {}, b'{"status": "pending"}')
    assert (await world.finding()).verdict is Verdict.UNDECIDED
    world.after["status"] = lambda: Response(400, {}, b'{"error": "Transaction failed"}')
    assert (await world.finding()).verdict is Verdict.DID_NOT_HAPPEN


async def test_a_shipping_request_whose_answer_is_lost() -> None:
    """The quote tells which items, where its owner was named."""
    for lost, verdict in ((world_after, Verdict.HAPPENED), (world_before, Verdict.DID_NOT_HAPPEN)):
        world = lost("request")
        other = world.sandbox.add_item("a", name="Mewtwo", buyback_price=Decimal(1))
        quotes = await world.api.quote_shipping((i for i in (world.item.id, other.id)), HOME, owner="a")
        with pytest.raises(OutcomeUnknown):
            await world.api.request_shipping(quotes.quotes[0].id)
        await grow_old(world)
        assert (await world.finding()).verdict is verdict
    await PhygitalsClient(world.transport, api_key="sandbox-test").sell_back(other.id)
    finding = await world.finding()
    assert (finding.verdict, finding.reason) == (
        Verdict.UNDECIDED,
        "the owner's inventory shows some of the items, and not all",
    )


# Other calls about the same


async def lose_purchase(world: World, *, arrives: bool) -> JournalEntry:
    """Buy one of the pack for `b`, lose its answer, and return its entry."""
    (world.after if arrives else world.before)["init"] = lose
    with pytest.raises(OutcomeUnknown):
        await world.api.start_purchase(world.pack.id, 1, "b")
    world.after.clear()
    world.before.clear()
    return (await world.store.open_entries())[-1]


@pytest.mark.parametrize("arrives", [True, False])
async def test_what_another_purchase_brought_is_not_taken_for_its_own(arrives: bool) -> None:
    """Whether that was before or after: its session tells what it brought."""
    world = World()
    bought = [await world.api.start_purchase(world.pack.id, 2, "b")]
    await lose_purchase(world, arrives=arrives)
    bought.append(await world.api.start_purchase(world.pack.id, 1, "b"))
    finding = await world.finding()
    others = {item.id for purchase in bought for item in purchase.nfts}
    assert len(others) == 3
    assert [item.id in others for item in finding.items] == [False] * arrives
    assert finding.verdict is (Verdict.HAPPENED if arrives else Verdict.UNDECIDED)
    assert finding.reason.startswith(f"{arrives:d} of this pack were bought at that time and by no other call")


async def test_two_lost_purchases_at_once_are_undecided() -> None:
    """Either may have brought what is there."""
    world = World()
    for arrives in (True, False):
        await lose_purchase(world, arrives=arrives)
    findings = await reconcile(world.api, world.store)
    assert [(finding.verdict, len(finding.items)) for finding in findings] == [(Verdict.UNDECIDED, 1)] * 2
    assert all("another purchase of it is undecided" in finding.reason for finding in findings)
    # Where one is found out by hand, it still cannot be told what it brought.
    await settle(world.store, findings[1].entry, happened=True)
    assert (await world.finding()).verdict is Verdict.UNDECIDED
    await world.store.write_entry(evolve(findings[1].entry, outcome="failed"))
    assert (await world.finding()).verdict is Verdict.HAPPENED


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b'{"status": "pending"}', Verdict.UNDECIDED),
        (400, b'{"error": "Transaction failed"}', Verdict.HAPPENED),
        (500, b"", Verdict.UNDECIDED),
    ],
)
async def test_another_purchase_that_has_not_brought_anything(status: int, body: bytes, verdict: Verdict) -> None:
    """One that is pending may have brought what is there; one that failed did not; of one nothing could be learnt."""
    world = World(retry=ONCE)
    entry = await lose_purchase(world, arrives=True)
    await world.store.write_entry(evolve(entry, id="0", outcome="done", detail={"session_id": "s"}))
    world.before["status"] = lambda: Response(status, {}, body)
    assert (await world.finding()).verdict is verdict


async def test_purchases_at_other_times_are_none_of_its_own() -> None:
    """Nor does one of them leave it undecided."""
    world = World()
    entry, day = await lose_purchase(world, arrives=True), timedelta(days=1)
    for number, away in enumerate((-day, -timedelta(minutes=40), timedelta(minutes=40), day)):
        world.sandbox.add_item(
            "b", name="Mew", buyback_price=Decimal(1), claw_id=world.pack.id, purchased_at=entry.started_at + away
        )
        other = evolve(entry, id=str(number), outcome="done", detail={}, started_at=entry.started_at + away)
        await world.store.write_entry(evolve(other, ended_at=other.started_at))
    finding = await world.finding()
    assert (finding.verdict, len(finding.items)) == (Verdict.HAPPENED, 1)


async def test_an_item_that_another_call_took_away() -> None:
    """It is sold or shipped once, so the lost sale did not happen. Where the other was lost too, nobody knows."""
    world = world_before("buyback")
    with pytest.raises(OutcomeUnknown):
        await world.api.sell_back(world.item.id, owner="a")
    quotes = await world.api.quote_shipping([world.item.id], HOME, owner="a")
    world.after["request"] = lose
    with pytest.raises(OutcomeUnknown):
        await world.api.request_shipping(quotes.quotes[0].id)
    sale, order = await reconcile(world.api, world.store)
    assert (sale.verdict, order.verdict) == (Verdict.UNDECIDED, Verdict.UNDECIDED)
    assert "it may be request_shipping that was done" in sale.reason
    assert "it may be sell_back that was done" in order.reason
    answered = {"order_id": "order_1"}
    for verdict, other in (
        (Verdict.DID_NOT_HAPPEN, evolve(order.entry, outcome="done", detail=answered)),
        # Somebody said so, and there is no answer.
        (Verdict.UNDECIDED, evolve(order.entry, outcome="done", detail={})),
        (Verdict.UNDECIDED, evolve(order.entry, outcome="unknown", detail=answered)),
        (Verdict.HAPPENED, evolve(order.entry, outcome="done", detail=answered, api="https://elsewhere/api/v1")),
        (Verdict.HAPPENED, evolve(order.entry, outcome="failed", detail={})),
    ):
        await world.store.write_entry(other)
        finding = (await reconcile(world.api, world.store))[0]
        assert finding.entry.operation == "sell_back"
        assert (finding.verdict, "and request_shipping of " in finding.reason) == (
            verdict,
            verdict is Verdict.DID_NOT_HAPPEN,
        )


async def test_what_is_sold_while_it_is_looked_up_is_not_taken_for_the_lost_sale() -> None:
    """The other calls are read from the journal once the inventory was seen."""
    world = world_before("buyback")
    with pytest.raises(OutcomeUnknown):
        await world.api.sell_back(world.item.id, owner="a")

    async def sell(request: Request) -> Response:
        world.before.clear()
        await world.api.sell_back(world.item.id)
        return world.sandbox(request)

    looking = PhygitalsClient(MemoryTransport(sell), api_key="sandbox-test")
    (finding,) = await reconcile(looking, world.store)
    assert finding.verdict is Verdict.DID_NOT_HAPPEN


async def test_many_other_calls_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out."""
    monkeypatch.setattr("phygitals_async._calls.rivals._PAGE", 2)
    world = World()
    await lose_purchase(world, arrives=False)
    await world.api.quote_shipping([world.item.id], HOME, owner="a")
    for user in "cab":
        await world.api.start_purchase(world.pack.id, 1, user)
    assert (await world.finding()).items == ()


async def test_quotes_without_a_journal() -> None:
    """They are what they always were."""
    world = World()
    api = PhygitalsClient(world.transport, api_key="sandbox-test")
    assert (await api.quote_shipping([world.item.id], HOME)).quotes
    assert entries(world.store) == []


async def test_a_shipping_request_of_a_quote_that_nothing_is_known_of() -> None:
    """Made without the journal, or without an owner."""
    world = world_before("request")
    with pytest.raises(OutcomeUnknown):
        await world.api.request_shipping("a quote of another process")
    assert (await world.finding()).verdict is Verdict.UNDECIDED


async def test_a_shipping_request_of_which_the_order_is_known() -> None:
    """Of a broken answer that much could be read: the order tells."""
    world = World()
    quotes = await world.api.quote_shipping([world.item.id], HOME)
    order = await world.api.request_shipping(quotes.quotes[0].id)
    world.after["request"] = lambda: Response(200, {}, b'{"order_id": "%s", "status": 5}' % order.order_id.encode())
    with pytest.raises(OutcomeUnknown):
        await world.api.request_shipping(quotes.quotes[0].id)
    finding = await world.finding()
    assert finding.verdict is Verdict.HAPPENED
    assert finding.reason == f"the order {order.order_id} is queued"


async def test_a_lookup_that_fails_is_told_and_the_others_are_made() -> None:
    """Such as an inventory that cannot be read in full: what is looked for may be among the rest."""
    world = world_after("buyback")
    for owner in ("a", "b"):
        world.sandbox.add_item(owner, id=f"item of {owner}", name="Mewtwo", buyback_price=Decimal(1))
        with pytest.raises(OutcomeUnknown):
            await world.api.sell_back(f"item of {owner}", owner=owner)
    world.after["a"] = lambda: Response(500, {}, b"")
    world.after["b"] = lambda: Response(200, {}, b'{"user_id": "b", "items": [{}]}')
    keeping = PhygitalsClient(world.transport, api_key="sandbox-test", on_unreadable="keep")
    findings = await reconcile(keeping, world.store)
    assert [finding.verdict for finding in findings] == [Verdict.UNDECIDED, Verdict.UNDECIDED]
    assert ["could not be looked up" in finding.reason for finding in findings] == [True, True]


# With the rest of the library


async def test_what_is_no_journal_is_refused() -> None:
    """Before the first call, and before money has moved."""
    wrong: Any
    for wrong in ("journal.db", Path("journal.db"), MemoryStore, {}):
        with pytest.raises(ConfigurationError, match=r"journal must be a store of phygitals_async\.refresh"):
            PhygitalsClient(MemoryTransport(Sandbox()), api_key="sandbox-test", journal=wrong)


def test_the_sync_client_has_one(tmp_path: Path) -> None:
    """In its own event loop."""
    sandbox = Sandbox(seed=1)
    item = sandbox.add_item("a", name="Pikachu", buyback_price=Decimal("8.50"))
    store = SqliteStore(tmp_path / "store.db")
    with sync.PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test", journal=store) as api:
        api.sell_back(item.id, owner="a")
    assert asyncio.run(_all(store)) == [("sell_back", "done")]


async def _all(store: SqliteStore) -> Sequence[tuple[str, str]]:
    async with store:
        rows = await store._thread.do(lambda connection: connection.execute("SELECT entry FROM journal").fetchall())
        assert len(rows) == 1
        assert await store.open_entries() == []
    return [("sell_back", "done")] if '"done"' in rows[0][0] else []


def test_a_process_that_is_killed_leaves_its_intent(tmp_path: Path) -> None:
    """`kill -9` between the intent and the outcome."""
    path = tmp_path / "store.db"
    program = f"""if True:
        import anyio
        from phygitals_async import PhygitalsClient
        from phygitals_async.refresh import SqliteStore

        class Hanging:
            async def send(self, request):
                print("sent", flush=True)
                await anyio.sleep_forever()

            async def aclose(self):
                pass

        async def main():
            async with SqliteStore({str(path)!r}) as store:
                await PhygitalsClient(Hanging(), api_key="sandbox-test", journal=store).sell_back("v1|1|0", owner=None)

        anyio.run(main)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        os.kill(process.pid, signal.SIGKILL)
    (entry,) = asyncio.run(_open(path))
    assert (entry.operation, entry.outcome, entry.ended_at) == ("sell_back", None, None)
    assert entry.arguments == {"item_id": "v1|1|0"}


async def _open(path: Path) -> Sequence[JournalEntry]:
    async with SqliteStore(path) as store:
        return await store.open_entries()

"""The transport that asks once for what several want to know."""

from __future__ import annotations

import gc
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Destination,
    OutcomeUnknown,
    PhygitalsClient,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    Sent,
    TransportError,
)
from phygitals_async.errors import PhygitalsError
from phygitals_async.transport import Memo
from phygitals_transports import CachingTransport, MemoryTransport
from support import ONCE, empty_inventories, noting
from virtual import no_task_left, settle, virtual_backend
from wrapper_support import KEY, Gate, get, json_answer, post, sandbox

anyio_backend = virtual_backend

CHANGING = ["/vm/buyback", "/vm/buy/init", "/ship/request", "/vm/buy/status", "/something/new"]
VOLATILE = ["/inventory/ann", "/vm/available", "/vm/recent-pulls"]


def counting() -> MemoryTransport:
    """Return a transport that answers with the number of the request."""
    numbers = iter(range(1, 10**6))
    return MemoryTransport(lambda _: json_answer(200, str(next(numbers)).encode()))


async def bodies(transport: CachingTransport, *requests: Request) -> list[bytes]:
    """Send requests one after another, and return the bodies of the answers."""
    return [(await transport.send(each)).body for each in requests]


@asynccontextmanager
async def over_sandbox(made: Sandbox, **settings: Any) -> AsyncIterator[tuple[PhygitalsClient, MemoryTransport]]:
    """Give a client with a cache over a sandbox, and the transport that is asked."""
    inner = MemoryTransport(made)
    async with PhygitalsClient(CachingTransport(inner, **settings), api_key=KEY) as api:
        yield api, inner


# What is kept


@pytest.mark.anyio
async def test_a_hundred_at_once_are_one_request() -> None:
    """Those who come while it is under way share it, those who come later get what is kept."""
    async with over_sandbox(sandbox(), lifetime=60) as (api, inner):
        owned = []

        async def look() -> None:
            owned.append((await api.get_inventory("ann")).items)

        with no_task_left():
            async with anyio.create_task_group() as group:
                for _ in range(250):
                    group.start_soon(look)
        assert len(inner.sent) == 1
        assert len(owned) == 250
        assert {items[0].id for items in owned} == {"card-of-ann"}


@pytest.mark.anyio
async def test_an_answer_is_used_for_its_lifetime() -> None:
    """The time runs from when it was asked for."""

    async def slow(_: Request) -> Response:
        await anyio.sleep(2)
        return json_answer()

    inner = MemoryTransport(slow)
    caching = CachingTransport(inner, lifetime=10)
    for pause, asked in [(0, 1), (7.9, 1), (0.2, 2), (7.9, 2), (60, 3)]:
        await anyio.sleep(pause)
        await caching.send(get("/inventory/ann"))
        assert len(inner.sent) == asked


@pytest.mark.anyio
async def test_a_clock_of_ones_own() -> None:
    """It tells the time instead of the event loop."""
    now = 0.0
    caching = CachingTransport(counting(), lifetime=10, clock=lambda: now)
    assert await bodies(caching, get("/card/a"), get("/card/a")) == [b"1", b"1"]
    now = 10.0
    assert await bodies(caching, get("/card/a"), get("/card/a")) == [b"2", b"2"]


@pytest.mark.anyio
async def test_no_more_than_so_many_are_kept() -> None:
    """The oldest go first; one asked for again is new."""
    caching = CachingTransport(counting(), lifetime=10, most=3)
    a, b, c, d = (get(f"/card/{name}") for name in "abcd")
    assert await bodies(caching, a, b, c, a, d) == [b"1", b"2", b"3", b"1", b"4"]
    assert await bodies(caching, b, c, d, a) == [b"2", b"3", b"4", b"5"]
    await anyio.sleep(11)
    assert await bodies(caching, c, d, a, c) == [b"6", b"7", b"8", b"6"]
    assert await bodies(caching, get("/card/e"), d, a, c) == [b"9", b"7", b"8", b"10"]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [199, 301, 404, 429, 500, 503])
async def test_only_a_2xx_is_kept(status: int) -> None:
    """Another answer goes to those who wait for it, and to nobody else."""
    gate = Gate()

    async def handler(request: Request) -> Response:
        answer = await gate(request)
        return Response(status if answer.body == b"1" else 204, {}, answer.body)

    caching = CachingTransport(MemoryTransport(handler))
    answers: list[Response] = []

    async def look() -> None:
        answers.append(await caching.send(get("/inventory/ann")))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        group.start_soon(look)
        await settle()
        gate.opened[0].set()
    assert [answer.status for answer in answers] == [status, status]
    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await settle()
        gate.opened[1].set()
    await look()
    assert [answer.body for answer in answers] == [b"1", b"1", b"2", b"2"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "request_",
    [
        get("/ship/order/order_1"),
        post("/vm/buy/status"),
        post("/ship/quote"),
        post("/vm/buyback"),
        get("/something/new"),
        post("/inventory/ann"),
    ],
    ids=lambda request: request.url,
)
async def test_what_is_never_answered_from_the_cache(request_: Request) -> None:
    """Whatever asks how something stands, acts, or is not known: two at once are two, too."""
    gate = Gate()
    caching = CachingTransport(MemoryTransport(gate))
    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(caching.send, request_)
            await settle()
            assert len(gate.arrived) == number + 1
        for each in gate.opened:
            each.set()


@pytest.mark.anyio
async def test_answers_are_told_apart() -> None:
    """By the URL with its query, and by the key, of which nothing but a hash is kept."""
    caching = CachingTransport(counting(), lifetime=60)
    requests = [
        get("/vm/recent-pulls"),
        get("/vm/recent-pulls?limit=5"),
        get("/vm/recent-pulls", "sandbox-another"),
        Request("GET", get("/vm/recent-pulls").url, {}),
        get("/vm/available"),
    ]
    assert await bodies(caching, *requests) == [b"1", b"2", b"3", b"4", b"5"]
    assert await bodies(caching, *requests) == [b"1", b"2", b"3", b"4", b"5"]
    lower = Request("GET", requests[0].url, {"x-api-key": KEY})
    assert await bodies(caching, lower) == [b"1"]
    state = pickle.dumps([list(caching._answers), caching._salt])
    assert KEY.encode() not in state


def test_two_event_loops_at_once() -> None:
    """They are refused, as the clocks of two loops have nothing to do with each other."""
    caching = CachingTransport(counting(), lifetime=60)

    async def elsewhere() -> None:
        with pytest.raises(ConfigurationError, match="this CachingTransport is in use by another event loop"):
            await caching.send(get("/card/a"))

    async def main() -> None:
        await caching.send(get("/card/a"))
        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere))

    anyio.run(main)


def test_one_event_loop_after_another() -> None:
    """Each asks anew."""
    caching = CachingTransport(counting(), lifetime=60)
    for loop, number in [("asyncio", b"1"), ("trio", b"2"), ("asyncio", b"3")]:
        assert anyio.run(bodies, caching, get("/card/a"), get("/card/a"), backend=loop) == [number, number]


# What is dropped


@pytest.mark.anyio
@pytest.mark.parametrize("path", CHANGING)
async def test_what_may_have_changed_is_asked_for_again(path: str) -> None:
    """A request that acts, or shows that one has acted, drops all but cards and chase cards."""
    caching = CachingTransport(counting(), lifetime=60)
    reads = [get(each) for each in VOLATILE] + [get("/card/a"), get("/vm/chase/s"), get("/inventory/bob", "sandbox-2")]
    assert await bodies(caching, *reads) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    await caching.send(post(path))
    assert await bodies(caching, *reads) == [b"8", b"9", b"10", b"4", b"5", b"11"]


@pytest.mark.anyio
async def test_a_quote_changes_nothing() -> None:
    """What is kept stays."""
    caching = CachingTransport(counting(), lifetime=60)
    assert await bodies(caching, get("/inventory/a"), post("/ship/quote"), get("/inventory/a")) == [b"1", b"2", b"1"]


@pytest.mark.anyio
async def test_a_sale_is_seen_at_once() -> None:
    """Through the client, as an application sees it; and so are a purchase and an order."""
    made = sandbox()
    home = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
    async with over_sandbox(made, lifetime=3600) as (api, _):
        assert len((await api.get_inventory("ann")).items) == 1
        await api.sell_back("card-of-ann")
        assert (await api.get_inventory("ann")).items == ()
        made.options.pending_polls = 1
        started = await api.start_purchase(made.packs[0].id, 1, "ann")
        assert (await api.get_inventory("ann")).items == ()
        bought = await api.wait_for_purchase(started.session_id)
        assert [item.id for item in (await api.get_inventory("ann")).items] == [bought.nfts[0].id]
        quotes = await api.quote_shipping([bought.nfts[0].id], home)
        await api.request_shipping(quotes.quotes[0].id)
        assert (await api.get_inventory("ann")).items == ()


@pytest.mark.anyio
async def test_a_sale_whose_answer_is_lost() -> None:
    """Nobody knows whether it happened: what the cache knew is dropped all the same."""
    made = sandbox()

    def handler(request: Request) -> Response:
        answer = made(request)
        if request.method == "POST":
            raise ConnectionLost("the line went dead")
        return answer

    async with PhygitalsClient(CachingTransport(MemoryTransport(handler), lifetime=60), api_key=KEY) as api:
        assert len((await api.get_inventory("ann")).items) == 1
        with pytest.raises(OutcomeUnknown):
            await api.sell_back("card-of-ann")
        assert (await api.get_inventory("ann")).items == ()


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["answered", "cancelled"])
async def test_reads_around_a_call_that_acts(ends: str) -> None:
    """None that started before its end is used after it, however it ends, and none from before is shared with it."""
    gate = Gate()
    caching = CachingTransport(MemoryTransport(gate), lifetime=60)
    got: dict[str, bytes] = {}

    async def ask(name: str, request: Request) -> None:
        got[name] = (await caching.send(request)).body

    async with anyio.create_task_group() as group:
        sale = anyio.CancelScope()

        async def sell() -> None:
            with sale:
                await ask("sale", post("/vm/buyback"))

        group.start_soon(ask, "before", get("/inventory/ann"))
        await settle()
        group.start_soon(sell)
        await settle()
        group.start_soon(ask, "meanwhile", get("/inventory/ann"))
        await settle()
        assert len(gate.arrived) == 3
        gate.opened[2].set()
        await settle()
        await ask("still", get("/inventory/ann"))
        if ends == "answered":
            gate.opened[1].set()
        else:
            sale.cancel()
        await settle()
        group.start_soon(ask, "after", get("/inventory/ann"))
        await settle()
        gate.opened[0].set()
        await settle()
        assert len(gate.arrived) == 4
        gate.opened[3].set()
        await settle()
        await ask("later", get("/inventory/ann"))
    assert {name: got.get(name) for name in ("before", "meanwhile", "still", "after", "later")} == {
        "before": b"1", "meanwhile": b"3", "still": b"3", "after": b"4", "later": b"4",
    }  # fmt: skip
    assert ("sale" in got) == (ends == "answered")


# What several share


@pytest.mark.anyio
async def test_one_who_waits_is_cancelled() -> None:
    """The others get their answer, and nothing is sent again."""
    gate = Gate()
    caching = CachingTransport(MemoryTransport(gate))
    answers: list[bytes] = []
    scopes = [anyio.CancelScope() for _ in range(3)]

    async def look(scope: anyio.CancelScope) -> None:
        with scope:
            answers.append((await caching.send(get("/inventory/ann"))).body)

    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(look, scope)
            await settle()
        scopes[1].cancel()
        await settle()
        assert answers == []
        gate.opened[0].set()
    assert answers == [b"1", b"1"]
    assert [scope.cancelled_caught for scope in scopes] == [False, True, False]


@pytest.mark.anyio
async def test_the_one_who_asked_is_cancelled() -> None:
    """Its request ends with it; one of the others sends its own, and the rest waits for that."""
    gate = Gate()
    caching = CachingTransport(MemoryTransport(gate))
    answers: list[bytes] = []
    requests = [get("/inventory/ann") for _ in range(4)]
    scopes = [anyio.CancelScope() for _ in requests]

    async def look(request: Request, scope: anyio.CancelScope) -> None:
        with scope:
            answers.append((await caching.send(request)).body)

    with no_task_left():
        async with anyio.create_task_group() as group:
            for request, scope in zip(requests, scopes, strict=True):
                group.start_soon(look, request, scope)
                await settle()
            for cancelled in (1, 2):
                (leader,) = [number for number, request in enumerate(requests) if request is gate.arrived[-1]]
                scopes[leader].cancel()
                await settle()
                assert len(gate.arrived) == cancelled + 1
            gate.opened[2].set()
    assert answers == [b"3", b"3"]
    assert (await caching.send(get("/inventory/ann"))).body == b"3"


@pytest.mark.anyio
async def test_a_read_with_little_time_does_not_harm_those_with_more() -> None:
    """Each call has its own deadline, whoever sends for it."""
    gate = Gate()
    async with PhygitalsClient(
        CachingTransport(MemoryTransport(gate)), api_key=KEY, retry=ONCE, attempt_timeout=60
    ) as api:
        seen: list[BaseException] = []

        async def look(deadline: float) -> None:
            with pytest.raises(PhygitalsError):
                await noting(seen, api.get_inventory("ann", deadline=deadline))

        async with anyio.create_task_group() as group:
            for deadline in (1, 2, 50):
                group.start_soon(look, deadline)
                await settle()
            await anyio.sleep(3)
            assert [type(error) for error in seen] == [DeadlineExceeded, DeadlineExceeded]
            # Who of the others sends after the first has given up is the event loop's choice.
            assert len(gate.arrived) in (2, 3)
            gate.opened[-1].set()
        assert type(seen[2]).__name__ == "DecodeError"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "connects", "sent"),
    [
        (ConnectError("refused"), False, Sent.NEVER),
        (ConnectionLost("cut"), None, Sent.UNKNOWN),
        (TransportError("slow"), False, Sent.NEVER),
        (ConnectError("a second connection"), True, Sent.UNKNOWN),
    ],
)
async def test_a_failure_is_everybodys(error: TransportError, connects: bool | None, sent: Sent) -> None:
    """Each gets an error of its own, and each error tells what became of the request that was sent for all."""
    gate = Gate()

    async def handler(request: Request) -> Response:
        await gate(request)
        if connects is not None:
            request.delivery.started, request.delivery.failed = connects, not connects
        error.add_note("a note")
        raise error

    seen: list[BaseException] = []
    async with PhygitalsClient(CachingTransport(MemoryTransport(handler)), api_key=KEY, retry=ONCE) as api:

        async def look() -> None:
            with pytest.raises(TransportError):
                await noting(seen, api.get_inventory("ann"))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(look)
            await settle()
            gate.opened[0].set()
    assert len(gate.arrived) == 1
    assert len({id(each) for each in seen}) == 3
    assert {type(each) for each in seen} == {type(error)}
    assert [each.sent for each in seen if isinstance(each, PhygitalsError)] == [sent] * 3
    assert [each.text for each in seen if isinstance(each, PhygitalsError)] == [error.text] * 3


@pytest.mark.anyio
async def test_a_bug_is_nobodys_answer() -> None:
    """What no transport may raise is not passed on: the next sends its own."""
    gate = Gate()

    async def handler(request: Request) -> Response:
        answer = await gate(request)
        if answer.body == b"1":
            raise ZeroDivisionError
        return answer

    caching = CachingTransport(MemoryTransport(handler))
    got: list[object] = []

    async def look() -> None:
        try:
            got.append((await caching.send(get("/inventory/ann"))).body)
        except ZeroDivisionError as error:
            got.append(type(error))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        group.start_soon(look)
        await settle()
        for each in (0, 1):
            gate.opened[each].set()
            await settle()
    assert got == [ZeroDivisionError, b"2"]


@pytest.mark.anyio
async def test_a_kept_answer_lets_other_tasks_run_and_can_be_cancelled() -> None:
    """As any send."""
    inner = counting()
    caching = CachingTransport(inner, lifetime=60)
    await caching.send(get("/card/a"))
    turns = []

    async def look(name: str) -> None:
        for _ in range(3):
            await caching.send(get("/card/a"))
            turns.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(look, "a")
        group.start_soon(look, "b")
    assert turns[:3] not in (["a"] * 3, ["b"] * 3)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await caching.send(get("/card/a"))
    assert scope.cancelled_caught
    assert len(inner.sent) == 1


# The whole


@pytest.mark.anyio
async def test_a_closed_cache_answers_nothing() -> None:
    """Not even what it knew; closing twice is allowed."""
    caching = CachingTransport(counting(), lifetime=60)
    await caching.send(get("/card/a"))
    await caching.aclose()
    await caching.aclose()
    with pytest.raises(ClientClosed):
        await caching.send(get("/card/a"))


@pytest.mark.anyio
async def test_a_bulk_run_over_a_cache() -> None:
    """Each outcome is there, and users looked up before cost nothing."""
    inner = MemoryTransport(empty_inventories)
    async with PhygitalsClient(CachingTransport(inner, lifetime=60), api_key=KEY) as api:
        for users, sent in [(range(100), 100), (range(50, 150), 150)]:
            batch = await api.get_inventories([f"user-{number}" for number in users], limit=8)
            assert len(batch.found) == 100
            assert len(inner.sent) == sent


@pytest.mark.anyio
async def test_a_failed_read_is_repeated_by_the_client() -> None:
    """What failed is not kept, so a repeat asks again."""
    inner = MemoryTransport.answering(ConnectionLost("cut"), (503, {}), {"user_id": "ann", "items": []})
    async with PhygitalsClient(CachingTransport(inner), api_key=KEY, retry=RetryPolicy(retries=2)) as api:
        assert (await api.get_inventory("ann")).items == ()
    assert len(inner.sent) == 3


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"lifetime": 0}, "lifetime"), ({"lifetime": True}, "lifetime"), ({"most": 0}, "most"), ({"most": 1.5}, "most")],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], named: str) -> None:
    """They are refused by name."""
    with pytest.raises(ConfigurationError, match=named):
        CachingTransport(counting(), **settings)


def test_nothing_is_left_of_a_cache() -> None:
    """It holds no task and no timer: what is left of it is collected in silence."""
    anyio.run(bodies, CachingTransport(counting()), get("/card/a"))
    gc.collect()


@pytest.mark.anyio
async def test_a_kept_answer_is_decoded_once() -> None:
    """What a call returned is returned again, until something changes."""
    async with over_sandbox(sandbox()) as (api, _):
        first = await api.get_inventory("ann")
        assert await api.get_inventory("ann") is first
        assert await api.list_recent_pulls(limit=3) is await api.list_recent_pulls(limit=3)
        await api.sell_back("card-of-ann")
        assert (await api.get_inventory("ann")).items == ()


@pytest.mark.anyio
async def test_what_was_made_for_one_client_is_not_for_another() -> None:
    """Converters may differ."""
    transport = CachingTransport(MemoryTransport(sandbox()))
    async with PhygitalsClient(transport, api_key=KEY) as one, PhygitalsClient(transport, api_key=KEY) as other:
        first, second = await one.get_inventory("ann"), await other.get_inventory("ann")
    assert first == second
    assert first is not second


@pytest.mark.anyio
async def test_what_cannot_be_read_is_refused_each_time() -> None:
    """Nothing is kept of it."""
    inner = MemoryTransport(lambda _: json_answer(200, b'{"user_id": "ann", "items": [7]}'))
    async with PhygitalsClient(CachingTransport(inner), api_key=KEY) as api:
        for _ in range(2):
            with pytest.raises(DecodeError):
                await api.get_inventory("ann")
    assert len(inner.sent) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["body", "user"])
async def test_an_answer_that_is_changed_is_decoded_anew(change: str) -> None:
    """A wrapper may change what was kept, and one answer may be given to several questions."""
    kept = Response(200, {}, b'{"user_id": "ann", "items": []}', memo=Memo())
    answers = [kept, evolve(kept, body=b'{"user_id": "bob", "items": []}') if change == "body" else kept]
    async with PhygitalsClient(MemoryTransport(lambda _: answers.pop(0)), api_key=KEY) as api:
        assert (await api.get_inventory("ann")).user_id == "ann"
        if change == "body":
            assert (await api.get_inventory("bob")).user_id == "bob"
        else:
            with pytest.raises(DecodeError, match="another question"):
                await api.get_inventory("bob")


@pytest.mark.anyio
async def test_a_copy_of_an_answer_holds_nothing_of_the_client() -> None:
    """The converter and the result stay where they are."""
    kept = Response(200, {}, b'{"user_id": "ann", "items": []}', memo=Memo())
    async with PhygitalsClient(MemoryTransport(lambda _: kept), api_key=KEY) as api:
        await api.get_inventory("ann")
    assert b"converter" not in pickle.dumps(kept)
    assert pickle.loads(pickle.dumps(kept)) == kept  # noqa: S301 - it is ours.

"""Hours of bad weather: every operation, over real HTTP, against a server that fails in every way it can.

`make soak` runs it for two minutes, `make soak SECONDS=3600` for an hour. It ends with an error if what came out of the
calls is not what the observer saw, if the purchases, sellbacks and orders on the server are not those that were
reported plus those that finding out confirmed, or if tasks, sockets or memory leak.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import re
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
from attrs import Factory, define, field

from phygitals_async import (
    Attempt,
    Call,
    Destination,
    Failed,
    Inventory,
    Observer,
    Outcome,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    Progress,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    UserNotFound,
    fan_out_all,
)

KEY: Final = "sandbox-soak"
USERS: Final = 40
WORKERS: Final = 16
# Lookups of one bulk run in flight.
MOST_AT_ONCE: Final = 8
DEADLINE: Final = 1.0
ATTEMPT_TIMEOUT: Final = 0.4
ADDRESS: Final = Destination(name="A", line1="1 Main St", city="Reno", state="NV", postal_code="89501", country="US")
HOME: Final = Destination(name="B", line1="Hauptstr. 1", city="Berlin", country="DE")

# A call that takes longer hangs; there is nothing to wait for but its deadline of a few seconds at most.
HANGS: Final = 60.0
# After so many calls, every cache is full and every connection made.
WARM_UP: Final = 400
# Bytes that the client and aiohttp may hold more after the last call than after warming up.
GROWTH: Final = 96 * 1024

# How often, in percent of requests, the server does what.
FAULTS: Final = {
    "drop before": 2.0,
    "drop after": 2.0,
    "reset before": 1.0,
    "500 before": 2.0,
    "500 after": 1.5,
    "502 html": 1.0,
    "stall before": 0.7,
    "stall after": 0.7,
    "stall, then act": 0.5,
    "cut": 2.0,
    "garbage": 1.0,
    "no http": 1.0,
    "slow": 5.0,
    "429": 0.1,
    "429 bare": 0.1,
    "503": 0.2,
}
# These slow the whole client down, so that a few are enough, and none before everything else was seen.
THROTTLES: Final = ("429", "429 bare", "503")


@define
class Weather:
    """A server over a sandbox that fails at random, and in every way soon.

    Attributes:
        requests: How many were read.
        faults: What it did, counted.
        irreversible: Requests to move money or goods that were read, whatever came of them; no two are alike.
        sold: Item ids that were sold back.
        settled: Is set while no request is under way.
    """

    sandbox: Sandbox
    rng: random.Random
    requests: int = 0
    faults: Counter[str] = field(factory=Counter)
    irreversible: Counter[bytes] = field(factory=Counter)
    sold: Counter[str] = field(factory=Counter)
    settled: asyncio.Event = field(factory=asyncio.Event)
    _acting: int = 0
    _unseen: list[str] = field(factory=lambda: [*FAULTS])
    _talks: set[asyncio.Task[None]] = field(factory=set)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen on loopback, giving the base URL."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            # The client hung up: that is weather, too.
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, or fail to; tell whether the connection lives on."""
        request = await _read(reader)
        self.requests += 1
        if request.body and request.url.endswith(("/vm/buy/init", "/vm/buyback", "/ship/request")):
            self.irreversible[request.body] += 1
        fault = self._next_fault()
        self.faults[fault] += 1
        self._acting += 1
        self.settled.clear()
        try:
            return await self._misbehave(fault, request, reader, writer)
        finally:
            self._acting -= 1
            if not self._acting:
                self.settled.set()

    def _next_fault(self) -> str:
        if self._unseen and self.rng.random() < 0.02:
            return self._unseen.pop(0)
        fault = self.rng.choices([*FAULTS, "fine"], [*FAULTS.values(), 100 - sum(FAULTS.values())])[0]
        return "fine" if fault in THROTTLES and self._unseen else fault

    async def _misbehave(
        self, fault: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        match fault:
            case "drop before":
                return False
            case "reset before":
                writer.transport.abort()
                return False
            case "500 before":
                return await _write(writer, Response(500, {}, b'{"error":"Internal server error"}'))
            case "502 html":
                return await _write(writer, Response(502, {"content-type": "text/html"}, b"<html>Bad gateway</html>"))
            case "429":
                return await _write(writer, Response(429, {"retry-after": "0.05"}, b"{}"))
            case "429 bare":
                return await _write(writer, Response(429, {}, b"{}"))
            case "503":
                return await _write(writer, Response(503, {"retry-after": "0.05"}, b"{}"))
            case "stall before":
                await reader.read()
                return False
            case "stall, then act":
                # Longer than any client waits: the worst that can happen to a purchase.
                await asyncio.sleep(DEADLINE + 0.2)
        response = self._act(request)
        match fault:
            case "drop after":
                return False
            case "500 after":
                return await _write(writer, Response(500, {}, b"{}"))
            case "stall after":
                await reader.read()
                return False
            case "cut":
                await _write(writer, response, cut=True)
                return False
            case "garbage":
                return await _write(writer, Response(200, {}, b'{"half": [1, 2'))
            case "no http":
                writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
                await writer.drain()
                return False
            case "slow":
                await asyncio.sleep(self.rng.random() / 10)
        return await _write(writer, response)

    def _act(self, request: Request) -> Response:
        response = self.sandbox(request)
        if response.status == 200 and request.body:
            body = msgspec.json.decode(request.body)
            if request.url.endswith("/vm/buyback"):
                self.sold[body["item_id"]] += 1
        return response


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = line.split(" ")
    return Request(method, f"http://{headers['host']}{target}", headers, body or None)


async def _write(writer: asyncio.StreamWriter, response: Response, *, cut: bool = False) -> bool:
    headers = {**response.headers, "content-length": str(len(response.body))}
    lines = [f"HTTP/1.1 {response.status} Reason", *(f"{name}: {value}" for name, value in headers.items())]
    body = response.body[: len(response.body) // 2] if cut else response.body
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return True


@define
class Books(Observer):
    """An observer that counts.

    Attributes:
        begun: Calls begun, by operation.
        ended: Calls ended, by operation and outcome.
        attempts: Requests handed to the transport.
        wrong: What was told and cannot be. What an observer raises is logged and harms nobody, so it is kept here.
    """

    begun: Counter[str] = field(factory=Counter)
    ended: defaultdict[str, Counter[str]] = field(factory=lambda: defaultdict(Counter))
    attempts: int = 0
    wrong: list[str] = field(factory=list)

    def started(self, call: Call) -> None:
        """Count it."""
        self.begun[call.operation] += 1

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Count it."""
        self.attempts += 1

    def retrying(self, call: Call, seconds: float) -> None:
        """Check the pause."""
        if not 0 <= seconds <= DEADLINE:
            self.wrong.append(f"{call.operation}: a pause of {seconds} s")

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Count it."""
        self.ended[call.operation]["ok" if error is None else error.__name__] += 1

    def progressed(self, progress: Progress) -> None:
        """Check the counts."""
        if not (0 <= progress.in_flight <= MOST_AT_ONCE and progress.done > 0 and progress.throttled >= 0):
            self.wrong.append(repr(progress))


Fate = Literal["done", "unknown", "refused"]
Action = Callable[[PhygitalsClient, Sandbox], Awaitable[None]]

# What the soak calls under these names, and nothing else calls, so that the observer must have seen the same.
COUNTED: Final = (
    "list_packs", "list_chase_cards", "get_card", "get_inventory", "start_purchase", "sell_back", "quote_shipping",
    "request_shipping",
)  # fmt: skip
METHODS: Final = (
    *COUNTED, "list_recent_pulls", "get_purchase", "wait_for_purchase", "purchase", "get_shipping_order", "watch_order",
    "get_inventories", "stream_inventories", "fan_out_all",
)  # fmt: skip


@define
class Soak:
    """One run of many workers.

    Attributes:
        seconds: How long it rains.
        seed: Of the weather and of what is done.
        until_seen: Whether it ends sooner, as soon as everything that can happen has happened and memory is measured.
        calls: Calls by method and outcome.
        purchases: The fate of each purchase, by its user; every purchase has a user of its own.
        sellbacks: The fate of each sellback, by its item; each item is sold once at most.
        shipments: The fate of each shipping request, by its item.
        confirmed: The users and items of unknown fate of which finding out has told that it happened.
    """

    seconds: float
    seed: int
    until_seen: bool = False
    rng: random.Random = field(default=Factory(lambda self: random.Random(self.seed), takes_self=True))
    books: Books = field(factory=Books)
    calls: defaultdict[str, Counter[str]] = field(factory=lambda: defaultdict(Counter))
    purchases: dict[str, Fate] = field(factory=dict)
    sellbacks: dict[str, Fate] = field(factory=dict)
    shipments: dict[str, Fate] = field(factory=dict)
    confirmed: set[str] = field(factory=set)
    orders: list[str] = field(factory=list)
    sessions: list[str] = field(factory=list)
    _serial: int = 0

    async def run(self) -> dict[str, Any]:
        """Let it rain, then check everything; return what was seen."""
        sandbox = Sandbox(seed=self.seed)
        sandbox.options.price_factor = Decimal("0.9")
        sandbox.options.order_stage = timedelta(milliseconds=50)
        for number in range(USERS):
            sandbox.add_item(f"user{number}", name="A card", buyback_price=Decimal("8.50"))
        weather = Weather(sandbox, random.Random(self.seed + 1))
        gc.collect()
        files, tasks, things = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), _things()
        async with weather.serve() as url:
            api = PhygitalsClient(
                api_key=KEY,
                base_url=url,
                deadline=DEADLINE,
                attempt_timeout=ATTEMPT_TIMEOUT,
                max_in_flight=WORKERS * 2,
                retry=RetryPolicy(base=0.005),
                observer=self.books,
            )
            grown = await self._rain(api, sandbox, weather)
            assert api._engine.admission.in_flight == 0
            # What stalled acts in the end.
            await weather.settled.wait()
            await self._reconcile(api)
            await api.aclose()
        assert grown < GROWTH, f"the client holds {grown} bytes more than after warming up"
        self._check(sandbox, weather)
        await _no_leak(files, tasks, things)
        return {
            "calls": {
                f"{name}: {how}": count for name, all_ in sorted(self.calls.items()) for how, count in all_.items()
            },
            "faults": dict(sorted(weather.faults.items())),
            "requests": weather.requests,
            "purchases": Counter(self.purchases.values()),
            "sellbacks": Counter(self.sellbacks.values()),
            "shipments": Counter(self.shipments.values()),
            "bytes grown": grown,
        }

    async def _rain(self, api: PhygitalsClient, sandbox: Sandbox, weather: Weather) -> int:
        """Make calls until the end; return how many bytes more the client holds then than after warming up."""
        ends = time.monotonic() + self.seconds
        tracemalloc.start()
        try:
            await self._work_all(api, sandbox, lambda: time.monotonic() > ends or self.books.begun.total() > WARM_UP)
            warm = _held_by_the_client()
            await self._work_all(
                api,
                sandbox,
                lambda: (
                    time.monotonic() > ends
                    or (self.until_seen and self.books.begun.total() > 3 * WARM_UP and not self.unseen(weather.faults))
                ),
            )
            return _held_by_the_client() - warm
        finally:
            tracemalloc.stop()

    def unseen(self, faults: Counter[str]) -> list[str]:
        """Return what has not happened yet."""
        missing = [fault for fault in FAULTS if not faults[fault]]
        missing += [f"{method}: ok" for method in METHODS if not self.calls[method]["ok"]]
        missing += [] if self.calls["cancelled"]["CancelledError"] else ["cancelled"]
        for name, fates in (
            ("purchase", self.purchases), ("sellback", self.sellbacks), ("shipment", self.shipments),
        ):  # fmt: skip
            missing += [f"{name} {fate}" for fate in ("done", "unknown") if fate not in fates.values()]
        return missing

    async def _work_all(self, api: PhygitalsClient, sandbox: Sandbox, is_over: Callable[[], bool]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(api, sandbox, is_over))

    async def _work(self, api: PhygitalsClient, sandbox: Sandbox, is_over: Callable[[], bool]) -> None:
        bulk: list[Action] = [self._stream, self._batch, self._fan_out]
        reads: list[Action] = [self._read, *bulk, self._cancel, self._wait, self._watch]
        moves: list[Action] = [self._buy, self._purchase, self._sell, self._ship]
        while not is_over():
            await self.rng.choice([*reads, *moves, *moves])(api, sandbox)

    async def _call(
        self, name: str, call: Callable[[], Awaitable[Any]], *parts: str
    ) -> tuple[Any, PhygitalsError | None]:
        """Make a call of a method, perhaps of many `parts`, and count it. Only an error of the library may come out."""
        result, failure = None, None
        try:
            async with asyncio.timeout(HANGS):
                result = await call()
        except PhygitalsError as error:
            failure = error
        if failure is not None:
            assert failure.operation in (name, *parts), failure
            assert KEY not in repr(failure) + str(failure)
        self.calls[name][type(failure).__name__ if failure else "ok"] += 1
        return result, failure

    async def _read(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        user = f"user{self.rng.randrange(USERS + 2)}"
        item = f"item{self._serial - self.rng.randrange(4)}"
        choices: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("get_inventory", lambda: api.get_inventory(user)),
            ("list_packs", lambda: api.list_packs(include_repacks=True)),
            ("list_chase_cards", lambda: api.list_chase_cards("topps-chrome-2024")),
            ("list_recent_pulls", lambda: api.list_recent_pulls(limit=5)),
            ("get_card", lambda: api.get_card(item)),
        ]
        if self.orders:
            order = self.rng.choice(self.orders)
            choices.append(("get_shipping_order", lambda: api.get_shipping_order(order)))
        if self.sessions:
            session = self.rng.choice(self.sessions)
            choices.append(("get_purchase", lambda: api.get_purchase(session)))
        fresh = [choice for choice in choices if not self.calls[choice[0]]["ok"]]
        await self._call(*self.rng.choice(fresh or choices))

    async def _stream(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        users = [f"user{n}" for n in range(self.rng.randrange(USERS))]
        # Without patience each key is one call; with it, see `_fan_out`.
        async with api.stream_inventories(users, limit=self.rng.randint(1, MOST_AT_ONCE), patience=0) as outcomes:
            seen = [self._count_lookup(outcome) async for outcome in outcomes]
        assert sorted(seen) == sorted(users)
        self.calls["stream_inventories"]["ok"] += 1

    async def _batch(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        users = self.rng.choices([f"user{n}" for n in range(USERS)], k=10)
        batch = await api.get_inventories(users, limit=self.rng.randint(1, MOST_AT_ONCE), patience=0)
        assert [outcome.key for outcome in batch] == users
        for outcome in {outcome.key: outcome for outcome in batch}.values():
            self._count_lookup(outcome)
        self.calls["get_inventories"]["ok"] += 1

    async def _fan_out(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        async def look_up(user: str) -> Inventory:
            inventory, error = await self._call("get_inventory", lambda: api.get_inventory(user))
            if error is not None:
                raise error
            found: Inventory = inventory
            return found

        users = [f"user{n}" for n in range(self.rng.randrange(USERS))]
        batch = await fan_out_all(look_up, users, limit=self.rng.randint(1, MOST_AT_ONCE))
        assert [outcome.key for outcome in batch] == users
        self.calls["fan_out_all"]["ok"] += 1

    def _count_lookup(self, outcome: Outcome[str, Inventory]) -> str:
        self.calls["get_inventory"][type(outcome.error).__name__ if isinstance(outcome, Failed) else "ok"] += 1
        user: str = outcome.key
        return user

    async def _cancel(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        task = asyncio.create_task(api.list_recent_pulls())
        await asyncio.sleep(self.rng.random() / 100)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, PhygitalsError | asyncio.CancelledError), outcome
        self.calls["cancelled"][type(outcome).__name__] += 1

    async def _wait(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        if self.sessions:
            session = self.rng.choice(self.sessions)
            await self._call(
                "wait_for_purchase", lambda: api.wait_for_purchase(session, deadline=1.0, interval=0.01), "get_purchase"
            )

    async def _watch(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        async def watch(order: str) -> None:
            statuses = [seen.status async for seen in api.watch_order(order, interval=0.02, deadline=2.0)]
            assert statuses[-1].is_terminal
            assert len(set(statuses)) == len(statuses)

        if self.orders:
            order = self.rng.choice(self.orders)
            await self._call("watch_order", lambda: watch(order), "get_shipping_order")

    async def _buy(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        pack = self.rng.choice([pack for pack in sandbox.packs if pack.purchasable])
        user = f"buyer{self._next()}"
        amount = self.rng.randint(1, pack.max_per_mint + 1)
        started, error = await self._call("start_purchase", lambda: api.start_purchase(pack.id, amount, user))
        self.purchases[user] = _fate(error)
        if started is not None:
            self.sessions = [*self.sessions[-50:], started.session_id]

    async def _purchase(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        pack = self.rng.choice([pack for pack in sandbox.packs if pack.purchasable])
        user = f"buyer{self._next()}"
        _, error = await self._call(
            "purchase",
            lambda: api.purchase(pack.id, 1, user, deadline=2.0, interval=0.01),
            "start_purchase", "wait_for_purchase", "get_purchase",
        )  # fmt: skip
        # Whatever ends the waiting, the purchase was started.
        refused = error if error is not None and error.operation == "start_purchase" else None
        self.calls["start_purchase"][type(refused).__name__ if refused else "ok"] += 1
        self.purchases[user] = _fate(refused)

    async def _sell(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        item = self._stock(sandbox)
        _, error = await self._call("sell_back", lambda: api.sell_back(item))
        self.sellbacks[item] = _fate(error)

    async def _ship(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        item = self._stock(sandbox)
        where = self.rng.choice([ADDRESS, HOME])
        quotes, _ = await self._call("quote_shipping", lambda: api.quote_shipping([item], where))
        if quotes is None:
            return
        order, error = await self._call("request_shipping", lambda: api.request_shipping(quotes.cheapest.id))
        self.shipments[item] = _fate(error)
        if order is not None:
            self.orders = [*self.orders[-50:], order.order_id]

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _stock(self, sandbox: Sandbox) -> str:
        """Give a user an item of its own id and return that."""
        number = self._next()
        item = f"item{number}"
        sandbox.add_item(f"owner{number}", name="A card", buyback_price=Decimal("2.00"), id=item)
        return item

    async def _reconcile(self, api: PhygitalsClient) -> None:
        """Find out about unknown outcomes as `OutcomeUnknown` says."""
        for user in _of_unknown_fate(self.purchases):
            if await self._owns(api, user):
                self.confirmed.add(user)
        for item in _of_unknown_fate({**self.sellbacks, **self.shipments}):
            if not await self._owns(api, item.replace("item", "owner")):
                self.confirmed.add(item)

    async def _owns(self, api: PhygitalsClient, user: str) -> bool:
        """Read an inventory through the bad weather; nobody's is empty."""
        for _ in range(50):
            inventory, error = await self._call("get_inventory", lambda: api.get_inventory(user))
            if error is None or isinstance(error, UserNotFound):
                return inventory is not None and bool(inventory.items)
        msg = "the weather is too bad even for fifty tries"
        raise AssertionError(msg)

    def _check(self, sandbox: Sandbox, weather: Weather) -> None:
        assert not self.books.wrong, self.books.wrong
        for operation, begun in self.books.begun.items():
            ended = self.books.ended[operation].total()
            assert begun == ended, f"{operation}: {begun} calls have begun, and {ended} ended"
        for operation in COUNTED:
            seen, counted = self.books.ended[operation], self.calls[operation]
            assert seen == counted, f"{operation}: the observer saw {seen}, and what came out was {counted}"
        assert weather.requests <= self.books.attempts, "the server saw requests that nobody made"
        again = [body for body, times in weather.irreversible.items() if times > 1]
        assert not again, f"sent more than once: {again}"
        # The sandbox's own books; of sellbacks it keeps none.
        bought = [session.user_id for session in sandbox.ledger.purchases.values()]
        shipped = [holding.item.id for order in sandbox.ledger.orders.values() for holding in order.holdings]
        for fates, happened in (
            (self.purchases, bought), (self.sellbacks, [*weather.sold.elements()]), (self.shipments, shipped),
        ):  # fmt: skip
            reported = [key for key, fate in fates.items() if fate == "done"]
            confirmed = [key for key in _of_unknown_fate(fates) if key in self.confirmed]
            assert sorted(happened) == sorted(reported + confirmed)


def _of_unknown_fate(fates: Mapping[str, Fate]) -> list[str]:
    return [key for key, fate in fates.items() if fate == "unknown"]


def _held_by_the_client() -> int:
    """Return the bytes that the library and aiohttp hold, the sandbox's books left out."""
    gc.collect()
    held = tracemalloc.take_snapshot().filter_traces(
        [
            tracemalloc.Filter(True, "*/phygitals_async/*"),
            tracemalloc.Filter(True, "*/phygitals_transports/*"),
            tracemalloc.Filter(True, "*/aiohttp/*"),
            tracemalloc.Filter(False, "*/phygitals_async/sandbox/*"),
        ]
    )
    return sum(trace.size for trace in held.traces)


def _fate(error: PhygitalsError | None) -> Fate:
    if error is None:
        return "done"
    return "unknown" if isinstance(error, OutcomeUnknown) else "refused"


def _things() -> Counter[str]:
    """Count what this library has made and somebody still holds."""
    kinds = (Request, Response, Call, Attempt, PhygitalsError)
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))


async def _no_leak(files: int, tasks: int, things: Counter[str]) -> None:
    """Check that no task, socket, request or answer is left."""
    left = (0, 0)
    for _ in range(200):
        gc.collect()
        left = len(os.listdir("/proc/self/fd")) - files, len(asyncio.all_tasks()) - tasks
        if max(left) <= 0:
            break
        await asyncio.sleep(0.01)
    assert max(left) <= 0, f"{left[0]} files and {left[1]} tasks are left"
    kept = _things() - things
    assert kept.total() < 20, f"left in memory: {kept}"


def resident() -> float:
    """Return this process's memory in MiB."""
    with open("/proc/self/status") as status:
        found = re.search(r"VmRSS:\s*(\d+)", status.read())
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Run until the time is up, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"soak: {options.seconds:g} s, seed {options.seed}", flush=True)
    before = resident()
    for part, seen in asyncio.run(Soak(options.seconds, options.seed).run()).items():
        print(f"\n{part}")
        lines = seen.items() if isinstance(seen, dict) else [("", seen)]
        for name, count in lines:
            print(f"  {count:7}  {name}")
    print(f"\nmemory: {before:.0f} to {resident():.0f} MiB, the sandbox's own books included")
    print("every call is accounted for, nothing happened twice, nothing is left")


if __name__ == "__main__":
    main()

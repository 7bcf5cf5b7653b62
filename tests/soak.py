"""Hours of bad weather: every operation, over real HTTP, against a server that fails in every way it can.

`make soak` runs it for two minutes, `make soak SECONDS=3600` for an hour. It ends with an error if a call is not
accounted for, if a purchase, sellback or order happened twice or without the client saying so, or if anything leaks.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

import msgspec
from attrs import Factory, define, field

from phygitals_async import (
    Attempt,
    Call,
    Destination,
    Failed,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    Progress,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    UserNotFound,
)

USERS: Final = 40
WORKERS: Final = 16
DEADLINE: Final = 1.0
ATTEMPT_TIMEOUT: Final = 0.4
ADDRESS: Final = Destination(name="A", line1="1 Main St", city="Reno", state="NV", postal_code="89501", country="US")
HOME: Final = Destination(name="B", line1="Hauptstr. 1", city="Berlin", country="DE")

# How often, in percent of requests, the server does what.
FAULTS: Final = {
    "drop before": 2.0,
    "drop after": 2.0,
    "reset before": 1.0,
    "500 before": 2.0,
    "500 after": 1.5,
    "502 html": 1.0,
    # These slow the whole client down, so that a few are enough.
    "429": 0.1,
    "429 bare": 0.1,
    "503": 0.2,
    "stall before": 0.7,
    "stall after": 0.7,
    "stall, then act": 0.5,
    "cut": 2.0,
    "garbage": 1.0,
    "no http": 1.0,
    "slow": 5.0,
}


@define
class Weather:
    """A server over a sandbox that fails at random.

    Attributes:
        requests: How many were read.
        faults: What it did, counted.
        bought: User ids of purchases that were made.
        sold: Item ids that were sold back.
        shipped: Quote ids that became orders.
    """

    sandbox: Sandbox
    rng: random.Random
    requests: int = 0
    faults: Counter[str] = field(factory=Counter)
    bought: Counter[str] = field(factory=Counter)
    sold: Counter[str] = field(factory=Counter)
    shipped: Counter[str] = field(factory=Counter)
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
        fault = self.rng.choices([*FAULTS, "fine"], [*FAULTS.values(), 100 - sum(FAULTS.values())])[0]
        self.faults[fault] += 1
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
            if request.url.endswith("/vm/buy/init"):
                self.bought[body["user_id"]] += 1
            elif request.url.endswith("/vm/buyback"):
                self.sold[body["item_id"]] += 1
            elif request.url.endswith("/ship/request"):
                self.shipped[body["quote_id"]] += 1
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
class Books:
    """An observer that counts.

    Attributes:
        begun: Calls begun.
        ended: Calls ended.
        attempts: Requests handed to the transport.
    """

    begun: int = 0
    ended: int = 0
    attempts: int = 0

    def started(self, call: Call) -> None:
        """Count it."""
        self.begun += 1

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Count it."""
        self.attempts += 1

    def retrying(self, call: Call, seconds: float) -> None:
        """Check the pause."""
        assert 0 <= seconds <= DEADLINE

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Count it."""
        self.ended += 1

    def progressed(self, progress: Progress) -> None:
        """Check the counts."""
        assert progress.limit >= 1
        assert progress.attempts >= 0


Fate = str  # "done", "unknown" or "refused"


@define
class Soak:
    """One run of many workers.

    Attributes:
        calls: Calls by operation and outcome.
        purchases: The fate of each purchase, by its user; every purchase has a user of its own.
        sellbacks: The fate of each sellback, by its item; each item is sold once at most.
        shipments: The fate of each shipping request, by its quote.
    """

    seconds: float
    seed: int
    rng: random.Random = field(default=Factory(lambda self: random.Random(self.seed), takes_self=True))
    books: Books = field(factory=Books)
    calls: Counter[str] = field(factory=Counter)
    made: int = 0
    purchases: dict[str, Fate] = field(factory=dict)
    sellbacks: dict[str, Fate] = field(factory=dict)
    shipments: dict[str, Fate] = field(factory=dict)
    orders: list[str] = field(factory=list)
    sessions: list[str] = field(factory=list)
    _serial: int = 0

    async def run(self) -> dict[str, Any]:
        """Let it rain for so many seconds, then check everything; return what was seen."""
        sandbox = Sandbox(seed=self.seed)
        sandbox.options.price_factor = Decimal("0.9")
        for number in range(USERS):
            sandbox.add_item(f"user{number}", name="A card", buyback_price=Decimal("8.50"))
        weather = Weather(sandbox, random.Random(self.seed + 1))
        gc.collect()
        files, tasks, things = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), _things()
        async with weather.serve() as url:
            api = PhygitalsClient(
                api_key="sandbox-soak",
                base_url=url,
                deadline=DEADLINE,
                attempt_timeout=ATTEMPT_TIMEOUT,
                max_in_flight=WORKERS * 2,
                retry=RetryPolicy(base=0.005),
                observer=self.books,
            )
            ends = time.monotonic() + self.seconds
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work(api, sandbox, ends))
            assert api._engine.admission.in_flight == 0
            # What stalled acts in the end.
            await asyncio.sleep(DEADLINE + 0.5)
            await self._reconcile(api, weather)
            await api.aclose()
        self._check(weather)
        await _no_leak(files, tasks, things)
        return {
            "calls": dict(sorted(self.calls.items())),
            "faults": dict(sorted(weather.faults.items())),
            "requests": weather.requests,
            "purchases": Counter(self.purchases.values()),
            "sellbacks": Counter(self.sellbacks.values()),
            "shipments": Counter(self.shipments.values()),
        }

    async def _work(self, api: PhygitalsClient, sandbox: Sandbox, ends: float) -> None:
        while time.monotonic() < ends:
            await self.rng.choice(
                [self._read, self._read, self._read, self._bulk, self._cancel, self._buy, self._sell, self._ship]
            )(api, sandbox)

    async def _call(self, name: str, call: Callable[[], Awaitable[Any]]) -> tuple[Any, PhygitalsError | None]:
        """Make a call and account for it. Only an error of the library may come out."""
        self.made += 1
        result, failure = None, None
        started = time.monotonic()
        try:
            result = await call()
        except PhygitalsError as error:
            failure = error
        if failure is not None:
            assert failure.operation == name, failure
            assert "sandbox-soak" not in repr(failure) + str(failure)
        took = time.monotonic() - started
        assert took < DEADLINE * 5, f"{name} took {took:.1f} s"
        self.calls[f"{name}: {type(failure).__name__ if failure else 'ok'}"] += 1
        return result, failure

    async def _read(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        user = f"user{self.rng.randrange(USERS + 2)}"
        item = f"item{self.rng.randrange(self._serial + 1)}"
        choices: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
            ("get_inventory", lambda: api.get_inventory(user)),
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
        await self._call(*self.rng.choice(choices))

    async def _bulk(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        users = [f"user{n}" for n in range(self.rng.randrange(USERS))]
        async with api.stream_inventories(users, limit=self.rng.randint(1, 8)) as outcomes:
            seen = []
            async for outcome in outcomes:
                seen.append(outcome.key)
                error = outcome.error if isinstance(outcome, Failed) else None
                self.made += 1
                self.calls[f"stream_inventories: {type(error).__name__ if error else 'ok'}"] += 1
        assert sorted(seen) == sorted(users)

    async def _cancel(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        self.made += 1
        task = asyncio.create_task(api.get_inventory("user0"))
        await asyncio.sleep(self.rng.random() / 100)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, PhygitalsError | asyncio.CancelledError), outcome
        self.calls[f"cancelled: {type(outcome).__name__}"] += 1

    async def _buy(self, api: PhygitalsClient, sandbox: Sandbox) -> None:
        pack = self.rng.choice([pack for pack in sandbox.packs if pack.purchasable])
        user = f"buyer{self._next()}"
        amount = self.rng.randint(1, pack.max_per_mint + 1)
        started, error = await self._call("start_purchase", lambda: api.start_purchase(pack.id, amount, user))
        self.purchases[user] = _fate(error)
        if started is not None:
            self.sessions = [*self.sessions[-50:], started.session_id]

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
        quote = quotes.cheapest.id
        order, error = await self._call("request_shipping", lambda: api.request_shipping(quote))
        self.shipments[quote] = _fate(error)
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

    async def _reconcile(self, api: PhygitalsClient, weather: Weather) -> None:
        """Find out about unknown outcomes as `OutcomeUnknown` says, and compare with what the server did."""
        for user, fate in self.purchases.items():
            if fate == "unknown":
                owned = await _insist(lambda user=user: api.get_inventory(user))  # type: ignore[misc]
                assert bool(owned) == bool(weather.bought[user]), user
        for item, fate in self.sellbacks.items():
            if fate == "unknown":
                owner = item.replace("item", "owner")
                owned = await _insist(lambda owner=owner: api.get_inventory(owner))  # type: ignore[misc]
                assert bool(owned) != bool(weather.sold[item]), item

    def _check(self, weather: Weather) -> None:
        assert sum(self.calls.values()) == self.made, "a call is not accounted for"
        assert self.books.begun == self.books.ended, "a call has begun and not ended"
        assert weather.requests <= self.books.attempts, "the server saw requests that nobody made"
        for fates, happened in (
            (self.purchases, weather.bought),
            (self.sellbacks, weather.sold),
            (self.shipments, weather.shipped),
        ):
            assert set(happened) - {key for key, times in happened.items() if not times} <= set(fates)
            for key, fate in fates.items():
                times = happened[key]
                assert times <= 1, f"{key} happened {times} times"
                assert fate != "done" or times == 1, f"{key} was reported and never happened"
                assert fate != "refused" or times == 0, f"{key} was refused and happened all the same"
            confirmed = sum(happened[key] for key, fate in fates.items() if fate == "unknown")
            assert happened.total() == Counter(fates.values())["done"] + confirmed


def _fate(error: PhygitalsError | None) -> Fate:
    if error is None:
        return "done"
    return "unknown" if isinstance(error, OutcomeUnknown) else "refused"


async def _insist(call: Callable[[], Awaitable[Any]]) -> tuple[Any, ...]:
    """Read an inventory through the bad weather; nobody's is empty."""
    for _ in range(50):
        try:
            items: tuple[Any, ...] = (await call()).items
        except UserNotFound:
            return ()
        except PhygitalsError:
            continue
        return items
    msg = "the weather is too bad even for fifty tries"
    raise AssertionError(msg)


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

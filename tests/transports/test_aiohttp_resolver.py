"""Looking names up: once for all who ask, in nobody's task but theirs, and anew when the host has moved."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from aiohttp_support import failure_of, get, opened, opened_with, sale, until
from phygitals_async import ConnectError
from phygitals_async.conformance.server import free_port
from phygitals_transports import GuardedConnector
from phygitals_transports.aiohttp_resolver import CachingResolver
from raw_server import answer, raw_server


class Directory(AbstractResolver):
    """A resolver that says what it is told to, when it is told to.

    Attributes:
        asked: What it was asked for.
        port: The port of its answers.
        failure: What it raises instead.
        gate: It answers while this is set.
    """

    def __init__(self, port: int = 1) -> None:
        self.asked: list[str] = []
        self.port = port
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer."""
        self.asked.append(host)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Fail: it is not closed by those who are given it."""
        raise AssertionError


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_answer_is_kept_for_its_time() -> None:
    """And by name, port and family."""
    directory, time = Directory(), Time()
    resolver = CachingResolver(directory, 10, clock=time)
    first = await resolver.resolve("a", 80)
    time.now += 9.9
    assert await resolver.resolve("a", 80) == first
    assert directory.asked == ["a"]
    time.now += 0.1
    await resolver.resolve("a", 80)
    await resolver.resolve("a", 81)
    await resolver.resolve("a", 81, socket.AF_INET6)
    assert directory.asked == ["a"] * 4
    await resolver.close()


@pytest.mark.asyncio
async def test_an_answer_can_be_kept_for_ever() -> None:
    """None means that, as in aiohttp."""
    directory, time = Directory(), Time()
    resolver = CachingResolver(directory, None, clock=time)
    await resolver.resolve("a")
    time.now += 1e9
    await resolver.resolve("a")
    assert directory.asked == ["a"]


@pytest.mark.asyncio
async def test_answers_are_forgotten() -> None:
    """Of one host, or all."""
    directory = Directory()
    resolver = CachingResolver(directory, 10)
    for host in ("a", "b"):
        await resolver.resolve(host)
    resolver.forget("a")
    for host in ("a", "b"):
        await resolver.resolve(host)
    assert directory.asked == ["a", "b", "a"]
    resolver.forget()
    for host in ("a", "b"):
        await resolver.resolve(host)
    assert directory.asked == ["a", "b", "a", "a", "b"]


@pytest.mark.asyncio
async def test_names_that_are_over_take_no_memory() -> None:
    """A crawler asks for a new one each time."""
    directory, time = Directory(), Time()
    resolver = CachingResolver(directory, 10, clock=time)
    for number in range(100):
        time.now += 1
        await resolver.resolve(f"host{number}")
    assert len(resolver._names) <= 11


@pytest.mark.asyncio
async def test_many_ask_and_one_lookup_answers() -> None:
    """Whoever comes while it runs waits for it."""
    directory = Directory()
    directory.gate.clear()
    resolver = CachingResolver(directory, 10)
    tasks = [asyncio.create_task(resolver.resolve("a")) for _ in range(10)]
    await until(lambda: directory.asked)
    directory.gate.set()
    assert len({str(await task) for task in tasks}) == 1
    assert directory.asked == ["a"]


@pytest.mark.asyncio
async def test_a_lookup_under_way_is_not_forgotten_for_another() -> None:
    """Only what is over makes room."""
    directory = Directory()
    directory.gate.clear()
    resolver = CachingResolver(directory, 10)
    tasks = [asyncio.create_task(resolver.resolve(host)) for host in ("a", "b", "a")]
    await until(lambda: len(directory.asked) >= 2)
    directory.gate.set()
    await asyncio.gather(*tasks)
    assert directory.asked == ["a", "b"]


@pytest.mark.asyncio
async def test_the_next_takes_over_from_one_that_is_cancelled() -> None:
    """Its lookup ends with it, and no task is left."""
    directory = Directory()
    directory.gate.clear()
    resolver = CachingResolver(directory, 10)
    before = asyncio.all_tasks()
    tasks = [asyncio.create_task(resolver.resolve("a")) for _ in range(4)]
    await until(lambda: directory.asked)
    # One that waits, then the one that looks it up.
    for cancelled in (tasks[1], tasks[0]):
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await until(lambda: len(directory.asked) == 2)
    assert asyncio.all_tasks() - before == {tasks[2], tasks[3]}
    directory.gate.set()
    assert await tasks[2] == await tasks[3]
    assert directory.asked == ["a", "a"]


@pytest.mark.asyncio
async def test_a_failure_is_told_to_those_who_wait_and_not_kept() -> None:
    """Else they would fail one after the other, each at its own cost."""
    directory = Directory()
    directory.failure = socket.gaierror(-2, "Name or service not known")
    directory.gate.clear()
    resolver = CachingResolver(directory, 10)
    tasks = [asyncio.create_task(resolver.resolve("a")) for _ in range(5)]
    await until(lambda: directory.asked)
    directory.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes == [directory.failure] * 5
    assert directory.asked == ["a"]
    directory.failure = None
    assert await resolver.resolve("a")
    assert directory.asked == ["a", "a"]


@pytest.mark.asyncio
async def test_who_comes_after_a_failure_asks_again() -> None:
    """Even while others still wait to be told of it."""
    directory = Directory()
    directory.failure = socket.gaierror(-2, "Name or service not known")
    directory.gate.clear()
    resolver = CachingResolver(directory, 10)
    first, *others = (asyncio.create_task(resolver.resolve("a")) for _ in range(4))
    late: list[asyncio.Task[Any]] = []

    def come(_: object) -> None:
        directory.failure = None
        late.append(asyncio.create_task(resolver.resolve("a")))

    first.add_done_callback(come)
    await until(lambda: directory.asked)
    directory.gate.set()
    await asyncio.gather(first, *others, return_exceptions=True)
    assert await late[0]
    assert directory.asked == ["a", "a"]


@pytest.mark.asyncio
async def test_a_failure_is_not_held_on_to() -> None:
    """Its frames hold the request."""

    class Failure(OSError):
        """One that can be referred to weakly."""

    directory = Directory()
    directory.failure = Failure()
    resolver = CachingResolver(directory, 10)
    held = weakref.ref(directory.failure)
    with pytest.raises(OSError, match=r"^$"):
        await resolver.resolve("a")
    directory.failure = None
    gc.collect()
    assert held() is None


# --- in the connector -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_name_is_looked_up_once_for_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default in a thread, never by aiodns."""
    looked_up: list[Any] = []
    lookup = socket.getaddrinfo

    def counting(host: Any, *rest: Any, **more: Any) -> Any:
        looked_up.append(host)
        return lookup("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    monkeypatch.setattr(aiohttp.resolver, "DefaultResolver", None)
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", None)
    async with raw_server(answer(200, b"ok")) as server, opened() as transport:
        url = f"http://partner.invalid:{server.port}/x"
        sends = [transport.send(sale(url)) for _ in range(5)] + [transport.send(get(url)) for _ in range(5)]
        assert [response.body for response in await asyncio.gather(*sends)] == [b"ok"] * 10
        assert server.connections == 10
        assert looked_up.count("partner.invalid") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [get, sale])
async def test_a_host_that_has_moved_is_found_by_the_next_call(make: Any) -> None:
    """An address to which no connection could be made is not tried again."""
    directory = Directory()
    async with raw_server(answer(200, b"ok")) as server, opened_with(connector={"resolver": directory}) as transport:
        directory.port = free_port()
        assert type(await failure_of(transport, make("http://partner.invalid/x"))) is ConnectError
        directory.port = server.port
        assert (await transport.send(make("http://partner.invalid/x"))).body == b"ok"
        assert len(directory.asked) == 2


@pytest.mark.asyncio
async def test_a_proxy_that_has_moved_is_found_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the proxy's name that was looked up."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    directory = Directory()
    async with (
        raw_server(answer(200, b"ok")) as server,
        opened_with(connector={"resolver": directory}, trust_env=True) as transport,
    ):
        directory.port = free_port()
        assert type(await failure_of(transport, get("http://partner.invalid/x"))) is ConnectError
        directory.port = server.port
        assert (await transport.send(get("http://partner.invalid/x"))).body == b"ok"
        assert directory.asked == ["proxy.invalid"] * 2


@pytest.mark.asyncio
async def test_a_call_that_is_cancelled_while_connecting_drops_the_address() -> None:
    """An address that swallows packets ends calls by their deadlines."""
    directory = Directory()
    connecting = asyncio.Event()

    def make(info: Any) -> socket.socket:
        connecting.set()
        return socket.socket(*info[:3])

    async with raw_server() as dead, raw_server(answer(200, b"ok")) as server:
        directory.port = dead.port
        # It speaks no TLS, and waits for more.
        settings = {"resolver": directory, "socket_factory": make}
        async with opened_with(connector=settings) as transport:
            sending = asyncio.create_task(transport.send(get("https://partner.invalid/x")))
            await connecting.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            directory.port = server.port
            assert (await transport.send(get("http://partner.invalid:443/x"))).body == b"ok"
            assert len(directory.asked) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("settings", "lookups"),
    [({}, 1), ({"ttl_dns_cache": None}, 1), ({"ttl_dns_cache": 0}, 3), ({"use_dns_cache": False}, 3)],
)
async def test_the_cache_is_set_as_in_aiohttp(settings: dict[str, Any], lookups: int) -> None:
    """Those who bring their own resolver may have a cache of their own."""
    async with raw_server(answer(200, b"ok")) as server:
        directory = Directory(server.port)
        async with opened_with(connector={"resolver": directory, **settings}) as transport:
            for _ in range(3):
                await transport.send(sale("http://partner.invalid/x"))
            assert len(directory.asked) == lookups
            directory.port = free_port()
            await failure_of(transport, sale("http://other.invalid/x"))


def test_what_is_not_said_is_as_in_aiohttp() -> None:
    """What is found is kept for ten seconds, say."""

    def defaults(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters
        return {name: parameters[name].default for name in parameters if name not in ("self", "resolver", "clock")}

    ours = {name: value for name, value in defaults(GuardedConnector).items() if name != "settings"}
    assert ours == {"use_dns_cache": True, "ttl_dns_cache": 10}
    assert ours.items() <= defaults(aiohttp.TCPConnector).items()
    assert defaults(CachingResolver.resolve) == defaults(AbstractResolver.resolve)


@pytest.mark.asyncio
@pytest.mark.parametrize("use_dns_cache", [True, False])
async def test_the_cache_is_cleared_as_in_aiohttp(use_dns_cache: bool) -> None:
    """`clear_dns_cache` is aiohttp's."""
    directory = Directory()
    connector = GuardedConnector(resolver=directory, use_dns_cache=use_dns_cache)
    connector.clear_dns_cache("partner.invalid", 80)
    await connector.close()
    async with raw_server(answer(200, b"ok")) as server:
        directory = Directory(server.port)
        async with opened_with(connector={"resolver": directory, "use_dns_cache": use_dns_cache}) as transport:
            await transport.send(sale("http://partner.invalid/x"))
            assert transport._connector is not None
            transport._connector.clear_dns_cache()
            await transport.send(sale("http://partner.invalid/x"))
            assert len(directory.asked) == 2

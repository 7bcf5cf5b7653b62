"""The rules that an engine may be unable to keep; then its class says so, and the documents with it."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import frozen

from phygitals_async import Request, Transport
from phygitals_async.conformance.certificates import AUTHORITY, Kind, server_tls
from phygitals_async.conformance.contract import LONGEST_WAIT
from phygitals_async.conformance.exchanges import attempt, read, sale, silent, until
from phygitals_async.conformance.faults import LOST, MAX_BODY, UNSENT, on_connect, reply
from phygitals_async.conformance.peers import Peer
from phygitals_async.conformance.server import FaultServer, Script, fault_server, full_backlog, http


class Rule(enum.Enum):
    """What a transport should do, and is safe without."""

    NEVER_SENT = "says *never sent* of every failure to connect"
    TARGETS = "sends any request target byte for byte"
    HEADER_NAMES = "sends header names as they are spelt"
    HEADER_SIZES = "refuses enormous headers"
    HANGS_UP = "ends the connection of a request that is cancelled or closed under way"


@frozen(kw_only=True)
class Settings:
    """What a transport is made with.

    Attributes:
        max_body: The most bytes of a decoded body.
        connect_timeout: Seconds for one connection to be made.
        authority: A certificate in PEM to trust in TLS, as the only one or besides others; None for the usual ones.
    """

    max_body: int = MAX_BODY
    connect_timeout: float = 10.0
    authority: str | None = None


Opener = Callable[[Settings], AbstractAsyncContextManager[Transport]]
# A server, and the address at which a request finds it, or does not.
Place = Callable[[], AbstractAsyncContextManager[tuple[FaultServer, str]]]


@asynccontextmanager
async def _nothing_listens() -> AsyncGenerator[tuple[FaultServer, str]]:
    async with fault_server() as server:
        await server.stop_listening()
        yield server, server.url


@asynccontextmanager
async def _no_such_name() -> AsyncGenerator[tuple[FaultServer, str]]:
    async with fault_server() as server:
        yield server, "http://nowhere.invalid"


@asynccontextmanager
async def _nobody_accepts() -> AsyncGenerator[tuple[FaultServer, str]]:
    async with fault_server() as server:
        with full_backlog() as listener:
            yield server, f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def _certificate(kind: Kind) -> AsyncGenerator[tuple[FaultServer, str]]:
    async with fault_server(tls=server_tls(kind)) as server:
        yield server, f"https://127.0.0.1:{server.port}"


@asynccontextmanager
async def _handshake(script: Script) -> AsyncGenerator[tuple[FaultServer, str]]:
    async with fault_server() as server:
        await server.turn(script)
        yield server, f"https://127.0.0.1:{server.port}"


async def _ignore(_: Peer) -> None:
    await anyio.sleep_forever()


UNREACHABLE: Final[Mapping[str, Place]] = {
    "refused": _nothing_listens,
    "unknown name": _no_such_name,
    "stalls": _nobody_accepts,
    "certificate expired": partial(_certificate, "expired"),
    "certificate of another name": partial(_certificate, "wrong name"),
    "certificate of an unknown authority": partial(_certificate, "untrusted"),
    "no TLS": partial(_handshake, on_connect(b"HTTP/1.1 400 Bad Request\r\n\r\n", "close")),
    "closed in the TLS handshake": partial(_handshake, on_connect(b"", "close")),
    "reset in the TLS handshake": partial(_handshake, on_connect(b"", "reset")),
    "silent in the TLS handshake": partial(_handshake, Script(on_connect=_ignore)),
}


async def unreached(opened: Opener, place: Place, request_to: Callable[[str], Request]) -> str:
    """Send a request where no connection can be made, and return what came of it."""
    settings = Settings(connect_timeout=0.05, authority=AUTHORITY)
    async with place() as (server, url), opened(settings) as transport:
        outcome = await attempt(transport, request_to(url))
        assert not server.received, "a request arrived"
    return outcome


async def _never_sent(opened: Opener) -> None:
    for name, place in UNREACHABLE.items():
        for request_to in (read, sale):
            outcome = await unreached(opened, place, request_to)
            assert outcome == UNSENT, f"{name}: {outcome}"


async def _targets(opened: Opener) -> None:
    targets = ["/_/a/./b/../c", "/_/a/%2e/b/%2E%2E/c", "/_/%7Euser/~user/%41", "/_/a'b(c)*!$&,;=:@|", "/_/x?a='\"<>"]
    async with fault_server() as server, opened(Settings()) as transport:
        for target in targets:
            await attempt(transport, Request("GET", server.url + target, {}))
        assert [received.target for received in server.received] == targets


async def _header_names(opened: Opener) -> None:
    names: list[bytes] = []

    async def note(peer: Peer) -> None:
        head = await peer.read_head()
        names.extend(line.partition(b":")[0] for line in head.split(b"\r\n"))

    async with fault_server() as server, opened(Settings()) as transport:
        await server.turn(Script(on_connect=note))
        request = Request("GET", f"{server.url}/", {"X-API-Key": "k", "x-lower": "l"})
        await attempt(transport, request, begun=lambda: bool(names))
    assert {b"X-API-Key", b"x-lower"} <= set(names), names


async def _header_sizes(opened: Opener) -> None:
    for headers in (b"X-Huge: " + b"a" * 1_000_000 + b"\r\n", b"X-Many: a\r\n" * 20_000):
        async with fault_server() as server, opened(Settings()) as transport:
            await server.turn(reply(http(headers=headers)))
            outcome = await attempt(transport, read(server.url))
            assert outcome == LOST, f"{len(headers)} bytes of headers: {outcome}"


async def _hangs_up(opened: Opener) -> None:
    # What goes on ends by this at last.
    settings = Settings(connect_timeout=3 * LONGEST_WAIT)
    for scheme in ("http", "https"):
        for make in (read, sale):
            for end in ("cancelled", "closed"):
                async with fault_server() as server, opened(settings) as transport:
                    arrived = anyio.Event()
                    await server.turn(silent(arrived))
                    with anyio.move_on_after(LONGEST_WAIT) as longest:
                        async with anyio.create_task_group() as group:
                            group.start_soon(attempt, transport, make(f"{scheme}://127.0.0.1:{server.port}"))
                            await arrived.wait()
                            await (transport.aclose() if end == "closed" else _cancel(group))
                    assert not longest.cancelled_caught, f"{end}, {scheme}: the request goes on"
                    with anyio.move_on_after(1):
                        await until(lambda: not server.peers)
                    assert not server.peers, f"{end}, {scheme}: the connection goes on"


async def _cancel(group: TaskGroup) -> None:
    group.cancel_scope.cancel()


CHECKS: Final[Mapping[Rule, Callable[[Opener], Awaitable[None]]]] = {
    Rule.NEVER_SENT: _never_sent,
    Rule.TARGETS: _targets,
    Rule.HEADER_NAMES: _header_names,
    Rule.HEADER_SIZES: _header_sizes,
    Rule.HANGS_UP: _hangs_up,
}

"""The faults, as data: what goes wrong, how it is brought about, and what may come of it."""

from __future__ import annotations

import json
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from unittest import mock

import aiohttp
import anyio
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import define, frozen

from phygitals_async import ConnectError, ConnectionLost, ProtocolError, Request, Response, ResponseTooLarge
from phygitals_async.conformance.faults import MAX_BODY, WIRE_FAULTS, End, Wire, on_connect, reply
from phygitals_async.conformance.peers import Host, Peer, Received
from phygitals_async.conformance.server import FaultServer, Script, full_backlog, http
from phygitals_transports import AiohttpTransport, GuardedConnector
from phygitals_transports.memory import Handler

KEY: Final = "sandbox-canary-5e3b0c7d91aa4f62"
_MEGABYTE: Final = 1024 * 1024

OK: Final = "ok"
_JSON: Final = b"Content-Type: application/json\r\n"
_HTML: Final = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Error</h1></body></html>"


@define
class Site:
    """Where a client finds, or does not find, the server.

    Attributes:
        base_url: The client's base URL.
        transport: The client's transport.
        heal: Puts right what the setting itself does wrong, besides listening and answering well; None where that
            cannot be done.
        around: Is entered around the call under the fault.
    """

    base_url: str
    transport: AiohttpTransport
    heal: Callable[[], Awaitable[None]] | None
    around: Callable[[], AbstractContextManager[None]] = nullcontext


Setting = Callable[[FaultServer], AbstractAsyncContextManager[Site]]


async def _nothing() -> None:
    """Heal what needs no healing."""


def _transport(session: aiohttp.ClientSession | None = None, **options: Any) -> AiohttpTransport:
    return AiohttpTransport(session, max_body=MAX_BODY, **{"connect_timeout": 5.0, **options})


@asynccontextmanager
async def plain(server: FaultServer) -> AsyncIterator[Site]:
    """Address the server as it is."""
    yield Site(server.url, _transport(), _nothing)


@frozen(kw_only=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: What, in a few words.
        family: Of which kind.
        expects: The outcomes that are right: names of error classes (for a call that moves money or goods, also of
            the error behind an `OutcomeUnknown`), and `ok` for a result.
        script: How it is brought about on a socket, or None where it cannot be.
        setting: Where the client looks for the server.
        memory: How it is brought about in memory, given the body of a good answer; None where it cannot be.
        warm: Whether a good call first leaves a kept-alive connection behind.
        exact: Whether a result must be that of the good answer.
        unasked: Whether the server answers without reading the request.
        requests: The most requests the server may see, where that is fewer than attempts allow.
        retries: The client's retries.
        connects: Whether a connection comes to be; if not, whatever comes of it was never sent.
        alone: Whether it touches the whole process, so that its calls must be made one by one.
    """

    name: str
    family: str
    expects: frozenset[str]
    script: Script | None = None
    setting: Setting = plain
    memory: Callable[[bytes], Handler] | None = None
    warm: bool = False
    exact: bool = True
    unasked: bool = False
    requests: int | None = None
    retries: int = 1
    connects: bool = True
    alone: bool = False


def _reply(data: Wire, end: End = "close") -> Script:
    """Return the script that answers with `data`, the server's ports in their places."""

    async def on_request(peer: Peer, request: Received) -> None:
        built = data if isinstance(data, bytes) else data(peer.server.good)
        await reply(_addressed(built, peer.server), end).on_request(peer, request)

    return Script(on_request=on_request)


def _addressed(data: bytes, server: Host) -> bytes:
    """Put the server's ports in their places."""
    return data.replace(b"<port>", b"%d" % server.port).replace(b"<other port>", b"%d" % server.other_port)


def _wire(name: str, family: str, data: Wire, *expects: str, end: End = "close", **options: Any) -> Fault:
    """Return a fault of the bytes on the wire, which only a socket can show."""
    return Fault(name=name, family=family, expects=frozenset(expects), script=_reply(data, end), **options)


def _scripted(name: str, family: str, script: Script, *expects: str, **options: Any) -> Fault:
    return Fault(name=name, family=family, expects=frozenset(expects), script=script, **options)


_WIRE: Final = {fault.name: (family, fault) for family, faults in WIRE_FAULTS.items() for fault in faults}


def _of_the_wire(name: str, *expects: str, **options: Any) -> Fault:
    """Return a fault that every transport is put under, with what the client makes of it."""
    family, fault = _WIRE[name]
    return _scripted(name, family, fault.script, *expects, warm=fault.warm, **options)


def _says(
    name: str,
    family: str,
    body: Wire,
    *expects: str,
    status: str = "200 OK",
    headers: bytes = _JSON,
    **options: Any,
) -> Fault:
    """Return a fault of an answer that is well-formed HTTP, on a socket and in memory."""

    def build(good: bytes) -> bytes:
        return body if isinstance(body, bytes) else body(good)

    def memory(good: bytes) -> Handler:
        lines = [line.partition(b":") for line in headers.split(b"\r\n") if line]
        plain_headers = {n.decode("latin-1").lower(): v.strip().decode("latin-1") for n, _, v in lines}
        return lambda _: Response(int(status[:3]), plain_headers, build(good))

    def data(good: bytes) -> bytes:
        return http(build(good), status=status, kind=b"", headers=headers)

    return Fault(
        name=name, family=family, expects=frozenset(expects), script=_reply(data, "keep"), memory=memory, **options
    )


def _raises(name: str, failure: Callable[[], Exception], *expects: str) -> Fault:
    """Return a fault of the engine, raised by a handler in memory."""

    def memory(_: bytes) -> Handler:
        def handler(_: Request) -> Response:
            raise failure()

        return handler

    return Fault(name=name, family="engine", expects=frozenset(expects), memory=memory)


# --- Reaching the server ---------------------------------------------------------------------------------------------


class _Resolver(AbstractResolver):
    """Knows no name until told to."""

    def __init__(self) -> None:
        self.knows = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve every name to this machine."""
        if not self.knows:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        one: ResolveResult = {
            "hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0,
        }  # fmt: skip
        return [one]

    async def close(self) -> None:
        """Close nothing."""


@asynccontextmanager
async def unknown_name(_: FaultServer) -> AsyncIterator[Site]:
    """Address a name that the system's resolver does not know, and never will."""
    yield Site("https://nowhere.invalid", _transport(), None)


@asynccontextmanager
async def failing_resolver(server: FaultServer) -> AsyncIterator[Site]:
    """Address a name that cannot be resolved for a while."""
    resolver = _Resolver()
    connector = GuardedConnector(limit=0, resolver=resolver, use_dns_cache=False)

    async def heal() -> None:
        resolver.knows = True

    async with aiohttp.ClientSession(connector=connector) as session:
        yield Site(f"http://localhost:{server.port}", _transport(session), heal)


@asynccontextmanager
async def refused(server: FaultServer) -> AsyncIterator[Site]:
    """Address a port on which nothing listens for a while."""
    await server.stop_listening()
    yield Site(server.url, _transport(), _nothing)


def nobody_accepts(connect_timeout: float) -> Setting:
    """Return the setting of a port whose queue of connections is full: packets to it are dropped."""

    @asynccontextmanager
    async def setting(server: FaultServer) -> AsyncIterator[Site]:
        with full_backlog() as listener:

            async def heal() -> None:
                await server.stop_listening()
                await server.listen(sock=listener.dup())

            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Site(url, _transport(connect_timeout=connect_timeout), heal)

    return setting


# --- TLS -------------------------------------------------------------------------------------------------------------


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _server_tls(kind: str) -> ssl.SSLContext:
    authority = trustme.CA() if kind == "untrusted" else _authority()
    if kind == "expired":
        certificate = authority.issue_cert(
            "127.0.0.1", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 1, 2, tzinfo=UTC)
        )
    else:
        certificate = authority.issue_cert("other.example" if kind == "wrong name" else "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@cache
def _client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context


def tls(kind: str | None, *, connect_timeout: float = 5.0) -> Setting:
    """Return the setting of an https client and a server with a certificate of some kind; None means no TLS at all.

    Healed, the server has a certificate that fits.
    """

    @asynccontextmanager
    async def setting(server: FaultServer) -> AsyncIterator[Site]:
        async def serve(with_kind: str | None) -> None:
            await server.stop_listening()
            await server.listen(None if with_kind is None else _server_tls(with_kind))

        async def heal() -> None:
            await serve("good")

        await serve(kind)
        connector = GuardedConnector(limit=0, ssl=_client_tls())
        async with aiohttp.ClientSession(connector=connector) as session:
            transport = _transport(session, connect_timeout=connect_timeout)
            yield Site(f"https://127.0.0.1:{server.port}", transport, heal)

    return setting


@asynccontextmanager
async def plain_to_tls(server: FaultServer) -> AsyncIterator[Site]:
    """Speak plain http to a port that expects TLS."""
    await server.stop_listening()
    await server.listen(_server_tls("good"))

    async def heal() -> None:
        await server.stop_listening()
        await server.listen()

    yield Site(server.url, _transport(), heal)


# --- Proxies and descriptors -----------------------------------------------------------------------------------------


def proxy(scheme: str, *, listens: bool = True) -> Setting:
    """Return the setting of a session whose proxy is the server, for a target of some scheme."""

    @asynccontextmanager
    async def setting(server: FaultServer) -> AsyncIterator[Site]:
        if not listens:
            await server.stop_listening()
        connector = GuardedConnector(limit=0, ssl=_client_tls())

        async def heal() -> None:
            await server.turn(Script(on_request=_tunnel))

        async with aiohttp.ClientSession(connector=connector, proxy=server.url) as session:
            yield Site(f"{scheme}://127.0.0.1:9", _transport(session), heal)

    return setting


async def _tunnel(peer: Peer, request: Received) -> None:
    """Be a proxy and, inside the tunnel, the server behind it, too."""
    if request.method == "CONNECT":
        await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        await peer.start_tls(_server_tls("good"))
    else:
        await peer.send(http(peer.server.good))


@asynccontextmanager
async def proxy_of_the_environment(server: FaultServer) -> AsyncIterator[Site]:
    """Take the proxy, on which nothing listens, from the environment."""
    await server.stop_listening()
    variables = {"HTTP_PROXY": server.url, "http_proxy": server.url, "NO_PROXY": "", "no_proxy": ""}
    with mock.patch.dict(os.environ, variables):
        yield Site("http://127.0.0.1:9", _transport(trust_env=True), _nothing)


# --- Names and other ports -------------------------------------------------------------------------------------------


@asynccontextmanager
async def by_name(server: FaultServer) -> AsyncIterator[Site]:
    """Address the server by a host name: no cookie jar keeps what comes from a bare address."""
    yield Site(f"http://localhost:{server.port}", _transport(), _nothing)


def crossroads(setting: Setting = plain) -> Setting:
    """Return a setting whose server listens on another port, too, and counts who comes there."""

    @asynccontextmanager
    async def elsewhere(server: FaultServer) -> AsyncIterator[Site]:
        async with server.listen_elsewhere(), setting(server) as site:
            yield site

    return elsewhere


@asynccontextmanager
async def no_descriptors(server: FaultServer) -> AsyncIterator[Site]:
    """Let the process have no descriptor more than it has."""

    @contextmanager
    def around() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    yield Site(server.url, _transport(), _nothing, around)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


_CONNECTING: Final = (
    Fault(
        name="unknown host", family="connecting", setting=unknown_name,
        expects=frozenset({"ConnectError", "DeadlineExceeded"}), script=Script(), connects=False,
    ),
    Fault(
        name="resolver fails", family="connecting", setting=failing_resolver,
        expects=frozenset({"ConnectError"}), script=Script(),
    ),
    Fault(
        name="refused", family="connecting", setting=refused, expects=frozenset({"ConnectError"}), script=Script(),
    ),
    Fault(
        name="connect stalls, short connect timeout", family="connecting", setting=nobody_accepts(0.5),
        expects=frozenset({"ConnectError"}), script=Script(),
    ),
    Fault(
        name="connect stalls, long connect timeout", family="connecting", setting=nobody_accepts(60),
        expects=frozenset({"DeadlineExceeded"}), script=Script(), connects=False,
    ),
    Fault(
        name="descriptors exhausted", family="connecting", setting=no_descriptors,
        expects=frozenset({"ConnectError"}), script=Script(), alone=True,
    ),
)  # fmt: skip

_TLS: Final = (
    _scripted("certificate of another name", "tls", Script(), "CertificateRefused", setting=tls("wrong name")),
    _scripted("certificate expired", "tls", Script(), "CertificateRefused", setting=tls("expired")),
    _scripted("certificate of an unknown authority", "tls", Script(), "CertificateRefused", setting=tls("untrusted")),
    _scripted("TLS stalls, short connect timeout", "tls", on_connect(b"", "silence"), "ConnectError",
              setting=tls(None, connect_timeout=0.5)),
    _scripted("TLS stalls, long connect timeout", "tls", on_connect(b"", "silence"), "DeadlineExceeded",
              setting=tls(None), connects=False),
    _scripted("TLS to a plain port", "tls", on_connect(b"HTTP/1.1 400 Bad Request\r\n\r\n", "close"), "ConnectError",
              setting=tls(None)),
    _scripted("closed in the TLS handshake", "tls", on_connect(b"", "close"), "ConnectError", "ConnectionLost",
              setting=tls(None)),
    _scripted("reset in the TLS handshake", "tls", on_connect(b"", "reset"), "ConnectError", "ConnectionLost",
              setting=tls(None)),
    _scripted("plain http to a TLS port", "tls", Script(), "ConnectionLost", "ProtocolError", setting=plain_to_tls),
    _wire("closed under TLS", "tls", b"", "ConnectionLost", setting=tls("good")),
    _wire("reset in a body under TLS", "tls", lambda good: http(good)[:-5], "ConnectionLost", end="reset",
          setting=tls("good")),
)  # fmt: skip

_PROXIES: Final = (
    _wire("proxy answers 403", "proxy", http(_HTML, status="403 Forbidden"), "PermissionDenied", end="keep",
          setting=proxy("http")),
    _wire("proxy answers 407", "proxy", http(_HTML, status="407 Proxy Authentication Required"), "BadRequest",
          end="keep", setting=proxy("http")),
    _wire("proxy refuses the tunnel", "proxy", http(_HTML, status="403 Forbidden"), "ConnectError",
          setting=proxy("https")),
    _wire("proxy wants a password for the tunnel", "proxy", http(status="407 No"), "ConnectError",
          setting=proxy("https")),
    _wire("proxy closes the tunnel", "proxy", b"", "ConnectError", "ConnectionLost", setting=proxy("https")),
    _wire("proxy talks nonsense", "proxy", b"What?\r\n\r\n", "ConnectError", "ProtocolError", setting=proxy("https")),
    _wire("proxy stalls", "proxy", b"", "DeadlineExceeded", end="silence", setting=proxy("https"), connects=False),
    _scripted("proxy not there", "proxy", Script(), "ConnectError", setting=proxy("http", listens=False)),
    _scripted("proxy not there, tunnel", "proxy", Script(), "ConnectError", setting=proxy("https", listens=False)),
    _scripted("proxy of the environment not there", "proxy", Script(), "ConnectError",
              setting=proxy_of_the_environment, alone=True),
)  # fmt: skip

_BREAKING: Final = (
    _of_the_wire("closed on accept", "ConnectionLost"),
    _of_the_wire("reset on accept", "ConnectionLost"),
    _of_the_wire("silent on accept", "DeadlineExceeded"),
    _of_the_wire("closed before any byte", "ConnectionLost"),
    _of_the_wire("reset before any byte", "ConnectionLost"),
    _of_the_wire("silent after the request", "DeadlineExceeded"),
    _of_the_wire("closed in the status line", "ConnectionLost", "ProtocolError"),
    _of_the_wire("closed in the headers", "ConnectionLost", "ProtocolError"),
    _of_the_wire("reset in the headers", "ConnectionLost", "ProtocolError"),
    _of_the_wire("silent in the headers", "DeadlineExceeded"),
    _of_the_wire("closed before the body", "ConnectionLost"),
    _of_the_wire("reset before the body", "ConnectionLost"),
    _of_the_wire("closed in the body", "ConnectionLost"),
    _of_the_wire("reset in the body", "ConnectionLost"),
    _of_the_wire("silent in the body", "DeadlineExceeded"),
    _of_the_wire("closed in a refusal", "ConnectionLost"),
    _of_the_wire("head dripped", "DeadlineExceeded"),
    _of_the_wire("body dripped", "DeadlineExceeded"),
    _of_the_wire("chunks dripped", "DeadlineExceeded"),
    _of_the_wire("idle connection closed", OK, "ConnectionLost"),
    _of_the_wire("idle connection reset", OK, "ConnectionLost"),
    _of_the_wire("kept-alive connection takes the request and closes", OK, "ConnectionLost"),
    _of_the_wire("takes the request and is gone", "ConnectionLost", retries=0),
    _of_the_wire("kept-alive connection takes the request and is gone", "ConnectionLost", retries=0),
    _scripted("takes the request and is gone, repeated", "breaking", _WIRE["takes the request and is gone"][1].script,
              "ConnectError", "ConnectionLost"),
    _of_the_wire("an answer nobody asked for", OK, "ConnectionLost", "ProtocolError"),
)  # fmt: skip

_FRAMING: Final = (
    _of_the_wire("length too short", "ProtocolError", "DecodeError"),
    _of_the_wire("length too long", "ConnectionLost"),
    _of_the_wire("length too long, kept open", "DeadlineExceeded"),
    _of_the_wire("length zero", "ProtocolError", "DecodeError"),
    _of_the_wire("length negative", "ProtocolError"),
    _of_the_wire("length beyond every integer", "ProtocolError"),
    _of_the_wire("length no number", "ProtocolError"),
    _of_the_wire("two different lengths", "ProtocolError"),
    _of_the_wire("length and chunks", OK, "ProtocolError"),
    _of_the_wire("chunk size no number", "ConnectionLost", "ProtocolError"),
    _of_the_wire("chunk size beyond every integer", "ConnectionLost", "ProtocolError"),
    _of_the_wire("chunk size no number, later", "ConnectionLost", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("chunk without its end, later", "ConnectionLost", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("chunks without the last", "ConnectionLost"),
    _of_the_wire("trailers", OK),
    _of_the_wire("transfer encoding unknown", OK, "ConnectionLost", "ProtocolError"),
    _of_the_wire("body ended by the close", OK),
    _of_the_wire("body ended by the close, cut", "DecodeError"),
    _of_the_wire("body ended by a reset", "ConnectionLost", "DecodeError"),
    _of_the_wire("HTTP/1.0", OK),
    _of_the_wire("answered twice", OK),
    _of_the_wire("answers before it is asked", "ConnectionLost", "ProtocolError", "ServerError", unasked=True),
    _of_the_wire("gzip", OK),
    _of_the_wire("gzip cut", "ConnectionLost", "ProtocolError", "DecodeError"),
    _of_the_wire("gzip without its checksum", OK, "ConnectionLost", "ProtocolError", "DecodeError"),
    _of_the_wire("gzip that is none", "ConnectionLost", "ProtocolError"),
    _of_the_wire("gzip twice", OK, "DecodeError"),
    _of_the_wire("unknown encoding", OK, "DecodeError"),
    _of_the_wire("brotli unasked", OK, "ConnectionLost", "ProtocolError", "DecodeError"),
)  # fmt: skip

_LARGE: Final = (
    _of_the_wire("a body over the cap", "ResponseTooLarge"),
    _of_the_wire("an endless body", "ResponseTooLarge"),
    _of_the_wire("endless chunks", "ResponseTooLarge"),
    _of_the_wire("a gzip bomb", "ResponseTooLarge"),
    _of_the_wire("a deflate bomb", "ResponseTooLarge"),
    _of_the_wire("a gzip bomb in chunks", "ResponseTooLarge"),
    _of_the_wire("a huge header", "ProtocolError"),
    # The promise is 128 headers; two of them are those of every answer.
    _wire("128 headers", "large", lambda good: http(good, headers=b"X-Many: a\r\n" * 126), OK, end="keep"),
    _wire("129 headers", "large", lambda good: http(good, headers=b"X-Many: a\r\n" * 127), "ProtocolError"),
    _of_the_wire("20,000 headers", "ProtocolError"),
    _of_the_wire("endless headers", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("an endless header", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("an endless status line", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("an endless chunk extension", "ConnectionLost", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("endless trailers", "ConnectionLost", "ProtocolError", "DeadlineExceeded", "DecodeError"),
    _of_the_wire("60 headers", OK),
)  # fmt: skip

_STATUS_LINES: Final = (
    _of_the_wire("garbage", "ProtocolError"),
    _of_the_wire("status 20x", "ProtocolError"),
    _of_the_wire("status of four digits", "ProtocolError"),
    _of_the_wire("status of two digits", "ProtocolError"),
    _of_the_wire("status negative", "ProtocolError"),
    _of_the_wire("status missing", "ProtocolError"),
    _of_the_wire("HTTP/9.9", "ProtocolError", "DecodeError"),
    _of_the_wire("another protocol", "ProtocolError"),
    _of_the_wire("HTTP/2 preface", "ProtocolError"),
    _of_the_wire("NUL in a header", "ProtocolError"),
    _of_the_wire("a header without a colon", "ProtocolError"),
    _of_the_wire("a header without a name", "ProtocolError"),
    _of_the_wire("status 000", "ProtocolError", "StatusError"),
    _of_the_wire("status 600", "StatusError"),
    _of_the_wire("status 999", "StatusError"),
    _of_the_wire("a reason that is not ASCII", OK, "ProtocolError"),
    _of_the_wire("a header that is not ASCII", OK, "ProtocolError"),
    _of_the_wire("a flood of 100", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("a flood of 103", "ProtocolError", "DeadlineExceeded"),
    _of_the_wire("a hundred of 102, then the answer", OK),
    _of_the_wire("101 unasked", "ConnectionLost", "ProtocolError", "DeadlineExceeded", "StatusError"),
)  # fmt: skip

_TARGETS: Final[Mapping[str, bytes]] = {
    "the same origin": b"Location: /api/v1/vm/available\r\n",
    "the same origin, in full": b"Location: http://127.0.0.1:<port>/api/v1/vm/available\r\n",
    "another port": b"Location: http://127.0.0.1:<other port>/steal\r\n",
    "another host name": b"Location: http://localhost:<port>/steal\r\n",
    "another host, of the same scheme": b"Location: //localhost:<port>/steal\r\n",
    "https": b"Location: https://127.0.0.1:<port>/api/v1/vm/available\r\n",
    "a relative path": b"Location: ../../x?y=%zz#f\r\n",
    "a loop": b"Location: ?\r\n",
    "an empty place": b"Location: \r\n",
    "nowhere": b"",
    "a script": b"Location: javascript:alert(1)\r\n",
    "nonsense": b"Location: http://[::1\r\n",
    "bytes that are not ASCII": b"Location: http://\xff\xfe/\r\n",
    "a place with the key": b"Location: http://localhost:<port>/?key=" + KEY.encode() + b"\r\n",
}
_REDIRECT_STATUSES: Final = (300, 301, 302, 303, 304, 305, 307, 308)
_REDIRECTS: Final = (
    *(
        _says(f"{status} to {target}", "redirect", b"", "RedirectRefused", status=f"{status} Moved", headers=headers,
              requests=1, setting=crossroads())
        for status in _REDIRECT_STATUSES
        for target, headers in _TARGETS.items()
    ),
    *(
        _wire(f"{status} from https to http", "redirect under TLS",
              http(status=f"{status} Moved", headers=b"Location: http://127.0.0.1:<other port>/steal\r\n"),
              "RedirectRefused", end="keep", requests=1, setting=crossroads(tls("good")))
        for status in _REDIRECT_STATUSES
    ),
    *(
        _says(f"{status}", "redirect", b"", "RedirectRefused", status=f"{status} Odd", requests=1)
        for status in (306, 399)
    ),
)  # fmt: skip

_STATUSES: Final[Mapping[int, str]] = {
    400: "BadRequest", 401: "AuthenticationError", 402: "BadRequest", 403: "PermissionDenied", 404: "NotFound",
    405: "BadRequest", 408: "BadRequest", 409: "BadRequest", 413: "BadRequest", 418: "BadRequest", 422: "BadRequest",
    425: "BadRequest", 429: "RateLimited", 431: "BadRequest", 451: "BadRequest", 499: "BadRequest",
    500: "ServerError", 501: "ServerError", 502: "ServerError", 503: "ServerError", 504: "ServerError",
    505: "ServerError", 520: "ServerError", 521: "ServerError", 525: "ServerError", 530: "ServerError",
    599: "ServerError",
}  # fmt: skip


def _outcomes(status: int) -> tuple[str, ...]:
    """Name what may come of a status: a 429 is waited out, and that may last until the deadline.

    The 429 of a sellback is a lock on the item.
    """
    return ("RateLimited", "SellbackInProgress", "DeadlineExceeded") if status == 429 else (_STATUSES[status],)


_HTML_TYPE: Final = b"Content-Type: text/html\r\nServer: cloudflare\r\ncf-ray: 8d-FRA\r\n"
_WORST: Final = (401, 404, 429, 500, 502, 503, 504)
_RETRY_AFTER: Final = (
    "0", "0.01", "1", "-1", "99999999", "9" * 5000, "soon", "nan", "inf", "1e3", "", "\t", "0x10",
    "Wed, 01 Jan 2020 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359",
    "Wed, 99 Jan 2020 00:00:00 GMT", "Wed, 99999999999999999999 Jan 2020 00:00:00 GMT",
    "Wed, 01 Jan 2020 00:00:00 +99999999999999999999", "Wed, 01 Jan 99999999999999999999 00:00:00 GMT",
)  # fmt: skip
_ERROR_BODIES: Final[Mapping[str, bytes]] = {
    "null": b"null",
    "a number": b"1",
    "a huge number": b"9" * 6000,
    "a number beyond decimals": b"1e99999999999999999999",
    "a string": b'"no"',
    "an array": b'[{"error": "no"}]',
    "an empty object": b"{}",
    "error null": b'{"error": null}',
    "error a number": b'{"error": 5, "message": 6, "status": 7}',
    "error an object": b'{"error": {"message": "no", "code": 1}}',
    "error an array": b'{"error": ["no"], "message": ["no"]}',
    "error empty": b'{"error": "", "message": ""}',
    "message alone": b'{"message": "no"}',
    "error of control characters": b'{"error": "\\u0000\\u001b[31m\\r\\nX-Forged: 1\\u2028"}',
    "error of a megabyte": b'{"error": "' + b"a" * _MEGABYTE + b'"}',
    "error twice": b'{"error": "a", "error": "b"}',
    "error a surrogate": b'{"error": "\\ud800"}',
    "invalid UTF-8": b'{"error": "\xff\xfe"}',
    "a BOM": b'\xef\xbb\xbf{"error": "no"}',
    "UTF-16": '{"error": "no"}'.encode("utf-16"),
    "nested deep": b"[" * 30_000,
    "nested deep inside error": b'{"error": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    "cut": b'{"error": "no',
    "the key": json.dumps({"error": f"bad key {KEY}", "details": KEY, "suggested": {"name": KEY}}).encode(),
    "the key, far in": json.dumps({"error": "x" * 195 + KEY, "message": KEY}).encode(),
    "the key, naked": b"x" * 190 + KEY.encode() * 50,
    "an address rejected oddly": b'{"error": "Invalid destination address", "details": 5, "suggested": {"line1": 5}}',
    "a suggestion that is none": b'{"error": "Invalid destination address", "suggested": [1]}',
    "a suggestion of nonsense":
        b'{"error": "Invalid destination address", "suggested": {"nonsense": {"a": []}, "country": null}}',
    "reserved failure": b'{"order_id": null, "status": "error", "error_message": 5}',
}  # fmt: skip

_ENORMOUS: Final = b'{"error": "no", "more": "' + b"x" * _MEGABYTE + b'"}'
_SPECIAL: Final[Mapping[str, str]] = {
    "an address rejected oddly": "AddressRejected",
    "a suggestion that is none": "AddressRejected",
    "a suggestion of nonsense": "AddressRejected",
    "reserved failure": "ShippingRequestFailed",
}

_REFUSALS: Final = (
    *(
        _says(f"{status} with {kind}", "throttled" if status == 429 else "refusal", body, *_outcomes(status),
              status=f"{status} No", headers=headers)
        for status in _STATUSES
        for kind, body, headers in (
            ("JSON", b'{"error": "no such luck"}', _JSON),
            ("HTML", _HTML, _HTML_TYPE),
            ("nothing", b"", b""),
            ("an array", b'[{"error": "no"}]', _JSON),
            ("half of the JSON", b'{"error": "no su', _JSON),
            ("a megabyte", _ENORMOUS, _JSON),
        )
        if kind == "JSON" or status in _WORST or (kind == "HTML" and status in (403, 520))
    ),
    *(
        # Nobody reads beyond the transport's cap, whatever the status.
        _wire(f"{status} with a body over the cap", "refusal", http(b"x" * (MAX_BODY + 1), status=f"{status} No"),
              "ResponseTooLarge", end="keep")
        for status in _WORST
    ),
    *(
        _wire(f"{status} with a body cut", "refusal", http(b'{"err', status=f"{status} No", length=99),
              "ConnectionLost")
        for status in _WORST
    ),
    *(
        _says(f"{status} with {kind}", "error body", body, _STATUSES[status],
              *([_SPECIAL[kind]] if kind in _SPECIAL else ()), status=f"{status} No")
        for status in (400, 500)
        for kind, body in _ERROR_BODIES.items()
    ),
    *(
        _says(f"{status}, Retry-After: {value[:44]}", "throttled", b"{}", *_outcomes(status), status=f"{status} No",
              headers=_JSON + f"Retry-After: {value}\r\n".encode())
        for status in (429, 503)
        for value in _RETRY_AFTER
    ),
    _says("429, Retry-After: the key", "throttled", b"{}", *_outcomes(429), status="429 No",
          headers=b"Retry-After: " + KEY.encode() + b"\r\n"),
    _wire("429, Retry-After twice", "throttled", http(b"{}", status="429 No",
          headers=b"Retry-After: 1\r\nRetry-After: 2\r\n"), *_outcomes(429), end="keep"),
    _wire("429, Retry-After not ASCII", "throttled", http(b"{}", status="429 No",
          headers=b"Retry-After: \xff\xb2\r\n"), *_outcomes(429), "ProtocolError", end="keep"),
)  # fmt: skip

_NESTED: Final = 10_000


def _with_cookies(status: str) -> Callable[[bytes], bytes]:
    return lambda good: http(good, status=status, headers=_COOKIES)


_COOKIES: Final = (
    b"Set-Cookie: a=b; Path=/\r\nSet-Cookie: c=d; Path=/; Domain=localhost\r\nSet-Cookie: e=f; Max-Age=9999\r\n"
    b"Set-Cookie: ;;=;\xff\r\nSet-Cookie: " + b"g" * 5000 + b"=\r\n"
)
_BODIES: Final = (
    *(
        _says(f"Content-Type: {kind}", "body", lambda good: good, OK, headers=f"Content-Type: {kind}\r\n".encode())
        for kind in (
            "", "text/html", "text/plain", "application/octet-stream", "application/xml", "image/png",
            "application/problem+json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
            "application/json; charset=utf-16", "application/json; charset=cow", ";;/=",
        )
    ),
    _says("no Content-Type", "body", lambda good: good, OK, headers=b""),
    _wire("two Content-Types", "body", lambda good: http(good, headers=b"Content-Type: text/html\r\n"), OK, end="keep"),
    *(
        _says(name, "body", body, "DecodeError", *others, status=status, exact=False)
        for name, body, status, *others in (
            ("empty", b"", "200 OK"),
            ("204", b"", "204 No Content"),
            ("HTML", _HTML, "200 OK"),
            ("null", b"null", "200 OK", OK),
            ("true", b"true", "200 OK"),
            ("a number", b"1", "200 OK"),
            ("a number beyond decimals", b"1e99999999999999999999", "200 OK"),
            ("a number beneath decimals", b'{"a": 1e-99999999999999999999}', "200 OK"),
            ("a number of 6000 digits", b"9" * 6000, "200 OK"),
            ("a string", b'"ok"', "200 OK"),
            ("an empty array", b"[]", "200 OK", OK),
            ("an empty object", b"{}", "200 OK"),
            ("an array of nulls", b"[null]", "200 OK"),
            ("an array of arrays", b"[[[]]]", "200 OK"),
            ("NaN", b'{"a": NaN}', "200 OK"),
            ("infinity", b"[Infinity]", "200 OK"),
            ("nested objects", b'{"a":' * _NESTED + b"1" + b"}" * _NESTED, "200 OK"),
            ("nested arrays", b"[" * _NESTED + b"]" * _NESTED, "200 OK"),
            ("an error with status 200", b'{"error": "An unexpected error occurred"}', "200 OK", "TransactionFailed"),
            ("a failure with status 200", b'{"success": false, "status": "error", "error_message": "no"}', "200 OK",
             "TransactionFailed", "ShippingRequestFailed"),
            ("a failed purchase", b'{"status": "failed", "success": false}', "200 OK", "TransactionFailed"),
            ("the key for an error", json.dumps({"error": KEY, "success": False, "status": "error",
                                                 "error_message": KEY}).encode(), "200 OK", "TransactionFailed",
             "ShippingRequestFailed"),
            ("the key for a name", json.dumps({KEY: {KEY: 1}}).encode(), "200 OK"),
            ("the key in an array", json.dumps([KEY, {KEY: KEY}]).encode(), "200 OK"),
            ("the key for a value", json.dumps({"items": [{"id": KEY, "claw_id": 1}], "status": KEY}).encode(),
             "200 OK"),
            ("the key, naked", KEY.encode(), "200 OK"),
        )
    ),
    _says("a BOM", "body", lambda good: b"\xef\xbb\xbf" + good, "DecodeError", exact=False),
    _says("UTF-16", "body", lambda good: good.decode().encode("utf-16"), "DecodeError", exact=False),
    _says("cut", "body", _half, "DecodeError", exact=False),
    _says("rubbish after", "body", lambda good: good + b"]", "DecodeError", exact=False),
    _says("twice", "body", lambda good: good + good, "DecodeError", exact=False),
    _says("space around", "body", lambda good: b" \r\n\t" + good + b"\n \n", OK),
    _says("an unknown field", "body", lambda good: _with_field(good, b'"x": [1, {"y": 2}]'), OK,
          exact=False),
    _says("an unknown field of a huge number", "body", lambda good: _with_field(good, b'"x": 1e99999999999999999999'),
          OK, "DecodeError", exact=False),
    _says("an unknown field of a surrogate", "body", lambda good: _with_field(good, b'"x": "\\ud800"'), OK,
          "DecodeError", exact=False),
    _says("an unknown field of invalid UTF-8", "body", lambda good: _with_field(good, b'"x": "\xff"'), "DecodeError"),
    _says("an unknown field twice", "body", lambda good: _with_field(good, b'"x": 1, "x": 2'), OK,
          exact=False),
    _says("an unknown field nested deep", "body",
          lambda good: _with_field(good, b'"x": ' + b"[" * _NESTED + b"]" * _NESTED), OK, "DecodeError", exact=False),
    _says("every value null", "body", lambda good: _mapped(good, None), "DecodeError", OK, exact=False),
    _says("every value a number beyond decimals", "body", lambda good: _mapped(good, "HUGE"), "DecodeError", OK,
          exact=False),
    _says("every value the key", "body", lambda good: _mapped(good, KEY), "DecodeError", OK, "TransactionFailed",
          exact=False),
    _says("every value an object named by the key", "body", lambda good: _mapped(good, {KEY: KEY}), "DecodeError",
          OK, exact=False),
    *(
        _says(f"status {status}", "body", lambda good: good, OK, status=f"{status} Odd")
        for status in (201, 202, 203, 206, 226, 299)
    ),
    *(
        _wire(f"cookies with {status}", "body", _with_cookies(status), outcome, end="keep", setting=by_name)
        for status, outcome in (("200 OK", OK), ("302 Found", "RedirectRefused"), ("401 No", "AuthenticationError"),
                                ("500 No", "ServerError"))
    ),
)  # fmt: skip


def _with_field(good: bytes, member: bytes) -> bytes:
    """Put a member into every object of a good answer."""
    return good.replace(b"{", b"{" + member + b", ").replace(b", }", b"}")


def _mapped(good: bytes, value: object) -> bytes:
    """Return a good answer whose every scalar is `value`."""

    def replaced(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: replaced(inner) for name, inner in node.items()}
        return [replaced(inner) for inner in node] if isinstance(node, list) else value

    return json.dumps(replaced(json.loads(good))).replace('"HUGE"', "1e99999999999999999999").encode()


def _never_answers(_: bytes) -> Handler:
    async def handler(_: Request) -> Response:
        await anyio.sleep_forever()
        raise AssertionError

    return handler


_ENGINE: Final = (
    _raises("ConnectError", lambda: ConnectError("no connection"), "ConnectError"),
    _raises("ConnectionLost", lambda: ConnectionLost("it broke"), "ConnectionLost"),
    _raises("ProtocolError", lambda: ProtocolError("not HTTP"), "ProtocolError"),
    _raises("ResponseTooLarge", lambda: ResponseTooLarge("too large"), "ResponseTooLarge"),
    Fault(
        name="never answers", family="engine", expects=frozenset({"DeadlineExceeded"}), memory=_never_answers,
    ),
)  # fmt: skip

FAULTS: Final[tuple[Fault, ...]] = (
    *_CONNECTING, *_TLS, *_PROXIES, *_BREAKING, *_FRAMING, *_LARGE, *_STATUS_LINES, *_REDIRECTS, *_REFUSALS, *_BODIES,
    *_ENGINE,
)  # fmt: skip

"""What can go wrong on the wire, as data: the bytes, and what may come of a request that meets them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal

import anyio
from attrs import frozen

from phygitals_async.conformance.peers import Peer, Received
from phygitals_async.conformance.server import Script, chunked, http

# What may come of a request. Which error a broken exchange is, is for people to read; what must not differ is whether
# it may be repeated.
ANSWERED: Final = "the good answer"
ODD: Final = "another answer"
LOST: Final = "a TransportError that says unknown"
UNSENT: Final = "an error that says never sent"
TOO_LARGE: Final = "ResponseTooLarge"
SILENT: Final = "no end"

# Bytes; the cap on a body with which transports are put under these faults.
MAX_BODY: Final = 3 * 1024 * 1024 // 2

End = Literal["keep", "close", "reset", "silence"]
Wire = bytes | Callable[[bytes], bytes]


@frozen(kw_only=True)
class Fault:
    """Something that goes wrong on the wire.

    Attributes:
        name: What, in a few words.
        script: How the server brings it about.
        outcomes: What may come of it.
        warm: Whether a good request first leaves a kept-alive connection behind.
    """

    name: str
    script: Script
    outcomes: frozenset[str]
    warm: bool = False


async def _end(peer: Peer, end: End) -> None:
    if end == "close":
        await peer.close()
    elif end == "reset":
        await peer.reset()
    elif end == "silence":
        await peer.stay_silent()


def reply(data: Wire, end: End = "close") -> Script:
    """Return the script of a server that answers each request with `data`, given the body of a good answer."""

    async def on_request(peer: Peer, _: Received) -> None:
        await peer.send(data if isinstance(data, bytes) else data(peer.server.good))
        await _end(peer, end)

    return Script(on_request=on_request)


def _wire(name: str, data: Wire, *outcomes: str, end: End = "close") -> Fault:
    return _scripted(name, reply(data, end), *outcomes)


def _scripted(name: str, script: Script, *outcomes: str, warm: bool = False) -> Fault:
    return Fault(name=name, script=script, outcomes=frozenset(outcomes), warm=warm)


def on_connect(data: bytes, end: End) -> Script:
    """Return the script of a server that speaks before it is asked."""

    async def accept(peer: Peer) -> None:
        await peer.send(data)
        await _end(peer, end)

    return Script(on_connect=accept)


async def _close_all(peers: Collection[Peer]) -> None:
    for peer in peers:
        peer.abort()


async def _reset_all(peers: Collection[Peer]) -> None:
    for peer in peers:
        await peer.reset()


async def _send_unasked(peers: Collection[Peer]) -> None:
    """Send a whole answer that nobody asked for, and wait until the client has surely seen it."""
    for peer in peers:
        await peer.send(http(b'{"smuggled": true}'))
    await anyio.sleep(0.05)


async def _read_then_close_first(peer: Peer, _: Received) -> None:
    """Take the request on the kept-alive connection and hang up; answer well on later connections."""
    if peer.number == 1:
        await peer.close()
    else:
        await peer.send(http(peer.server.good))


async def _read_then_vanish(peer: Peer, _: Received) -> None:
    """Take the request, stop listening, and hang up: whoever tries again is refused."""
    await peer.server.stop_listening()
    await peer.close()


def _drip(build: Callable[[bytes], bytes], *, at_once: int = 0) -> Script:
    async def on_request(peer: Peer, _: Received) -> None:
        data = build(peer.server.good)
        await peer.send(data[:at_once])
        await peer.drip(data[at_once:])

    return Script(on_request=on_request)


def _in_two(first: Callable[[bytes], bytes], second: bytes, end: End = "close") -> Script:
    """Let the head be read and judged before the rest comes."""

    async def on_request(peer: Peer, _: Received) -> None:
        await peer.send(first(peer.server.good))
        await anyio.sleep(0.02)
        await peer.send(second)
        await _end(peer, end)

    return Script(on_request=on_request)


def _flood(first: bytes, again: bytes) -> Script:
    async def on_request(peer: Peer, _: Received) -> None:
        await peer.send(first)
        await peer.flood(again)

    return Script(on_request=on_request)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _head_of(good: bytes) -> bytes:
    return http(good)[: -len(good)]


_BREAKING: Final = (
    _scripted("closed on accept", on_connect(b"", "close"), LOST, UNSENT),
    _scripted("reset on accept", on_connect(b"", "reset"), LOST, UNSENT),
    _scripted("silent on accept", on_connect(b"", "silence"), SILENT),
    _wire("closed before any byte", b"", LOST),
    _wire("reset before any byte", b"", LOST, end="reset"),
    _wire("silent after the request", b"", SILENT, end="silence"),
    _wire("closed in the status line", b"HTTP/1.1 20", LOST),
    _wire("closed in the headers", b"HTTP/1.1 200 OK\r\nContent-", LOST),
    _wire("reset in the headers", b"HTTP/1.1 200 OK\r\nContent-", LOST, end="reset"),
    _wire("silent in the headers", b"HTTP/1.1 200 OK\r\nContent-", SILENT, end="silence"),
    _wire("closed before the body", _head_of, LOST),
    _wire("reset before the body", _head_of, LOST, end="reset"),
    _wire("closed in the body", lambda good: http(good)[:-3], LOST),
    _wire("reset in the body", lambda good: http(good)[:-3], LOST, end="reset"),
    _wire("silent in the body", lambda good: http(good)[:-3], SILENT, end="silence"),
    _wire("closed in a refusal", http(b'{"error": "User not', status="404 Not Found", length=99), LOST),
    _scripted("head dripped", _drip(lambda _: b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 9999), SILENT),
    _scripted("body dripped", _drip(lambda good: http(good + b" " * 9999), at_once=60), SILENT),
    _scripted("chunks dripped", _drip(lambda _: chunked(*[b" "] * 2000), at_once=90), SILENT),
    _scripted("idle connection closed", Script(on_turn=_close_all), ANSWERED, LOST, warm=True),
    _scripted("idle connection reset", Script(on_turn=_reset_all), ANSWERED, LOST, warm=True),
    _scripted("kept-alive connection takes the request and closes",
              Script(on_request=_read_then_close_first), ANSWERED, LOST, warm=True),
    _scripted("takes the request and is gone", Script(on_request=_read_then_vanish), LOST),
    _scripted("kept-alive connection takes the request and is gone",
              Script(on_request=_read_then_vanish), LOST, warm=True),
    _scripted("an answer nobody asked for", Script(on_turn=_send_unasked), ANSWERED, LOST, warm=True),
)  # fmt: skip

_FRAMING: Final = (
    _wire("length too short", lambda good: http(good, length=len(good) - 2), ODD, LOST,
          end="keep"),
    _wire("length too long", lambda good: http(good, length=len(good) + 9), LOST),
    _wire("length too long, kept open", lambda good: http(good, length=len(good) + 9), SILENT,
          end="silence"),
    _wire("length zero", lambda good: http(good, length=0), ODD, LOST, end="keep"),
    _wire("length negative", lambda good: http(good, length=-1), LOST, end="keep"),
    _wire("length beyond every integer", lambda good: http(good, length=10**30), LOST),
    _wire("length no number", b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{}", LOST),
    _wire("two different lengths", lambda good: http(good, headers=b"Content-Length: 3\r\n"),
          LOST, end="keep"),
    _wire("length and chunks", lambda good: chunked(good, headers=b"Content-Length: 3\r\n"), ANSWERED,
          LOST, end="keep"),
    _wire("chunk size no number", lambda good: chunked(end=b"xyz\r\n" + good), LOST),
    _wire("chunk size beyond every integer", chunked(end=b"f" * 40 + b"\r\n{}"), LOST),
    _scripted("chunk size no number, later", _in_two(lambda good: chunked(good[:5], end=b""), b"xyz\r\n{}"),
              LOST, SILENT),
    _scripted("chunk without its end, later", _in_two(lambda _: chunked(end=b"2\r\n"), b"{}{}{}\r\n"), LOST, SILENT),
    _wire("chunks without the last", lambda good: chunked(good, end=b""), LOST),
    _wire("trailers", lambda good: chunked(good, end=b"0\r\nX-T: 1\r\n\r\n"), ANSWERED, end="keep"),
    _wire("transfer encoding unknown",
          lambda good: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\n" + good, ANSWERED, LOST),
    _wire("body ended by the close", lambda good: b"HTTP/1.1 200 OK\r\n\r\n" + good, ANSWERED),
    _wire("body ended by the close, cut", lambda good: b"HTTP/1.1 200 OK\r\n\r\n" + good[:-4], ODD),
    _wire("body ended by a reset", lambda good: b"HTTP/1.0 200 OK\r\n\r\n" + good[:-4], LOST,
          ODD, end="reset"),
    _wire("HTTP/1.0", lambda good: http(good).replace(b"HTTP/1.1", b"HTTP/1.0"), ANSWERED),
    _wire("answered twice", lambda good: http(good) + http(b'{"smuggled": true}'), ANSWERED, end="keep"),
    _scripted("answers before it is asked", on_connect(http(b"{}", status="503 Busy"), "close"), ODD, LOST, UNSENT),
    _wire("gzip", lambda good: http(gzip.compress(good), headers=b"Content-Encoding: gzip\r\n"), ANSWERED,
          end="keep"),
    _wire("gzip cut", lambda good: http(_half(gzip.compress(good)), headers=b"Content-Encoding: gzip\r\n"),
          LOST, ODD, end="keep"),
    _wire("gzip without its checksum",
          lambda good: http(gzip.compress(good)[:-8], headers=b"Content-Encoding: gzip\r\n"),
          ANSWERED, LOST, ODD, end="keep"),
    _wire("gzip that is none", lambda good: http(good, headers=b"Content-Encoding: gzip\r\n"),
          LOST, end="keep"),
    _wire("gzip twice",
          lambda good: http(gzip.compress(gzip.compress(good)), headers=b"Content-Encoding: gzip, gzip\r\n"),
          ODD, ANSWERED, end="keep"),
    _wire("unknown encoding", lambda good: http(good, headers=b"Content-Encoding: cow\r\n"),
          ANSWERED, ODD, LOST, end="keep"),
    _wire("brotli unasked", lambda good: http(good, headers=b"Content-Encoding: br\r\n"), ANSWERED,
          LOST, ODD, end="keep"),
)  # fmt: skip

_BOMB: Final = gzip.compress(b" " * (24 * 1024 * 1024))

_LARGE: Final = (
    _wire("a body over the cap", lambda good: http(good + b" " * MAX_BODY), TOO_LARGE, end="keep"),
    _scripted("an endless body", _flood(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), TOO_LARGE),
    _scripted("endless chunks", _flood(chunked(end=b""), b"1000\r\n" + b" " * 4096 + b"\r\n"), TOO_LARGE),
    _wire("a gzip bomb", http(_BOMB, headers=b"Content-Encoding: gzip\r\n"), TOO_LARGE, end="keep"),
    _wire("a deflate bomb", http(zlib.compress(b" " * 2**24), headers=b"Content-Encoding: deflate\r\n"),
          TOO_LARGE, end="keep"),
    _wire("a gzip bomb in chunks", chunked(_BOMB, headers=b"Content-Encoding: gzip\r\n"),
          TOO_LARGE, end="keep"),
    _wire("a huge header", lambda good: http(good, headers=b"X-Huge: " + b"a" * 1_000_000 + b"\r\n"), LOST),
    _wire("60 headers", lambda good: http(good, headers=b"X-Many: a\r\n" * 58), ANSWERED, end="keep"),
    _wire("20,000 headers", lambda good: http(good, headers=b"X-Many: a\r\n" * 20_000), LOST),
    _scripted("endless headers", _flood(b"HTTP/1.1 200 OK\r\n", b"X-Many: a\r\n" * 500), LOST, SILENT),
    _scripted("an endless header", _flood(b"HTTP/1.1 200 OK\r\nX-Huge: ", b"a" * 9000), LOST, SILENT),
    _scripted("an endless status line", _flood(b"HTTP/1.1 200 ", b"a" * 9000), LOST, SILENT),
    _scripted("an endless chunk extension", _flood(chunked(end=b"1;"), b"a" * 9000), LOST, SILENT),
    _scripted("endless trailers", _flood(chunked(b"{}", end=b"0\r\n"), b"X-T: a\r\n" * 500), LOST, SILENT, ODD),
)  # fmt: skip

_STATUS_LINES: Final = (
    *(
        _wire(name, data, LOST, *others)
        for name, data, *others in (
            ("garbage", b"\x00\xff\xfe garbage\r\n\r\n"),
            ("status 20x", b"HTTP/1.1 20x OK\r\n\r\n"),
            ("status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
            ("status of two digits", b"HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n"),
            ("status negative", b"HTTP/1.1 -200 OK\r\n\r\n"),
            ("status missing", b"HTTP/1.1\r\n\r\n"),
            ("HTTP/9.9", b"HTTP/9.9 200 OK\r\n\r\n{}", ODD),
            ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
            ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ("NUL in a header", b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n"),
            ("a header without a colon", b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"),
            ("a header without a name", b"HTTP/1.1 200 OK\r\n: nonsense\r\n\r\n"),
        )
    ),
    _wire("status 000", http(status="000 Odd"), ODD, LOST, end="keep"),
    _wire("status 600", http(status="600 Odd"), ODD, end="keep"),
    _wire("status 999", http(status="999 Odd"), ODD, end="keep"),
    _wire("a reason that is not ASCII", lambda good: http(good, status="200 Schön \u2028"), ANSWERED,
          LOST, end="keep"),
    _wire("a header that is not ASCII", lambda good: http(good, headers=b"X: \xff\xfe\r\n"), ANSWERED,
          LOST, end="keep"),
    _scripted("a flood of 100", _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50), SILENT, LOST),
    _scripted("a flood of 103", _flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 50), SILENT, LOST),
    _wire("a hundred of 102, then the answer",
          lambda good: b"HTTP/1.1 102 Processing\r\n\r\n" * 100 + http(good), ANSWERED, end="keep"),
    _wire("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
          b"Connection: Upgrade\r\n\r\n", ODD, LOST, SILENT),
)  # fmt: skip

WIRE_FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "breaking": _BREAKING, "framing": _FRAMING, "large": _LARGE, "status line": _STATUS_LINES,
}  # fmt: skip

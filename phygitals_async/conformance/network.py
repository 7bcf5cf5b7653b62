"""What a transport promises that opens connections."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import ClassVar, Final

import pytest

from phygitals_async import Request, ResponseTooLarge
from phygitals_async.conformance.certificates import AUTHORITY, server_tls
from phygitals_async.conformance.exchanges import GOOD_BODY, attempt, read, recover, sale
from phygitals_async.conformance.faults import ANSWERED, LOST, SILENT, UNSENT, WIRE_FAULTS, Fault, reply
from phygitals_async.conformance.life_cycle import REQUESTS, LifeCycle
from phygitals_async.conformance.rules import CHECKS, UNREACHABLE, Place, Rule, Settings, unreached
from phygitals_async.conformance.server import chunked, fault_server, free_port, http

_CAP: Final = 1000
_GZIP: Final = b"Content-Encoding: gzip\r\n"
_FRAMINGS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "length": http,
    "chunked": lambda body: chunked(*filter(None, (body[:400], body[400:]))),
    "eof": lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body,
    "gzip": lambda body: http(gzip.compress(body), headers=_GZIP),
    "gzip chunked": lambda body: chunked(gzip.compress(body), headers=_GZIP),
    "deflate": lambda body: http(zlib.compress(body), headers=b"Content-Encoding: deflate\r\n"),
}
_FAULTS: Final = [
    pytest.param(fault, id=f"{family}: {fault.name}") for family, faults in WIRE_FAULTS.items() for fault in faults
]


class HttpTransportConformance(LifeCycle):
    """The tests of a transport that opens connections.

    Which rules it keeps, `pytest -k test_rule --junitxml=FILE` writes down: the test of each passes, or is an expected
    failure with the rule as its reason.

    Attributes:
        unkept: The rules that the transport cannot keep. Where it does keep one of them, its test fails, too.
    """

    unkept: ClassVar[AbstractSet[Rule]] = frozenset()

    @pytest.mark.anyio
    @pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
    async def test_rule(self, rule: Rule, request: pytest.FixtureRequest) -> None:
        """The transport keeps a rule, or its class lists it as one that it cannot keep."""
        marker = pytest.mark.xfail(rule in self.unkept, raises=AssertionError, strict=True, reason=rule.value)
        request.applymarker(marker)
        await CHECKS[rule](self.opened)

    # What is sent

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        "target", ["/_/api/v1/inventory/u", "/_//a//b/", "/_/a%2fb/a%2Fb/%25", "/_/x?a=%20+&b&b=2"]
    )
    async def test_target_is_sent_byte_for_byte(self, target: str) -> None:
        """An encoded URL is neither resolved nor quoted again on its way."""
        async with fault_server() as server, self.opened(Settings()) as transport:
            await transport.send(Request("GET", server.url + target, {}))
            assert [received.target for received in server.received] == [target]

    @pytest.mark.anyio
    @REQUESTS
    async def test_a_target_is_never_another(self, request_to: Callable[[str], Request]) -> None:
        """What the engine would resolve is sent as it stands, or not at all."""
        target = "/_/a/%2e%2E/b/../c"
        async with fault_server(GOOD_BODY) as server, self.opened(Settings()) as transport:
            request = request_to(server.url)
            outcome = await attempt(
                transport,
                Request(request.method, server.url + target, request.headers, request.body),
            )
            arrived = [received.target for received in server.received]
            assert (outcome, arrived) in [(ANSWERED, [target]), (UNSENT, [])]

    @pytest.mark.anyio
    async def test_headers_are_sent_once_each_and_no_cookies(self) -> None:
        """Each header goes out once, with its value; a cookie that was set never comes back."""
        cookie = http(headers=b"Set-Cookie: session=1; Path=/\r\n")
        given = {"X-API-Key": "sandbox-1", "Accept": "application/json", "User-Agent": "test/1", "X-Odd": 'a,b;c="d"'}
        async with fault_server() as server, self.opened(Settings()) as transport:
            await server.turn(reply(cookie, "keep"))
            for _ in range(3):
                # Cookie jars pass over servers without a name.
                await transport.send(Request("GET", f"http://localhost:{server.port}/x", given))
            expected = {name.lower(): value for name, value in given.items()} | {"host": f"localhost:{server.port}"}
            for received in server.received:
                names = [name for name, _ in received.headers]
                assert len(names) == len(set(names))
                assert set(names) - set(expected) <= {"accept-encoding", "connection", "content-length"}
                assert dict(received.headers).items() >= expected.items()
            assert len(server.received) == 3
            assert server.cookies == 0

    @pytest.mark.anyio
    async def test_body_is_sent_with_its_length(self) -> None:
        """A POST carries its bytes and their length, once, and the content type that was given."""
        async with fault_server() as server, self.opened(Settings()) as transport:
            request = sale(server.url)
            await transport.send(request)
            (received,) = server.received
        assert received.body == request.body
        content = sorted(pair for pair in received.headers if pair[0].startswith(("content-", "transfer-")))
        assert content == [("content-length", str(len(request.body or b""))), ("content-type", "application/json")]

    @pytest.mark.anyio
    async def test_a_fresh_connection_was_never_used(self) -> None:
        """A request with `fresh_connection` goes out on a connection made for it, which no other such one uses."""
        async with fault_server() as server, self.opened(Settings()) as transport:
            for make in (read, sale, sale, read, sale):
                await transport.send(make(server.url))
            connections = [received.connection for received in server.received]
        earlier = [connections[:number] for number in (1, 2, 4)]
        assert [connections[number] in earlier[index] for index, number in enumerate((1, 2, 4))] == [False] * 3

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
    async def test_proxies_of_the_environment_are_ignored(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """No proxy is used unless it was asked for: it would see the API key."""
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with fault_server(GOOD_BODY) as server, self.opened(Settings()) as transport:
            assert await attempt(transport, read(server.url)) == ANSWERED

    # What is received

    @pytest.mark.anyio
    @REQUESTS
    @pytest.mark.parametrize("elsewhere", [False, True], ids=["same origin", "another origin"])
    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
    async def test_redirects_are_not_followed(
        self, status: int, elsewhere: bool, request_to: Callable[[str], Request]
    ) -> None:
        """A redirect is an answer like any other, wherever it leads."""
        async with fault_server() as server, server.listen_elsewhere(), self.opened(Settings()) as transport:
            port = server.other_port if elsewhere else server.port
            location = f"Location: http://127.0.0.1:{port}/steal\r\n".encode()
            await server.turn(reply(http(status=f"{status} Moved", headers=location), "keep"))
            response = await transport.send(request_to(server.url))
            assert (response.status, len(server.received)) == (status, 1)
            assert response.headers["location"].endswith("/steal")

    @pytest.mark.anyio
    @pytest.mark.parametrize("size", [0, 1, _CAP - 1, _CAP, _CAP + 1, 100 * _CAP])
    @pytest.mark.parametrize("framing", _FRAMINGS)
    async def test_bodies_up_to_the_cap_are_read(self, framing: str, size: int) -> None:
        """A body of at most the cap is returned whole, decoded, however it is framed; a larger one is refused."""
        body = (bytes(range(256)) * 400)[:size]
        async with fault_server(GOOD_BODY) as server, self.opened(Settings(max_body=_CAP)) as transport:
            await server.turn(reply(_FRAMINGS[framing](body), "close"))
            if size > _CAP:
                with pytest.raises(ResponseTooLarge):
                    await transport.send(read(server.url))
            else:
                assert (await transport.send(read(server.url))).body == body
            assert await recover(transport, server) == ANSWERED

    @pytest.mark.anyio
    async def test_a_header_that_comes_twice(self) -> None:
        """A header that came twice has either value, or both in one text."""
        async with fault_server() as server, self.opened(Settings()) as transport:
            await server.turn(reply(http(headers=b"Retry-After: 1\r\nRETRY-AFTER: 2\r\n"), "keep"))
            response = await transport.send(read(server.url))
        assert response.headers.get("retry-after") in ("1", "2", "1, 2")

    # What goes wrong

    @pytest.mark.anyio
    @REQUESTS
    @pytest.mark.parametrize("fault", _FAULTS)
    async def test_fault(self, fault: Fault, request_to: Callable[[str], Request]) -> None:
        """A fault ends as it should, nothing is sent twice or wrongly called unsent, and the next read is answered."""
        async with fault_server(GOOD_BODY) as server, self.opened(Settings()) as transport:
            for _ in range(fault.warm):
                await transport.send(read(server.url))
            await server.turn(fault.script)
            connections = server.connections

            def begun() -> bool:
                return server.bytes_received > 0 or (
                    fault.script.on_connect is not None and server.connections > connections
                )

            may_last = SILENT in fault.outcomes
            outcome = await attempt(transport, request_to(server.url), begun=begun if may_last else None)
            assert outcome in fault.outcomes
            assert len(server.received) <= 1
            assert outcome != UNSENT or server.bytes_received == 0
            assert await recover(transport, server) == ANSWERED

    @pytest.mark.anyio
    @REQUESTS
    @pytest.mark.parametrize("place", UNREACHABLE.values(), ids=UNREACHABLE.keys())
    async def test_no_connection(self, place: Place, request_to: Callable[[str], Request]) -> None:
        """Where no connection can be made, the request is called unsent, or nothing is said of it."""
        assert await unreached(self.opened, place, request_to) in (UNSENT, LOST, SILENT)

    @pytest.mark.anyio
    async def test_tls(self) -> None:
        """A certificate of the trusted authority is good, and what breaks under TLS may have been sent."""
        settings = Settings(authority=AUTHORITY)
        async with fault_server(GOOD_BODY, tls=server_tls()) as server, self.opened(settings) as transport:
            url = f"https://127.0.0.1:{server.port}"
            for make in (read, sale, read):
                assert await attempt(transport, make(url)) == ANSWERED
            for script in (reply(b""), reply(http(GOOD_BODY)[:-5], "reset")):
                await server.turn(script)
                for make in (read, sale):
                    assert await attempt(transport, make(url)) == LOST
            assert len(server.received) == 2

    @pytest.mark.anyio
    @REQUESTS
    async def test_plain_http_to_a_tls_port(self, request_to: Callable[[str], Request]) -> None:
        """The server cannot read the request, and yet it was sent."""
        async with fault_server(tls=server_tls()) as server, self.opened(Settings()) as transport:
            assert await attempt(transport, request_to(server.url)) == LOST

"""Proxies that the environment names."""

from __future__ import annotations

import base64
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
import trustme

from aiohttp_support import failure_of, get, opened, opened_with, sale
from phygitals_async import ConnectError, Sent
from phygitals_transports import AiohttpTransport
from raw_server import Step, answer, raw_server

OWN = pytest.mark.parametrize("own", [True, False], ids=["own session", "default session"])


def trusting(own: bool) -> AbstractAsyncContextManager[AiohttpTransport]:
    """Return a transport that uses the proxies of the environment."""
    return opened_with(trust_env=True) if own else opened(trust_env=True)


@pytest.mark.asyncio
@OWN
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch, name: str, own: bool) -> None:
    """The request goes to it, its URL whole and unchanged, with what the proxy wants to know."""
    async with raw_server(answer(200, b"proxied")) as proxy, trusting(own) as transport:
        monkeypatch.setenv(name, f"http://user:pa%40ss@127.0.0.1:{proxy.port}")
        for request in (get("http://partner.invalid/_/a%2Fb%7C"), sale("http://partner.invalid/_/a%2Fb%7C")):
            assert (await transport.send(request)).body == b"proxied"
            assert request.delivery.started
        expected = base64.b64encode(b"user:pa@ss")
        for index, method in enumerate([b"GET", b"POST"]):
            assert proxy.request_lines[index] == method + b" http://partner.invalid/_/a%2Fb%7C HTTP/1.1"
            assert b"Proxy-Authorization: Basic " + expected in proxy.header_lines(index)


@pytest.mark.asyncio
async def test_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials go with CONNECT, and the request, unseen by the proxy, does not carry them."""
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)
    tunnel = Step(b"HTTP/1.1 200 Connected\r\n\r\n", tls=server_side)
    async with (
        raw_server(tunnel, answer(200, b"through")) as proxy,
        opened_with(trust_env=True, connector={"ssl": client_side}) as transport,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass@127.0.0.1:{proxy.port}")
        request = sale("https://127.0.0.1:9/x")
        assert (await transport.send(request)).body == b"through"
        assert request.delivery.started
        assert proxy.request_lines == [b"CONNECT 127.0.0.1:9 HTTP/1.1", b"POST /x HTTP/1.1"]
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:pass") in proxy.header_lines(0)
        assert not [line for line in proxy.header_lines(1) if b"Proxy" in line]


@pytest.mark.asyncio
@OWN
async def test_no_proxy_keeps_a_host_direct(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """The variables are read anew for each request."""
    async with raw_server() as proxy, raw_server() as server, trusting(own) as transport:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await transport.send(get(f"{server.url}/1"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await transport.send(get(f"{server.url}/2"))
        assert (len(proxy.received), len(server.received)) == (1, 1)


@pytest.mark.asyncio
@OWN
async def test_a_proxy_for_the_other_scheme(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """It is not used."""
    async with raw_server() as proxy, raw_server() as server, trusting(own) as transport:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await transport.send(get(f"{server.url}/x"))
        assert (proxy.connections, len(server.received)) == (0, 1)


@pytest.mark.asyncio
async def test_a_host_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out where the connection is made, not where the proxy is chosen."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "xn--a")
    async with opened(trust_env=True) as transport:
        assert type(await failure_of(transport, sale("https://xn--a/x"))) is ConnectError


@pytest.mark.asyncio
async def test_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """aiohttp's own `trust_env` would send the password that it holds for the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password 5ecret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with raw_server() as server, opened(trust_env=True) as transport:
        await transport.send(get(f"{server.url}/x"))
        assert not [line for line in server.header_lines() if line.lower().startswith(b"authorization")]


UNUSABLE = {
    "http://127.0.0.1:99999": "http://127.0.0.1:99999",
    "http://127.0.0.1:notaport": "http://127.0.0.1:notaport",
    "http://[::1": "http://[::1",
    "127.0.0.1:9": "127.0.0.1:9",
    "proxy.example:3128": "proxy.example:3128",
    "socks5://127.0.0.1:9": "socks5://127.0.0.1:9",
    "socks5://user:5ecret@127.0.0.1:9": "socks5://127.0.0.1:9",
    "http://user:5ecret@127.0.0.1:99999": "http://127.0.0.1:99999",
    "http://user:5e/c@ret@127.0.0.1:99999": "http://127.0.0.1:99999",
    "user:5ecret@127.0.0.1:9": "127.0.0.1:9",
    "http://": "http://",
    "nonsense": "nonsense",
}


@pytest.mark.asyncio
@OWN
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize("value", UNUSABLE)
async def test_an_unusable_proxy_is_named(monkeypatch: pytest.MonkeyPatch, value: str, name: str, own: bool) -> None:
    """Nothing is sent, not even directly; the text names the variable, and shows the value without the password."""
    async with raw_server() as server, trusting(own) as transport:
        monkeypatch.setenv(name, value)
        for request in (get(f"{server.url}/x"), sale(f"{server.url}/x")):
            error = await failure_of(transport, request)
            assert type(error) is ConnectError
            assert error.text == f"no connection: {name} is not the URL of an HTTP proxy: {UNUSABLE[value]!r}"
            assert error.sent is request.delivery.sent is Sent.NEVER
        assert server.connections == 0


@pytest.mark.asyncio
async def test_a_transport_that_trusts_makes_a_session_of_ones_own_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """So one can have the proxies without `.netrc`."""
    async with raw_server(answer(200, b"proxied")) as proxy, opened_with() as distrusting:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        session = distrusting._given
        assert isinstance(session, aiohttp.ClientSession)
        async with opened(session, trust_env=True) as transport:
            assert (await transport.send(get("http://partner.invalid/x"))).body == b"proxied"


@pytest.mark.asyncio
async def test_the_environment_is_not_looked_at_unless_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for its sense nor for its cost."""

    def refuse() -> None:
        raise AssertionError

    monkeypatch.setattr("urllib.request.getproxies", refuse)
    monkeypatch.setenv("HTTP_PROXY", "nonsense")
    async with raw_server(answer(200, b"direct")) as server, opened() as default, opened_with() as own:
        for transport in (default, own):
            assert (await transport.send(get(f"{server.url}/x"))).body == b"direct"

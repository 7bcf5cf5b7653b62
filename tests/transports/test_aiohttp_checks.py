"""An aiohttp that is not what the transport rests on sends nothing."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import aiohttp
import aiohttp.client_proto
import aiohttp.connector
import pytest

from aiohttp_support import get, opened, opened_with, sale
from phygitals_async import ConfigurationError
from phygitals_transports import AiohttpTransport, GuardedConnector
from raw_server import answer, raw_server

_OF_TCP = aiohttp.TCPConnector


async def _other_parameters(self: Any, req: Any, traces: Any) -> None: ...


def _no_coroutine(self: Any, req: Any, traces: Any, timeout: Any) -> None: ...


async def _one_more(self: Any, req: Any, traces: Any, timeout: Any, tracker: Any = None) -> None: ...


def _settings(*names: str) -> Any:
    """Return a constructor that knows these arguments only."""
    namespace: dict[str, Any] = {}
    exec(f"def make(self, *, {', '.join(f'{name}=None' for name in names)}): ...", namespace)  # noqa: S102 - a signature
    return namespace["make"]


_NEEDED = ["force_close", "keepalive_timeout", "limit", "resolver", "use_dns_cache"]
ALTERED = [
    (_OF_TCP, "connect", _other_parameters, r"TCPConnector\.connect\(req, traces, timeout\)"),
    (_OF_TCP, "connect", _no_coroutine, r"TCPConnector\.connect\(req, traces, timeout\)"),
    (_OF_TCP, "connect", _one_more, r"TCPConnector\.connect\(req, traces, timeout\)"),
    (_OF_TCP, "connect", None, r"TCPConnector\.connect\(req, traces, timeout\)"),
    *(
        (_OF_TCP, "__init__", _settings(*(other for other in _NEEDED if other != name)), rf"TCPConnector\({name}=\)$")
        for name in _NEEDED
    ),
    (aiohttp.client_proto.ResponseHandler, "should_close", ..., r"ResponseHandler\.should_close"),
    (aiohttp.connector.Connection, "protocol", ..., r"Connection\.protocol"),
    (aiohttp.connector.Connection, "close", ..., r"Connection\.close"),
    (aiohttp.connector, "Connection", ..., r"Connection\.close, Connection\.protocol"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [True, False], ids=["own session", "default session"])
@pytest.mark.parametrize(("holder", "name", "instead", "text"), ALTERED)
async def test_what_is_missing_is_named_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, instead: Any, text: str, own: bool
) -> None:
    """With the version of aiohttp; `...` stands for a name that is gone."""
    if instead is ...:
        monkeypatch.delattr(holder, name)
    else:
        monkeypatch.setattr(holder, name, instead)
    async with raw_server() as server, opened() as transport:

        async def use() -> None:
            if own:
                GuardedConnector()
            else:
                await transport.send(get(f"{server.url}/x"))

        with pytest.raises(ConfigurationError, match=text) as caught:
            await use()
        assert f"aiohttp {aiohttp.__version__}: it lacks" in caught.value.text
        assert server.received == []


class PassedBy:
    """Altered so that aiohttp never asks `GuardedConnector.connect`."""

    def __enter__(self) -> None:
        # As if aiohttp asked for connections in another way.
        self._patch = patch.object(GuardedConnector, "connect", aiohttp.TCPConnector.connect)
        self._patch.start()

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [True, False], ids=["own session", "default session"])
async def test_an_answer_that_came_past_the_connector(own: bool) -> None:
    """It is delivered, for money may have moved; nothing more is sent."""
    async with raw_server(answer(200, b"sold")) as server, opened_with() as given, opened() as default:
        transport = given if own else default
        request = sale(f"{server.url}/x")
        with PassedBy():
            assert (await transport.send(request)).body == b"sold"
            assert not request.delivery.started
        for _ in range(2):
            with pytest.raises(
                ConfigurationError, match=f"aiohttp {aiohttp.__version__}.*without asking the connector"
            ):
                await transport.send(request)
        assert len(server.received) == 1


@pytest.mark.asyncio
async def test_a_timeout_that_does_not_come_through_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connector tells the transport's requests by it."""
    connect = GuardedConnector.connect

    async def copying(self: GuardedConnector, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        return await connect(self, req, traces, aiohttp.ClientTimeout(timeout.total))

    monkeypatch.setattr(GuardedConnector, "connect", copying)
    async with raw_server(answer(200, b"ok")) as server, opened() as transport:
        assert (await transport.send(get(f"{server.url}/x"))).body == b"ok"
        with pytest.raises(ConfigurationError, match="without asking the connector"):
            await transport.send(get(f"{server.url}/x"))


@pytest.mark.asyncio
async def test_an_aiohttp_without_its_old_way_of_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the name is gone that test libraries replace, no test library answers."""
    send = aiohttp.ClientSession._request

    def renamed(self: aiohttp.ClientSession, method: str, url: Any, **options: Any) -> Any:
        return send(self, method, url, **options)

    async with raw_server(answer(200, b"ok")) as server, opened() as transport:
        with monkeypatch.context() as altered:
            altered.setattr(aiohttp.ClientSession, "request", renamed)
            altered.delattr(aiohttp.ClientSession, "_request")
            with PassedBy():
                await transport.send(get(f"{server.url}/x"))
        with pytest.raises(ConfigurationError, match="without asking the connector"):
            await transport.send(get(f"{server.url}/x"))


@pytest.mark.asyncio
async def test_a_test_library_may_answer_in_aiohttps_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no connection is asked for, and that is as it should be."""
    sent: list[str] = []

    async with raw_server(answer(200, b"real")) as server, aiohttp.ClientSession() as other:

        async def mocked(_: aiohttp.ClientSession, method: str, url: Any, **__: Any) -> aiohttp.ClientResponse:
            sent.append(method)
            return await other.get(url)

        async with opened() as transport:
            send = aiohttp.ClientSession._request

            async def dispatch(self: aiohttp.ClientSession, *args: Any, **options: Any) -> aiohttp.ClientResponse:
                return await (send if self is other else mocked)(self, *args, **options)

            monkeypatch.setattr(aiohttp.ClientSession, "_request", dispatch)
            for _ in range(3):
                assert (await transport.send(get(f"{server.url}/x"))).body == b"real"
    assert sent == ["GET"] * 3


@pytest.mark.asyncio
async def test_another_connector_is_refused_at_once() -> None:
    """The text says which one to use."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match=r"connector=GuardedConnector\(limit=0\)"):
            AiohttpTransport(session)
    # One that is closed already says so when it is used.
    AiohttpTransport(session)

"""The kit finds what it is there to find: each transport here breaks one promise."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import attrs
import pytest
from _pytest.outcomes import Failed

from phygitals_async import ClientClosed, ConnectError, ConnectionLost, Request, Response, Transport, TransportError
from phygitals_async.conformance import HttpTransportConformance, Settings, TransportConformance
from phygitals_async.conformance.exchanges import read, sale
from phygitals_async.conformance.faults import WIRE_FAULTS, Fault
from phygitals_async.conformance.life_cycle import LifeCycle
from phygitals_async.conformance.rules import UNREACHABLE
from phygitals_async.conformance.server import Script, fault_server
from phygitals_transports import AiohttpTransport

pytest_plugins = ["pytester"]


class Wrong:
    """An `AiohttpTransport` that does as it should, to be made wrong."""

    def __init__(self, settings: Settings) -> None:
        self.inner = AiohttpTransport(max_body=settings.max_body, connect_timeout=settings.connect_timeout)

    async def send(self, request: Request) -> Response:
        """Pass the request on."""
        return await self.inner.send(request)

    async def aclose(self) -> None:
        """Close the transport within."""
        await self.inner.aclose()


class Twice(Wrong):
    """Sends what was lost again."""

    async def send(self, request: Request) -> Response:
        """Try twice."""
        with suppress(ConnectionLost):
            return await self.inner.send(request)
        return await self.inner.send(request)


class Never(Wrong):
    """Takes any failure for one to connect."""

    async def send(self, request: Request) -> Response:
        """Say so."""
        try:
            return await self.inner.send(request)
        except TransportError:
            raise ConnectError("no connection") from None


class Telling(Wrong):
    """Shows the headers."""

    async def send(self, request: Request) -> Response:
        """Show them."""
        try:
            return await self.inner.send(request)
        except TransportError as error:
            raise ConnectionLost(repr(dict(request.headers))) from error


class Following(Wrong):
    """Follows redirects."""

    async def send(self, request: Request) -> Response:
        """Go wherever it leads."""
        response = await self.inner.send(request)
        if response.status in range(300, 400):
            return await self.inner.send(attrs.evolve(request, url=response.headers["location"]))
        return response


class Keeping(Wrong):
    """Uses a kept connection for everything."""

    async def send(self, request: Request) -> Response:
        """Forget that it was to be fresh."""
        return await self.inner.send(attrs.evolve(request, fresh_connection=False))


class Remembering(Wrong):
    """Sends cookies back."""

    async def send(self, request: Request) -> Response:
        """Add one."""
        return await self.inner.send(attrs.evolve(request, headers={**request.headers, "Cookie": "a=b"}))


class Quoting(Wrong):
    """Quotes the URL again."""

    async def send(self, request: Request) -> Response:
        """Change it."""
        return await self.inner.send(attrs.evolve(request, url=request.url.replace("%2f", "%2F")))


class Unbounded(Wrong):
    """Reads what there is."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(attrs.evolve(settings, max_body=10**9))


class Swallowing(Wrong):
    """Makes an error of cancellation."""

    async def send(self, request: Request) -> Response:
        """Swallow it."""
        try:
            return await self.inner.send(request)
        except asyncio.CancelledError:
            raise ConnectionLost("cancelled") from None


class Undying(Wrong):
    """Goes on after it was closed."""

    async def send(self, request: Request) -> Response:
        """Open again."""
        try:
            return await self.inner.send(request)
        except ClientClosed:
            self.inner = AiohttpTransport()
            return await self.inner.send(request)


def _fault(name: str) -> Fault:
    return next(fault for faults in WIRE_FAULTS.values() for fault in faults if fault.name == name)


Test = Callable[[HttpTransportConformance], Awaitable[None]]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (Twice, lambda kit: kit.test_fault(_fault("closed before any byte"), read)),
        (Never, lambda kit: kit.test_fault(_fault("reset before any byte"), sale)),
        (Never, lambda kit: kit.test_plain_http_to_a_tls_port(sale)),
        (Telling, lambda kit: kit.test_no_connection(UNREACHABLE["refused"], read)),
        (Following, lambda kit: kit.test_redirects_are_not_followed(302, False, read)),
        (Keeping, lambda kit: kit.test_a_fresh_connection_was_never_used()),
        (Remembering, lambda kit: kit.test_headers_are_sent_once_each_and_no_cookies()),
        (Quoting, lambda kit: kit.test_target_is_sent_byte_for_byte("/_/a%2fb")),
        (Unbounded, lambda kit: kit.test_bodies_up_to_the_cap_are_read("gzip", 1001)),
        (Swallowing, lambda kit: kit.test_cancellation_passes_through()),
        (Undying, lambda kit: kit.test_closed_transport_refuses(True)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_wrong_is_found(wrong: Callable[[Settings], Transport], test: Test) -> None:
    """And what is right is let pass."""

    class Kit(HttpTransportConformance):
        """The kit over a wrong transport, or the right one."""

        make: Any = staticmethod(Wrong)

        def transport(self, settings: Settings) -> Transport:
            made: Transport = self.make(settings)
            return made

    await test(Kit())
    Kit.make = staticmethod(wrong)
    with pytest.raises((AssertionError, Failed, ConnectionLost, ExceptionGroup)):
        await test(Kit())


def test_a_rule_that_is_kept_must_not_be_listed_as_one_that_is_not(pytester: pytest.Pytester) -> None:
    """What is listed is thereby true. And the run can write it down."""
    pytester.makepyfile(
        textwrap.dedent("""
            from phygitals_async.conformance import HttpTransportConformance, Rule
            from phygitals_transports import AiohttpTransport

            class TestMine(HttpTransportConformance):
                event_loops = ("asyncio",)
                unkept = frozenset({Rule.HEADER_SIZES})

                def transport(self, settings):
                    return AiohttpTransport(max_body=settings.max_body, connect_timeout=settings.connect_timeout)
        """)
    )
    options = ("-k", "test_rule and HEADER", "-p", "no:cacheprovider")
    done = pytester.runpytest_subprocess(*options, "--junitxml=kit.xml")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["[[]XPASS(strict)] refuses enormous headers"])
    cases = re.findall(r'<testcase [^>]*name="([^"]*)"', (pytester.path / "kit.xml").read_text())
    assert cases == ["test_rule[asyncio-HEADER_NAMES]", "test_rule[asyncio-HEADER_SIZES]"]


@pytest.mark.parametrize(
    "call",
    [
        lambda: TransportConformance().connected(lambda _: Response(200, {}, b"")),
        lambda: LifeCycle().transport(Settings()),
    ],
)
def test_what_a_kit_must_be_told(call: Callable[[], object]) -> None:
    """There is no transport that could be tested by default."""
    with pytest.raises(NotImplementedError):
        call()


@pytest.mark.anyio
async def test_a_mistake_in_a_script_is_raised() -> None:
    """As it is, and not in a group."""

    async def mistake(_: object) -> None:
        raise ZeroDivisionError

    async def use() -> None:
        async with fault_server() as server:
            await server.turn(Script(on_connect=mistake))
            async with await anyio.connect_tcp("127.0.0.1", server.port):
                await anyio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await use()

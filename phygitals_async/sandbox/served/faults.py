"""What goes wrong on purpose between a client and a served sandbox."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from html import escape
from typing import Final, Literal, TypeAlias

import anyio
from attrs import define, evolve

from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Effect
from phygitals_async._calls.verdicts import judge
from phygitals_async.errors import BadRequest, ConnectionLost, ServerError
from phygitals_async.transport import Response

Kind: TypeAlias = Literal["latency", "stall", "lost", "edge", "status"]

_EDGE: Final = """<!DOCTYPE html>
<html lang="en"><head><title>Attention Required! | Sandbox</title></head>
<body><h1>Sorry, you have been blocked</h1><p>You are unable to access {host}</p><p>Ray ID: {ray}</p></body></html>
"""


@define
class Fault:
    """One thing that goes wrong.

    Attributes:
        number: Which it is.
        kind: What goes wrong.
        operation: The client method whose requests are meant, or None for all.
        after: Whether the sandbox acts first.
        left: How many requests it will still hit; None for no end.
        seconds: How long a latency or a stall lasts.
        status: The status that is answered.
    """

    number: int
    kind: Kind
    operation: str | None
    after: bool
    left: int | None
    seconds: float
    status: int

    @property
    def text(self) -> str:
        """What it is, in words."""
        words = {
            "latency": f"{self.seconds:g} s late",
            "stall": f"no answer for {self.seconds:g} s, then the connection is closed",
            "lost": "the connection is closed without an answer",
            "edge": "403 in HTML, from an edge",
            "status": f"status {self.status}",
        }
        return words[self.kind] + (", after acting" if self.after else ", before acting")


class Faults:
    """The faults that are armed. Delays add up; of the rest, a request meets the one that was armed first.

    Args:
        sleep: Waits for some seconds.
    """

    def __init__(self, sleep: Callable[[float], Awaitable[object]] = anyio.sleep) -> None:
        self.armed: list[Fault] = []
        self._sleep = sleep
        self._number = 0

    def add(
        self, kind: Kind, operation: str | None, *, after: bool, times: int | None, seconds: float, status: int
    ) -> Fault:
        """Arm one."""
        self._number += 1
        self.armed.append(Fault(self._number, kind, operation, after, times, seconds, status))
        return self.armed[-1]

    def copies(self) -> list[Fault]:
        """Return what is armed now, to be armed again later."""
        return [evolve(fault) for fault in self.armed]

    def hitting(self, operation: str | None) -> list[Fault]:
        """Return the faults that hit a request, and count them as used."""
        hits: list[Fault] = []
        for fault in self.armed:
            is_second = fault.kind != "latency" and any(each.kind != "latency" for each in hits)
            if fault.operation in (None, operation) and not is_second:
                hits.append(fault)
        for fault in hits:
            if fault.left is not None:
                fault.left -= 1
        self.armed = [fault for fault in self.armed if fault.left != 0]
        return hits

    async def play(self, hits: list[Fault], act: Callable[[], Response], host: str) -> Response:
        """Answer a request that these faults hit, by `act` unless they say otherwise.

        Raises:
            ConnectionLost: No answer is to be sent.
        """
        failure = next((fault for fault in hits if fault.kind != "latency"), None)
        await self._pause(hits, after=False)
        if failure is None:
            response = act()
            await self._pause(hits, after=True)
            return response
        if failure.after:
            act()
        await self._pause(hits, after=True)
        if failure.kind == "stall":
            await self._sleep(failure.seconds)
        if failure.kind in ("stall", "lost"):
            msg = "lost on purpose"
            raise ConnectionLost(msg)
        return _edge(host) if failure.kind == "edge" else _status(failure.status)

    async def _pause(self, hits: list[Fault], *, after: bool) -> None:
        for fault in hits:
            if fault.kind == "latency" and fault.after is after:
                await self._sleep(fault.seconds)


def may_follow_acting(status: int, operation: str | None) -> bool:
    """Whether a server could answer with an error after it acted: clients take most for "nothing was done".

    Args:
        status: 400 to 599.
        operation: The client method whose requests are meant, or None for all.
    """
    error = (ServerError if status >= 500 else BadRequest)(status=status, message="", snippet="")
    effects = [one.effect for one in OPERATIONS if operation in (None, one.name)]
    return effects == [Effect.READS] or judge(error, Effect.MOVES_MONEY).leaves_open


def _edge(host: str) -> Response:
    """Answer as the firewall in front of the vendor's API (section 1, edge behaviour)."""
    ray = "8f0c5a0b2c1d3e4f-SBX"
    headers = {"content-type": "text/html; charset=UTF-8", "server": "cloudflare", "cf-ray": ray}
    return Response(403, headers, _EDGE.format(host=escape(host), ray=ray).encode())


def _status(status: int) -> Response:
    body = {"error": "An unexpected error occurred" if status >= 500 else "A fault on purpose"}
    return Response(status, {"content-type": "application/json; charset=utf-8"}, json.dumps(body).encode())

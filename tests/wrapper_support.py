"""What the tests of transports around transports share."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import anyio
from attrs import field, frozen

from phygitals_async import Request, Response, Sandbox

BASE: Final = "https://api.phygitals.com/_/api/v1"
KEY: Final = "sandbox-key-of-these-tests"


def get(path: str, key: str = KEY) -> Request:
    """Return a read."""
    return Request("GET", BASE + path, {"X-API-Key": key})


def post(path: str, body: bytes = b"{}", key: str = KEY) -> Request:
    """Return a request of another kind."""
    return Request("POST", BASE + path, {"X-API-Key": key, "Content-Type": "application/json"}, body)


def json_answer(status: int = 200, body: bytes = b"{}") -> Response:
    """Return an answer in JSON."""
    return Response(status, {"content-type": "application/json"}, body)


def sandbox() -> Sandbox:
    """Return a sandbox in which two users own a card each."""
    made = Sandbox(seed=5)
    made.add_item("ann", id="card-of-ann", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
    made.add_item("bob", id="card-of-bob", name="Mike Trout Base", buyback_price=Decimal("1.20"))
    return made


@frozen
class Gate:
    """A handler that answers a number, once it is opened.

    Attributes:
        arrived: Requests so far.
        opened: Lets them be answered.
    """

    arrived: list[Request] = field(factory=list)
    opened: list[anyio.Event] = field(factory=list)

    async def __call__(self, request: Request) -> Response:
        """Wait until this request is let go."""
        self.arrived.append(request)
        self.opened.append(anyio.Event())
        number = len(self.arrived)
        await self.opened[-1].wait()
        return json_answer(200, str(number).encode())

"""What the tests of a served sandbox share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from attrs import define, field

from phygitals_async import Request, Response
from phygitals_async.sandbox.served import MovableClock, ServedSandbox
from sandbox_support import NOW

HOST: Final = "127.0.0.1:8765"
ORIGIN: Final = f"http://{HOST}"


@define
class Client:
    """Asks a served sandbox as HTTP clients do, without HTTP. Pauses take no time, and are written down.

    Attributes:
        served: The sandbox.
        host: What it is asked as.
        paused: The seconds of each pause.
    """

    served: ServedSandbox
    host: str = HOST
    paused: list[float] = field(factory=list)

    async def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request."""
        sent = {"Host": self.host, **(headers or {})}
        return await self.served(Request(method, f"http://{self.host}{path}", sent, body))

    async def api(self, method: str, path: str, body: object = None, key: str = "sandbox-test") -> tuple[int, Any]:
        """Make a call of the Partner API, and return status and JSON."""
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        answer = await self.send(method, f"/_/api/v1{path}", _json(body), headers)
        return answer.status, json.loads(answer.body)

    async def admin(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Make a call of the admin API, and return status and JSON."""
        answer = await self.send(method, f"/_admin{path}", _json(body), headers)
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        return answer.status, json.loads(answer.body)

    async def page(self, path: str, **headers: str) -> str:
        """Return a page of the console."""
        answer = await self.send("GET", f"/_console{path}", headers=headers)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    async def form(self, name: str, /, **fields: str) -> Response:
        """Send a form of the console, as a browser does."""
        headers = {"Origin": f"http://{self.host}", "Sec-Fetch-Site": "same-origin"}
        return await self.send("POST", f"/_console/do/{name}", urlencode(fields).encode(), headers)


def client(now: datetime = NOW, **settings: Any) -> Client:
    """Return a client of a served sandbox of its own, whose time stands still until it is moved."""
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    return Client(ServedSandbox(clock=MovableClock(lambda: now), sleep=pause, seed=1, **settings), paused=paused)


def _json(body: object) -> bytes | None:
    return None if body is None else json.dumps(body).encode()

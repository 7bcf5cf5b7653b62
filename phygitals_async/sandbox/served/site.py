"""A sandbox as it is served: with its pictures, its admin API, its console, and faults between it and its clients."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import unquote

import anyio
import attrs

from phygitals_async.models import Metadata
from phygitals_async.sandbox.market import full_catalogue
from phygitals_async.sandbox.options import SandboxOptions
from phygitals_async.sandbox.population import populate
from phygitals_async.sandbox.sandbox import Sandbox
from phygitals_async.sandbox.served import pictures
from phygitals_async.sandbox.served.admin import Admin, refusal
from phygitals_async.sandbox.served.clock import MovableClock
from phygitals_async.sandbox.served.console import Console
from phygitals_async.sandbox.served.controls import EXPIRED, Controls
from phygitals_async.sandbox.served.faults import Faults
from phygitals_async.sandbox.served.gate import TOKEN_HEADER, Gate, named_host
from phygitals_async.sandbox.served.log import RequestLog, beginning
from phygitals_async.sandbox.served.records import Records
from phygitals_async.sandbox.wire import no_such_route, path_and_query
from phygitals_async.transport import Request, Response
from phygitals_async.wrapping import operation_of

# Stands for the server's own address, which each request knows better than the server.
_ORIGIN: Final = "http://sandbox.invalid"
# A picture is no page, and cannot become one.
_PICTURE: Final = {
    "content-type": "image/svg+xml",
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "max-age=60",
}


class ServedSandbox:
    """A handler of requests around a `Sandbox`, for `phygitals_transports.aiohttp_server.serve`.

    Below `/_admin` is the admin API, at `/_console` the console, below `/_cards` the pictures; everything else is the
    sandbox's, after the faults that are armed. It has the catalogue of `full_catalogue` and a clock that can be moved.

    Args:
        users: How many users to start with; see `populate`.
        seed: Makes the data repeatable.
        options: What only production does.
        token: What opens the admin API and the console; None for a server that only this machine can reach.
        clock: The time, UTC; by default the machine's.
        sleep: Waits for some seconds, for latencies and stalls.

    Attributes:
        sandbox: The sandbox behind it.
    """

    def __init__(
        self,
        *,
        users: int = 0,
        seed: int = 0,
        options: SandboxOptions | None = None,
        token: str | None = None,
        clock: MovableClock | None = None,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    ) -> None:
        clock = clock or MovableClock()
        catalogue = functools.partial(full_catalogue, pictures=_ORIGIN)
        self.sandbox = Sandbox(
            clock=clock, limit_clock=clock.machine, seed=seed, options=options, catalogue=catalogue, pictures=_ORIGIN
        )
        populate(self.sandbox, users, seed=seed, expired=EXPIRED)
        self._faults = Faults(sleep)
        self._log = RequestLog()
        self._gate = Gate(token)
        self._admin = Admin(Controls(self.sandbox, clock, self._faults, self._log), Records(self.sandbox))
        self._console = Console(self._admin, self._gate)

    async def __call__(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            ConnectionLost: A fault wants the connection to be closed instead.
        """
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, _ = path_and_query(request.url)
        top = path.split("/", 2)[1]
        if not self._gate.is_same_site(request.method, headers):
            return refusal(403, "A page of another site may change nothing here")
        if top == "_cards":
            return self._picture(request.method, path)
        if top not in ("_admin", "_console"):
            return await self._traffic(request, headers)
        if not self._gate.knows(headers):
            return refusal(403, "Ask for it under the address that was printed: this is not a name of this server")
        if top == "_console":
            return await self._console.answer(request, headers)
        if not self._gate.opens(headers.get(TOKEN_HEADER)):
            return refusal(401, "X-Admin-Token must be the token that was printed at the start")
        return _with_pictures_here(await self._admin.answer(request), named_host(headers))

    async def _traffic(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Hand a request to the sandbox, past the faults, and write it down."""
        operation = operation_of(request)
        entry = self._log.enter(self.sandbox.now(), request, operation)
        started = time.perf_counter()
        try:
            if self._faults.armed and (hits := self._faults.hitting(operation)):
                entry.fault = "; ".join(fault.text for fault in hits)
                response = await self._faults.play(hits, lambda: self.sandbox(request), named_host(headers))
            else:
                response = self.sandbox(request)
        finally:
            entry.milliseconds = (time.perf_counter() - started) * 1000
        response = _with_pictures_here(response, named_host(headers))
        entry.status, entry.answer = response.status, beginning(response.body)
        return response

    def _picture(self, method: str, path: str) -> Response:
        """Draw a card's, or a pack's."""
        parts = path.split("/")
        if len(parts) != 4 or parts[3] not in ("front.svg", "back.svg"):
            return no_such_route(method, path)
        if method not in ("GET", "HEAD"):
            return Response(405, {"allow": "GET, HEAD"}, b"")
        face = self._face(unquote(parts[2]))
        return Response(200, _PICTURE, (pictures.front if parts[3] == "front.svg" else pictures.back)(face).encode())

    def _face(self, card_id: str) -> pictures.Face:
        if (stock := self.sandbox.stocks.get(card_id)) is not None:
            return pictures.Face(card_id, stock.pack.name, "Pack")
        ledger = self.sandbox.ledger
        holding = ledger.find(card_id) or ledger.sold.get(card_id)
        if holding is not None:
            return _face_of(card_id, holding.item.content.metadata)
        listing = next((found for each in self.sandbox.stocks.values() if (found := each.find(card_id))), None)
        return (
            pictures.Face(card_id, "Unknown card", "Card") if listing is None else _face_of(card_id, listing.metadata)
        )


def _face_of(card_id: str, metadata: Metadata) -> pictures.Face:
    facts = {fact.trait_type: str(fact.value) for fact in metadata.attributes}
    return pictures.Face(card_id, metadata.name, facts.get("Category", "Card"), facts.get("Grade", ""))


def _with_pictures_here(response: Response, host: str) -> Response:
    here = f"http://{host or '127.0.0.1'}"
    return attrs.evolve(response, body=response.body.replace(_ORIGIN.encode(), here.encode()))

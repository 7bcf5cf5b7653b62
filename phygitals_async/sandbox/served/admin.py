"""The admin API: what can be asked for under `/_admin`, in JSON."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import attrs
import msgspec

from phygitals_async.errors import ConfigurationError
from phygitals_async.sandbox.records import Refused
from phygitals_async.sandbox.served import bodies
from phygitals_async.sandbox.served.controls import Controls
from phygitals_async.sandbox.served.records import Records
from phygitals_async.sandbox.served.routes import ROUTES, Route
from phygitals_async.sandbox.wire import path_and_query
from phygitals_async.transport import Request, Response
from phygitals_async.version import VERSION

_JSON = {"content-type": "application/json; charset=utf-8", "cache-control": "no-store"}


class Admin:
    """Answers the routes of the admin API, for programs and for the console's forms.

    Attributes:
        controls: What can be switched.
        records: What is there.
    """

    def __init__(self, controls: Controls, records: Records) -> None:
        self.controls = controls
        self.records = records

    def get_state(self) -> bodies.State:
        """Show how much there is of everything."""
        ledger, controls = self.controls.sandbox.ledger, self.controls
        return bodies.State(
            version=VERSION,
            clock=controls.get_clock(),
            users=len(ledger.users),
            items=sum(len(owned) for owned in ledger.users.values()),
            packs=len(controls.sandbox.stocks),
            purchases=len(ledger.purchases),
            sellbacks=len(ledger.sales),
            orders=len(ledger.orders),
            requests=controls.log.count,
            faults=len(controls.faults.armed),
            snapshots=[kept.name for kept in controls.list_snapshots()],
        )

    def does(self, route: Route) -> Callable[..., Any]:
        """Return what does what a route is for."""
        owner = next(each for each in (self, self.controls, self.records) if hasattr(each, route.name))
        does: Callable[..., Any] = getattr(owner, route.name)
        return does

    async def do(self, route: Route, segments: Mapping[str, str], body: Any = None, query: Any = None) -> Any:
        """Do what a route is for.

        Args:
            route: Which.
            segments: The parameters of its path, by name.
            body: What its `body` type describes.
            query: What its `query` type describes.

        Raises:
            Refused: It cannot be done.
        """
        arguments: dict[str, Any] = dict(segments)
        if route.body is not None:
            arguments["body"] = body
        if route.query is not None:
            arguments["query"] = query
        try:
            done = self.does(route)(**arguments)
            return await done if inspect.isawaitable(done) else done
        except (ConfigurationError, OverflowError) as error:
            raise Refused(400, str(error)) from None

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        path, query = path_and_query(request.url)
        method = "GET" if request.method == "HEAD" else request.method
        here = {route.method: (route, found) for route in ROUTES if (found := route.pattern.fullmatch(path))}
        if not here:
            return refusal(404, f"No such route: {request.method} {path}")
        if method not in here:
            allowed = ", ".join(here)
            refused = refusal(405, f"{path} takes {allowed} only")
            return attrs.evolve(refused, headers={**refused.headers, "allow": allowed})
        route, found = here[method]
        segments = {name: unquote(text) for name, text in found.groupdict().items()}
        try:
            body = None if route.body is None else msgspec.json.decode(request.body or b"", type=route.body)
            answer = await self.do(route, segments, body, _query(route, query))
        except Refused as refused:
            return refusal(refused.status, refused.body["error"])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return refusal(400, str(error))
        return Response(route.status, _JSON, msgspec.json.encode(answer))


def refusal(status: int, error: str) -> Response:
    """Say no."""
    return Response(status, _JSON, msgspec.json.encode({"error": error}))


def _query(route: Route, query: str) -> Any:
    if route.query is None:
        return None
    fields = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    return msgspec.convert(fields, route.query, strict=False)

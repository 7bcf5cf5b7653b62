"""The console: the pages at `/_console`, and the forms on them, each of which is a route of the admin API."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from phygitals_async._extras import load
from phygitals_async.errors import ConfigurationError
from phygitals_async.sandbox.records import Refused
from phygitals_async.sandbox.served import shown
from phygitals_async.sandbox.served.admin import Admin
from phygitals_async.sandbox.served.gate import COOKIE, Gate, cookie_of
from phygitals_async.sandbox.served.pages import Pages
from phygitals_async.sandbox.served.routes import ROUTES
from phygitals_async.sandbox.wire import path_and_query
from phygitals_async.transport import Request, Response

_HERE: Final = Path(__file__).parent
_ROOT: Final = "/_console"
_HTML: Final = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # A stricter one would take the origin off the page's own forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_STATIC: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_ROUTES: Final = {route.name: route for route in ROUTES}


class Console:
    """Answers what a browser asks for.

    Args:
        admin: What the forms do.
        gate: Who may come in.
    """

    def __init__(self, admin: Admin, gate: Gate) -> None:
        self._admin = admin
        self._gate = gate
        self._pages = Pages(admin)

    def answer(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Answer a request."""
        path, query = path_and_query(request.url)
        below = path.removeprefix(_ROOT).strip("/")
        try:
            return self._page(request, headers, below, _fields(query))
        except ConfigurationError as error:
            # The library for templates is not installed.
            return Response(503, {"content-type": "text/plain; charset=utf-8"}, f"{error}\n".encode())

    def _page(self, request: Request, headers: Mapping[str, str], below: str, query: Mapping[str, str]) -> Response:
        if request.method == "GET" and (name := below.removeprefix("static/")) in _STATIC:
            content = (_HERE / "static" / name).read_bytes()
            return Response(200, {"content-type": _STATIC[name], "x-content-type-options": "nosniff"}, content)
        sent = _fields((request.body or b"").decode(errors="replace")) if request.method == "POST" else {}
        token = sent.get("token") if below == "login" else query.get("token") if not below else None
        if token is not None and self._gate.token is not None and self._gate.opens(token):
            return _see(_ROOT, {"set-cookie": f"{COOKIE}={self._gate.token}; Path=/; HttpOnly; SameSite=Strict"})
        if not self._gate.opens(cookie_of(headers)):
            return self._rendered(401, "login.html", {"title": "Token", "is_wrong": token is not None})
        if request.method == "POST" and below.startswith("do/"):
            return self._done(below.removeprefix("do/"), sent)
        return self._shown(request, headers, below, query)

    def _shown(self, request: Request, headers: Mapping[str, str], below: str, query: Mapping[str, str]) -> Response:
        """Show a page, or, to the script that follows it, the parts of it that change."""
        name, _, rest = below.partition("/")
        page = self._pages.find(name, unquote(rest)) if request.method == "GET" else None
        if page is None:
            return self._failed(404, f"There is no page {_ROOT}/{below}", _ROOT)
        try:
            context = page(query)
        except Refused as refused:
            return self._failed(refused.status, refused.body["error"], f"{_ROOT}/{name}")
        except msgspec.ValidationError as error:
            return self._failed(400, str(error), f"{_ROOT}/{name}")
        context.update(self._pages.status())
        path, asked = path_and_query(request.url)
        here = f"{path}?{asked}" if asked else path
        # Where forms come back to, without what the last one said.
        context.update(here=re.sub(r"[?&]done=\w*", "", here), page=name, done=shown.DONE.get(query.get("done", "")))
        template = "user" if rest else name or "overview"
        return self._rendered(200, f"{template}.html", context, is_part=headers.get("x-part") == "live")

    def _done(self, name: str, sent: dict[str, str]) -> Response:
        """Do what a form is for, and show the page it was on."""
        # Another site's address would begin with a scheme, or with two slashes.
        back = urlsplit(sent.pop("back", ""))
        there = back.path if back.path.startswith(_ROOT) and not back.netloc else _ROOT
        again = f"{there}?{back.query}&" if back.query and there == back.path else f"{there}?"
        if (route := _ROUTES.get(name)) is None:
            return self._failed(404, f"There is no form {name}", there)
        try:
            segments = {parameter: sent.pop(parameter, "") for parameter in route.parameters}
            body = None if route.body is None else msgspec.convert(shown.nested(sent), route.body, strict=False)
            self._admin.do(route, segments, body, route.query and route.query())
        except Refused as refused:
            return self._failed(refused.status, refused.body["error"], there)
        except msgspec.ValidationError as error:
            return self._failed(400, str(error), there)
        return _see(f"{again}done={name}")

    def _failed(self, status: int, error: str, back: str) -> Response:
        return self._rendered(status, "failed.html", {"title": "That did not work", "error": error, "back": back})

    def _rendered(self, status: int, template: str, context: Mapping[str, Any], *, is_part: bool = False) -> Response:
        found = self._templates.get_template(template)
        if not is_part:
            return Response(status, _HTML, found.render(context).encode())
        own = found.new_context(dict(context))
        live = "".join(found.blocks["live"](own)) if "live" in found.blocks else ""
        strip = self._templates.get_template("_status.html").render(context)
        text = f'<div id="status">{strip}</div><div id="live">{live}</div>'
        return Response(status, _HTML, text.encode())

    @functools.cached_property
    def _templates(self) -> Any:
        jinja2 = load("jinja2", "console")
        templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates.filters.update(shown.FILTERS)
        return templates


def _fields(text: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}


def _see(address: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(303, {"location": address, "cache-control": "no-store", **(headers or {})}, b"")

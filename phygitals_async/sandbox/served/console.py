"""The console: the pages at `/_console`, and the forms on them, each of which is a route of the admin API."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import attrs
import msgspec
from attrs import field, frozen

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
# The parts of a page that are followed, beside its status.
_LIVE: Final = ("live", "latest")
# The cookie that tells the next page which form was done.
_DONE: Final = "phygitals_done"
_ROUTES: Final = {route.name: route for route in ROUTES}


@frozen(eq=False)
class _Failure:
    """What came of a form that could not be done, for the page it was on to show it filled in as it was.

    Attributes:
        status: The HTTP status.
        error: Why.
        form: The route it is for.
        sent: Its fields.
    """

    status: int = 200
    error: str = ""
    form: str = ""
    sent: Mapping[str, str] = field(factory=dict)

    def was(self, form: str, name: str, otherwise: Any) -> Any:
        """Return what a field is to be filled in with."""
        return self.sent.get(name, otherwise) if form == self.form else otherwise


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

    async def answer(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Answer a request."""
        path, query = path_and_query(request.url)
        method = "GET" if request.method == "HEAD" else request.method
        try:
            return await self._routed(method, path, query, request.body or b"", headers)
        except ConfigurationError as error:
            # The library for templates is not installed.
            return Response(503, {"content-type": "text/plain; charset=utf-8"}, f"{error}\n".encode())

    async def _routed(self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]) -> Response:
        below = path.removeprefix(_ROOT).strip("/")
        if method == "GET" and (name := below.removeprefix("static/")) in _STATIC:
            content = (_HERE / "static" / name).read_bytes()
            return Response(200, {"content-type": _STATIC[name], "x-content-type-options": "nosniff"}, content)
        sent = _fields(body.decode(errors="replace")) if method == "POST" else {}
        token = sent.get("token") if below == "login" else _fields(query).get("token") if not below else None
        if token is not None and self._gate.token is not None and self._gate.opens(token):
            return _see(_ROOT, f"{COOKIE}={self._gate.token}; Path=/; HttpOnly; SameSite=Strict")
        if not self._gate.opens(cookie_of(headers)):
            return self._rendered(401, "login.html", {"title": "Token", "is_wrong": token is not None})
        form = below.removeprefix("do/")
        is_form = below.startswith("do/") or below == "login"
        if method != ("POST" if is_form else "GET"):
            allowed = "POST" if is_form else "GET, HEAD"
            failed = self._failed(405, f"{_ROOT}/{below} takes {allowed} only")
            return attrs.evolve(failed, headers={**failed.headers, "allow": allowed})
        if form == below:
            done = cookie_of(headers, _DONE)
            return self._shown(path, query, done=done, is_part=headers.get("x-part") == "live")
        return await self._done(form, sent)

    def _shown(
        self, path: str, query: str, failure: _Failure = _Failure(), *, done: str | None = None, is_part: bool = False
    ) -> Response:
        """Show a page, or, to the script that follows it, the parts of it that change."""
        below = path.removeprefix(_ROOT).strip("/")
        name, _, rest = below.partition("/")
        # Of the query nothing else is written into a page: it may be a token.
        asked = {field: text for field, text in _fields(query).items() if field in ("start", "search")}
        page = self._pages.find(name, unquote(rest))
        if page is None:
            return self._failed(404, f"There is no page {_ROOT}/{below}")
        try:
            context = page(asked)
        except Refused as refused:
            return self._failed(refused.status, refused.body["error"], f"{_ROOT}/{name}")
        except msgspec.ValidationError as error:
            return self._failed(400, str(error), f"{_ROOT}/{name}")
        said = None if is_part or failure.error else shown.DONE.get(done or "")
        here = f"{path}?{urlencode(asked)}" if asked else path
        context.update(self._pages.status(), here=here, page=name, done=said, error=failure.error, was=failure.was)
        answer = self._rendered(failure.status, page.template, context, is_part=is_part)
        # It is said once: a reload of the page says it no more.
        return answer if said is None else attrs.evolve(answer, headers={**answer.headers, **_noted("", 0)})

    async def _done(self, name: str, sent: Mapping[str, str]) -> Response:
        """Do what a form is for, and show the page it was on."""
        # Another site's address would begin with a scheme, or with two slashes.
        back = urlsplit(sent.get("back", ""))
        path, query = (back.path, back.query) if back.path.startswith(_ROOT) and not back.netloc else (_ROOT, "")
        if (route := _ROUTES.get(name)) is None:
            return self._failed(404, f"There is no form {name}", path)
        fields = shown.changed({field: text for field, text in sent.items() if field != "back"})
        try:
            segments = {parameter: fields.pop(parameter, "") for parameter in route.parameters}
            body = None if route.body is None else msgspec.convert(shown.nested(fields), route.body, strict=False)
            await self._admin.do(route, segments, body, route.query and route.query())
        except Refused as refused:
            return self._shown(path, query, _Failure(refused.status, refused.body["error"], name, sent))
        except msgspec.ValidationError as error:
            return self._shown(path, query, _Failure(400, str(error), name, sent))
        return _see(f"{path}?{query}" if query else path, _noted(name, 60)["set-cookie"])

    def _failed(self, status: int, error: str, back: str = _ROOT) -> Response:
        context = {"title": "That did not work", "error": error, "back": back, "page": None, **self._pages.status()}
        return self._rendered(status, "failed.html", context)

    def _rendered(self, status: int, template: str, context: Mapping[str, Any], *, is_part: bool = False) -> Response:
        found = self._templates.get_template(template)
        if not is_part:
            return Response(status, _HTML, found.render(context).encode())
        own = found.new_context(dict(context))
        parts = {"status": self._templates.get_template("_status.html").render(context)}
        parts |= {name: "".join(found.blocks[name](own)) for name in _LIVE if name in found.blocks}
        text = "".join(f'<div id="{name}">{part}</div>' for name, part in parts.items())
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


def _see(address: str, cookie: str) -> Response:
    return Response(303, {"location": address, "cache-control": "no-store", "set-cookie": cookie}, b"")


def _noted(name: str, seconds: int) -> dict[str, str]:
    """Have the browser remember which form was done, until a page has said so."""
    return {"set-cookie": f"{_DONE}={name}; Path={_ROOT}; Max-Age={seconds}; HttpOnly; SameSite=Strict"}

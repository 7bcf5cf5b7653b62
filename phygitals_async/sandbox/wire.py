"""What a sandbox reads of a request, and its answer to one for which it has no route."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import msgspec

from phygitals_async.sandbox.records import Refused
from phygitals_async.transport import Response

# Beyond this, a body that can be read may be too deep to be written again.
_DEEPEST: Final = 64


def json_object(content_type: str, body: bytes | None) -> Mapping[str, Any]:
    """Read a JSON object; a body of any other kind counts as empty, so its fields are missing."""
    if content_type.partition(";")[0].strip().lower() != "application/json" or not body:
        return {}
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused(400, "Invalid JSON") from None
    if _is_deep(plain):
        raise Refused(400, "Invalid JSON")
    return plain if isinstance(plain, dict) else {}


def _is_deep(plain: Any) -> bool:
    """Whether JSON values are nested more than `_DEEPEST` levels deep."""
    level = [plain]
    for _ in range(_DEEPEST + 1):
        inner = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        level = [node for nodes in inner for node in nodes]
    return bool(level)


def path_and_query(url: str) -> tuple[str, str]:
    """Split a URL whose host may be anything a client put into its Host header."""
    target = url.partition("#")[0].partition("://")[2]
    path, _, query = target[target.find("/") :].partition("?") if "/" in target else ("/", "", "")
    return path, query


def no_such_route(method: str, path: str) -> Response:
    """Answer as a server without such a route; its body is undocumented, and no JSON (section 2.7)."""
    html = f"<!DOCTYPE html>\n<html><body><pre>Cannot {escape(method)} {escape(path)}</pre></body></html>\n"
    return Response(404, {"content-type": "text/html; charset=utf-8"}, html.encode())

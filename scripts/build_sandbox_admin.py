"""Writes docs/sandbox-admin.json, the contract of the sandbox's admin API: `python scripts/build_sandbox_admin.py`.

Nothing of it is typed here a second time: paths come from the routes, schemas from the types of what they take and
answer, descriptions from the docstrings.
"""

from __future__ import annotations

import inspect
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec

from phygitals_async.sandbox.served.admin import Admin
from phygitals_async.sandbox.served.controls import Controls
from phygitals_async.sandbox.served.records import Records
from phygitals_async.sandbox.served.routes import ROUTES, Route
from phygitals_async.version import VERSION

TARGET: Final = Path(__file__).parent.parent / "docs" / "sandbox-admin.json"

_ERROR: Final = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def document() -> str:
    """Return the document as text."""
    types = [kind for route in ROUTES for kind in (route.answer, route.body, route.query) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = list(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type, components)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "The sandbox's admin API",
            "version": VERSION,
            "description": "What `phygitals sandbox` can be told to do, and asked about. Amounts in USD are text, "
            "except in items, which are answered as the Partner API answers them: there they are numbers.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:8765", "description": "`phygitals sandbox`"}],
        # A sandbox that only its own machine can reach needs no token.
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Admin-Token"}},
        },
    }
    return json.dumps(_in_order(whole), indent=2, ensure_ascii=False) + "\n"


def _operation(route: Route, by_type: list[tuple[Any, dict[str, Any]]], components: dict[str, Any]) -> dict[str, Any]:
    text = _docstring(route)
    described: dict[str, Any] = {"operationId": route.name, "summary": text.partition(".")[0].partition(";")[0]}
    if text.rstrip(".") != described["summary"]:
        described["description"] = text
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters
    ]
    if route.query is not None:
        fields = components[route.query.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]
    if parameters:
        described["parameters"] = parameters
    if route.body is not None:
        described["requestBody"] = {"required": True, "content": _json(_schema(route.body, by_type))}
    described["responses"] = {
        str(route.status): {
            "description": HTTPStatus(route.status).phrase,
            "content": _json(_schema(route.answer, by_type)),
        },
        **{
            str(status): {
                "description": HTTPStatus(status).phrase,
                "content": _json({"$ref": "#/components/schemas/Error"}),
            }
            for status in sorted({400, 401, 403, *route.errors})
        },
    }
    return described


def _docstring(route: Route) -> str:
    owner = next(each for each in (Admin, Controls, Records) if hasattr(each, route.name))
    return " ".join((inspect.getdoc(getattr(owner, route.name)) or "").split())


def _schema(kind: Any, by_type: list[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    return next(schema for each, schema in by_type if each == kind)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _in_order(node: Any) -> Any:
    """Put alternatives in an order that does not depend on the version of msgspec."""
    if isinstance(node, dict):
        node = {name: _in_order(value) for name, value in node.items()}
        if "anyOf" in node:
            node["anyOf"].sort(key=lambda kind: (kind.get("type") == "null", json.dumps(kind, sort_keys=True)))
        return node
    return [_in_order(value) for value in node] if isinstance(node, list | tuple) else node


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")

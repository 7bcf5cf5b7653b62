"""Writes docs/openapi.json from the declarations and the models: `python scripts/build_openapi.py`.

Nothing of the contract is typed here a second time: paths, arguments and refusals come from
`phygitals_async.operations`, shapes from the models' annotations, descriptions from their docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from phygitals_async import PhygitalsClient, models
from phygitals_async.operations import OPERATIONS, Effect, Operation
from phygitals_async.version import version

TARGET: Final = Path(__file__).parent.parent / "docs" / "openapi.json"
_REF: Final = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    answers, schemas = msgspec.json.schema_components(
        [operation.answer for operation in OPERATIONS] + [models.Destination], ref_template=_REF
    )
    paths: dict[str, Any] = {}
    for operation, answer in zip(OPERATIONS, answers, strict=False):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, answer)
    error = {
        "type": "object",
        "description": "A readable sentence, and no code.",
        "properties": {"error": {"type": "string"}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Phygitals Partner API",
            "version": version(),
            "summary": "As phygitals-async speaks it; not published by the vendor.",
        },
        "servers": [
            {"url": "https://api.phygitals.com/api/v1", "description": "Production: real money and goods."},
            {"url": "https://api.phygitals.com/_/api/v1", "description": "The vendor's sandbox."},
            {"url": "http://127.0.0.1:8765/_/api/v1", "description": "python -m phygitals_async.sandbox"},
        ],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
            "schemas": {
                **{name: _schema(schema, getattr(models, name)) for name, schema in sorted(schemas.items())},
                "Error": error,
            },
        },
    }


def _operation(operation: Operation[Any], answer: dict[str, Any]) -> dict[str, Any]:
    summary, _, details = (inspect.getdoc(getattr(PhygitalsClient, operation.name)) or "").partition("\n")
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary,
        "description": details.partition("\nArgs:")[0].partition("\nRaises:")[0].strip(),
        "x-effect": operation.effect.value,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
              for name in operation.path_arguments),
            *({"name": name, "in": "query", "required": False, "schema": argument.kind.schema}
              for name, argument in operation.query.items()),
        ],
        "responses": _responses(operation, answer),
    }  # fmt: skip
    if operation.body:
        schema = {
            "type": "object",
            "properties": {name: argument.kind.schema for name, argument in operation.body.items()},
            "required": list(operation.body),
        }
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if operation.effect is not Effect.READS:
        described["description"] += "\n\nNot idempotent: never repeat it automatically."
    return {name: value for name, value in described.items() if value}


def _responses(operation: Operation[Any], answer: dict[str, Any]) -> dict[str, Any]:
    texts: dict[str, list[str]] = {"401": ["Invalid API key"]}
    for refusal in operation.refusals:
        if refusal.status is not None:
            texts.setdefault(str(refusal.status), []).append(refusal.text)
    schema = {"$ref": _REF.format(name="Error")}
    refusals = {
        status: {
            "description": "; ".join(said),
            "content": {
                "application/json": {
                    "schema": schema,
                    "examples": {f"refusal{n}": {"value": {"error": text}} for n, text in enumerate(said, 1)},
                }
            },
        }
        for status, said in sorted(texts.items())
    }
    fallback = {
        "description": "Any other refusal. At the edge it may be HTML.",
        "content": {"application/json": {"schema": schema}, "text/html": {}},
    }
    done = {"description": "Done.", "content": {"application/json": {"schema": answer}}}
    return {"200": done, **refusals, "default": fallback}


def _schema(schema: dict[str, Any], cls: type) -> dict[str, Any]:
    doc = inspect.getdoc(cls) or ""
    described = dict(_plain(schema), description=doc.partition("\n\nAttributes:")[0])
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", doc, re.MULTILINE))
    for name, field in described.get("properties", {}).items():
        if name in texts:
            field["description"] = re.sub(r"\s+", " ", texts[name])
    if not described.get("required", True):
        del described["required"]
    return described


def _plain(node: Any) -> Any:
    """Write numbers as JSON does, leave enums open, and drop the defaults that mean "not in the answer"."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "decimal":
        return {"type": ["number", "string"]}
    if "enum" in node:
        kept = {name: value for name, value in node.items() if name != "enum"}
        return {**kept, "type": "string", "examples": node["enum"]}
    return {name: _plain(value) for name, value in node.items() if name != "default"}


def render() -> str:
    """Return the text of the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render())

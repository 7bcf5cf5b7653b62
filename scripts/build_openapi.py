"""Writes docs/openapi.json from the declarations and the models: `python scripts/build_openapi.py`.

Nothing of the contract is typed here a second time: paths, arguments and refusals come from
`phygitals_async.operations`, shapes from the models' annotations, descriptions from their docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec

from phygitals_async import PhygitalsClient, models
from phygitals_async._api.arguments import Argument
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Effect, Operation
from phygitals_async.version import VERSION

TARGET: Final = Path(__file__).parent.parent / "docs" / "openapi.json"
_REF: Final = "#/components/schemas/{name}"
# What a parameter that is left out counts as (API sheet, 2.1 and 2.3).
_DEFAULTS: Final[dict[str, Any]] = {"platform": "mainnet", "limit": 20}
# What stands in an example for the part of a text that varies.
_FILLED: Final = {"{max_per_mint}": "10", "{...}": "…"}


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
        "description": "A readable sentence, and no code. A refused address brings more.",
        "properties": {
            "error": {"type": "string", "description": "What is wrong."},
            "details": {"type": "string", "description": "What is wrong with an address, in the validator's words."},
            "suggested": {
                "type": "object",
                "description": "A corrected address, or parts of one, where the validator has any.",
            },
        },
        "required": ["error"],
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Phygitals Partner API",
            "version": VERSION,
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
            *({"name": name, "in": "query", "required": False, "schema": _parameter(name, argument)}
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


def _parameter(name: str, argument: Argument) -> dict[str, Any]:
    default = {"default": _DEFAULTS[name]} if name in _DEFAULTS else {}
    return {**argument.kind.schema, **default}


def _example(text: str) -> dict[str, str]:
    for template, filled in _FILLED.items():
        text = text.replace(template, filled)
    return {"error": text}


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
                    "examples": {f"refusal{n}": {"value": _example(text)} for n, text in enumerate(said, 1)},
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
    hints = get_type_hints(cls)
    for name, field in described.get("properties", {}).items():
        if datetime in (hints[name], *get_args(hints[name])):
            for one in field.get("anyOf", [field]):
                if one["type"] == "string":
                    one["format"] = "date-time"
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

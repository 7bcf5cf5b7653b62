"""Writes docs/openapi.json from the declarations, the models and the fixtures: `python scripts/build_openapi.py`.

Nothing of the contract is typed here a second time: paths, arguments and refusals come from the declarations, shapes
from the models' annotations, descriptions from their docstrings, examples and tags from `tests/fixtures`. What is typed
here is what those cannot say: defaults, the shapes of an envelope, and which answer has what another call takes.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import attrs
import msgspec

from phygitals_async import PhygitalsClient, models
from phygitals_async._api.arguments import ID
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Effect, Operation
from phygitals_async.models.fields import EMPTY_IF_NULL, ROWS
from phygitals_async.version import version

_ROOT: Final = Path(__file__).parent.parent
TARGET: Final = _ROOT / "docs" / "openapi.json"
_FIXTURES: Final = _ROOT / "tests" / "fixtures"
_REF: Final = "#/components/schemas/{name}"
# What a parameter that is left out counts as (API sheet, 2.1 and 2.3).
_DEFAULTS: Final[dict[str, Any]] = {"platform": "mainnet", "limit": 20}
# What stands in an example for the part of a text that varies.
_FILLED: Final = {"{max_per_mint}": "10", "{...}": "…"}
# A number of the size that money has; as text, in JSON's own syntax (API sheet, 5).
_NUMBER: Final = {"type": ["number", "string"], "pattern": r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?$"}
# The sandbox's whole check, and one that holds for every code of production's list (API sheet, 2.9).
_COUNTRY: Final = {"minLength": 2, "maxLength": 2}
# Fields that repeat the id asked for: a mock that answers with the id of the example request is believed.
_ECHOES: Final = [("Inventory", "user_id"), ("Purchase", "session_id"), ("ShippingOrder", "order_id")]
# Which answer has what another operation takes, by the names on the wire.
_LINKS: Final[dict[str, dict[str, dict[str, str]]]] = {
    "list_packs": {"list_chase_cards": {"slug": "$response.body#/0/slug"}},
    "list_recent_pulls": {
        "get_card": {"item_id": "$response.body#/0/id"},
        "list_chase_cards": {"slug": "$response.body#/0/claw_slug"},
    },
    "start_purchase": {
        "get_purchase": {"session_id": "$response.body#/session_id"},
        "get_inventory": {"user_id": "$request.body#/user_id"},
    },
    "get_purchase": {
        "get_inventory": {"user_id": "$response.body#/result/user_id"},
        "get_card": {"item_id": "$response.body#/result/nfts/0/id"},
    },
    "get_inventory": {
        "get_card": {"item_id": "$response.body#/items/0/id"},
        "sell_back": {"item_id": "$response.body#/items/0/id"},
    },
    "quote_shipping": {"request_shipping": {"quote_id": "$response.body#/quotes/0/id"}},
    "request_shipping": {"get_shipping_order": {"order_id": "$response.body#/order_id"}},
}
# The shapes of the answers that come in an envelope: exactly one fits.
_ENVELOPES: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "PurchaseAnswer": {
        "PurchaseFulfilled": {
            "description": "The purchase is done.",
            "properties": {
                "result": {
                    "description": "The purchase, with its items.",
                    "allOf": [
                        {"$ref": "#/components/schemas/Purchase"},
                        {"properties": {"nfts": {"minItems": 1}}, "required": ["nfts"]},
                    ],
                }
            },
            "required": ["result"],
        },
        "PurchaseUnfilled": {
            "description": "There is a result, and its items are still to come: poll again.",
            "properties": {
                "result": {
                    "description": "The purchase, without its items.",
                    "type": "object",
                    "properties": {
                        "session_id": {"type": "string"},
                        "user_id": {"type": "string"},
                        "nfts": {
                            "type": "array",
                            "items": {"$ref": "#/components/schemas/PurchasedItem"},
                            "maxItems": 0,
                        },
                    },
                    "required": ["session_id", "user_id"],
                }
            },
            "required": ["result"],
        },
        "PurchasePending": {
            "description": "The purchase is still being processed: poll again after a few seconds.",
            "properties": {"status": {"const": "pending", "description": "Pending."}},
            "required": ["status"],
        },
        "PurchaseFailed": {
            "description": "The purchase failed. Other clients guard against it; the vendor does not document it.",
            "properties": {
                "status": {"const": "failed", "description": "Failed."},
                "error": {"type": ["string", "null"], "description": "What went wrong."},
            },
            "required": ["status"],
        },
        "PurchaseError": {
            "description": "The purchase failed, without a status. Guarded against like the other.",
            "properties": {
                "status": {"type": "null", "description": "None."},
                "error": {"type": "string", "description": "What went wrong."},
            },
            "required": ["error"],
        },
    },
    "SellbackAnswer": {
        "SellbackPaid": {
            "description": "The item is sold.",
            "properties": {
                "success": {"const": True, "description": "True."},
                "amount": {**_NUMBER, "description": "What was paid, in USD."},
            },
            "required": ["success", "amount"],
        },
        "SellbackFailed": {
            "description": "Nothing was sold.",
            "properties": {
                "success": {"const": False, "description": "False."},
                "error": {"type": ["string", "null"], "description": "What went wrong."},
            },
            "required": ["success"],
        },
    },
    "ShippingAnswer": {
        "ShippingAccepted": {
            "description": "There is an order.",
            "properties": {
                "order_id": {"type": "string", "minLength": 1, "description": "What `get_shipping_order` takes."},
                "status": {"const": "success", "description": "Of the request, and not of the order."},
            },
            "required": ["order_id", "status"],
        },
        "ShippingFailed": {
            "description": "There is no order. Reserved by the vendor; the sandbox never sends it.",
            "properties": {
                "order_id": {"type": "null", "description": "None."},
                "status": {"const": "error", "description": "Error."},
                "error_message": {"type": ["string", "null"], "description": "What went wrong."},
            },
            "required": ["order_id", "status"],
        },
    },
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    answers, schemas = msgspec.json.schema_components(
        [operation.answer for operation in OPERATIONS] + [models.Destination], ref_template=_REF
    )
    # What cannot be read is in no answer.
    del schemas["Unreadable"]
    recorded = _recorded()
    paths: dict[str, Any] = {}
    for operation, answer in zip(OPERATIONS, answers, strict=False):
        described = _operation(operation, answer, recorded[operation.method, operation.path])
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Phygitals Partner API",
            "version": version(),
            "summary": "As phygitals-async speaks it; not published by the vendor.",
            "contact": {"name": "Phygitals, the vendor of the API", "email": "hello@phygitals.com"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "externalDocs": {"description": "The vendor's documentation", "url": "https://dev.phygitals.com"},
        # Tools take the first one unless told otherwise.
        "servers": [
            {"url": "https://api.phygitals.com/_/api/v1", "description": "The vendor's sandbox."},
            {"url": "http://127.0.0.1:8765/_/api/v1", "description": "python -m phygitals_async.sandbox"},
            {"url": "https://api.phygitals.com/api/v1", "description": "Production: real money and goods."},
        ],
        "security": [{"key": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(found[0]) for found in recorded.values())],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
            "schemas": _schemas(schemas, recorded),
        },
        # A mock of made-up answers takes the examples of a schema where it has some.
        "x-json-schema-faker": {"use-examples-value": True},
    }


def _recorded() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the recorded exchanges of each method and path."""
    recorded: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in json.loads((_FIXTURES / "index.json").read_text()):
        path = re.sub(r":(\w+)", r"{\1}", one["path"].removeprefix("/api/v1"))
        recorded.setdefault((one["method"], path), []).append(one)
    return recorded


def _tag(exchange: dict[str, Any]) -> str:
    return str(exchange["operation"].partition(".")[0])


def _operation(operation: Operation[Any], answer: dict[str, Any], recorded: list[dict[str, Any]]) -> dict[str, Any]:
    summary, _, details = (inspect.getdoc(getattr(PhygitalsClient, operation.name)) or "").partition("\n")
    request = recorded[0]["request"]
    sent = {**request.get("params", {}), **request.get("query", {})}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [_tag(recorded[0])],
        "summary": summary,
        "description": details.partition("\nArgs:")[0].partition("\nRaises:")[0].strip(),
        "x-effect": operation.effect.value,
        "parameters": [
            *(_parameter("path", name, ID.schema, sent) for name in operation.path_arguments),
            *(_parameter("query", name, argument.kind.schema, sent) for name, argument in operation.query.items()),
        ],
        "responses": _responses(operation, answer, recorded),
    }
    if operation.body:
        schema = {
            "type": "object",
            "properties": {name: argument.kind.schema for name, argument in operation.body.items()},
            "required": list(operation.body),
        }
        content = {"application/json": {"schema": schema, "example": request["body"]}}
        described["requestBody"] = {"required": True, "content": content}
    if operation.effect is not Effect.READS:
        described["description"] += "\n\nNot idempotent: never repeat it automatically."
    return {name: value for name, value in described.items() if value}


def _parameter(place: str, name: str, schema: Mapping[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": {**schema, **({"default": _DEFAULTS[name]} if name in _DEFAULTS else {})},
        **({"example": sent[name]} if name in sent else {}),
    }


def _example(text: str) -> dict[str, str]:
    for template, filled in _FILLED.items():
        text = text.replace(template, filled)
    return {"error": text}


def _responses(operation: Operation[Any], answer: dict[str, Any], recorded: list[dict[str, Any]]) -> dict[str, Any]:
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
    return {"200": _done(operation, answer, recorded), **refusals, "default": fallback}


def _done(operation: Operation[Any], answer: dict[str, Any], recorded: list[dict[str, Any]]) -> dict[str, Any]:
    examples = {
        one["file"].removesuffix(".json"): {
            "summary": "As the vendor documents it." if one["evidence"] == "documented" else "Inferred.",
            "value": json.loads((_FIXTURES / one["file"]).read_text()),
        }
        for one in recorded
    }
    done: dict[str, Any] = {
        "description": "Done.",
        "content": {"application/json": {"schema": answer, "examples": examples}},
    }
    if operation.name in _LINKS:
        done["links"] = {name: _link(name, values) for name, values in _LINKS[operation.name].items()}
    return done


def _link(name: str, values: dict[str, str]) -> dict[str, Any]:
    target = next(operation for operation in OPERATIONS if operation.name == name)
    return {"operationId": name, "requestBody" if target.body else "parameters": values}


def _schemas(schemas: dict[str, Any], recorded: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    described = {name: _schema(schema, getattr(models, name)) for name, schema in sorted(schemas.items())}
    for name, shapes in _ENVELOPES.items():
        described[name] = {
            "title": name,
            "description": described[name]["description"],
            "oneOf": [{"$ref": _REF.format(name=shape)} for shape in shapes],
        }
        described |= {shape: {"title": shape, "type": "object", **schema} for shape, schema in shapes.items()}
    sent = {
        name: value
        for exchanges in recorded.values()
        for part in ("params", "body")
        for name, value in exchanges[0]["request"].get(part, {}).items()
    }
    for name, field in _ECHOES:
        described[name]["properties"][field]["examples"] = [sent[field]]
    described["Destination"]["properties"]["country"] |= _COUNTRY
    described["Error"] = {
        "title": "Error",
        "description": "A readable sentence, and no code. A refused address brings more.",
        "type": "object",
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
    return described


def _schema(schema: dict[str, Any], cls: type) -> dict[str, Any]:
    doc = inspect.getdoc(cls) or ""
    described = dict(_plain(schema), description=doc.partition("\n\nAttributes:")[0])
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", doc, re.MULTILINE))
    hints = get_type_hints(cls)
    for a in attrs.fields(cls) if attrs.has(cls) else ():
        if ROWS in a.metadata:
            del described["properties"][a.name]
        if a.metadata == EMPTY_IF_NULL:
            described["properties"][a.name] = {"anyOf": [described["properties"][a.name], {"type": "null"}]}
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
        return dict(_NUMBER)
    if "enum" in node:
        kept = {name: value for name, value in node.items() if name != "enum"}
        return {**kept, "type": "string", "examples": node["enum"]}
    return {name: _plain(value) for name, value in node.items() if name != "default"}


def render() -> str:
    """Return the text of the file."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render())

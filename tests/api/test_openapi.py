"""docs/openapi.json: what the declarations say, valid, and true of the sandbox."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import ModuleType
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.openapi.checks import JsonSchemaError

from phygitals_async import Destination, ItemSource, PhygitalsClient, Sandbox
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_transports import MemoryTransport
from phygitals_transports.aiohttp_server import serve
from support import ROOT

DOCUMENT: Final = ROOT / "docs" / "openapi.json"
HEADERS: Final = {"X-API-Key": "sandbox-test"}
EXAMPLES: Final = 12


def load() -> dict[str, Any]:
    """Return the document as it stands in the project."""
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return document


def builder() -> ModuleType:
    """Return the script that writes the document, imported by its path."""
    spec = importlib.util.spec_from_file_location("build_openapi", ROOT / "scripts" / "build_openapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def operations() -> dict[str, dict[str, Any]]:
    """Return the document's operations by name, each with its path and method."""
    return {
        described["operationId"]: {**described, "path": path, "method": method.upper()}
        for path, methods in load()["paths"].items()
        for method, described in methods.items()
    }


# ---------------------------------------------------------------------------------------------------------
# The document


def test_it_is_up_to_date() -> None:
    """The file is what the script would write now: run `make openapi` after a change of the declarations."""
    script = builder()
    assert script.TARGET == DOCUMENT
    assert DOCUMENT.read_text() == script.render()


def test_it_is_valid() -> None:
    """It is OpenAPI 3.1, all of it."""
    document = load()
    assert document["openapi"] == "3.1.0"
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_it_has_every_operation_and_no_other() -> None:
    """The eleven operations, at their paths and with their methods."""
    described = operations()
    assert len(described) == len(OPERATIONS) == 11
    assert {(name, one["method"], one["path"]) for name, one in described.items()} == {
        (operation.name, operation.method, operation.path) for operation in OPERATIONS
    }
    for operation in OPERATIONS:
        one = described[operation.name]
        assert one["x-effect"] == operation.effect.value
        assert ("never repeat it" in one.get("description", "")) == operation.effect.is_irreversible
        assert one["summary"] == (getattr(PhygitalsClient, operation.name).__doc__ or "").partition("\n")[0]


def test_it_has_every_argument() -> None:
    """Each argument is where it is sent, required unless it may be left out."""
    described = operations()
    for operation in OPERATIONS:
        one = described[operation.name]
        parameters = {(p["in"], p["name"], p["required"]) for p in one.get("parameters", [])}
        assert parameters == {("path", name, True) for name in operation.path_arguments} | {
            ("query", name, False) for name in operation.query
        }
        if not operation.body:
            assert "requestBody" not in one
            continue
        assert one["requestBody"]["required"] is True
        schema = one["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["properties"]) == set(schema["required"]) == set(operation.body)


def test_it_has_every_refusal() -> None:
    """Each refusal the library knows is there under its status, besides the 401 of every operation."""
    described = operations()
    for operation in OPERATIONS:
        texts = defaultdict(list, {"401": ["Invalid API key"]})
        for refusal in operation.refusals:
            if refusal.status is not None:
                texts[str(refusal.status)].append(refusal.text)
        responses = described[operation.name]["responses"]
        assert set(responses) == {"200", "default", *texts}
        for status, said in texts.items():
            assert responses[status]["description"] == "; ".join(said)
            (content,) = responses[status]["content"].values()
            examples = [example["value"]["error"] for example in content["examples"].values()]
            for example, text in zip(examples, said, strict=True):
                fixed, template, _ = text.partition("{")
                assert example.startswith(fixed)
                assert (example == text) == (not template)


def test_no_example_shows_a_template() -> None:
    """What varies in a text is filled in."""
    texts = {
        example["value"]["error"]
        for one in operations().values()
        for response in one["responses"].values()
        for example in response["content"]["application/json"].get("examples", {}).values()
    }
    assert {"Amount must be less than or equal to 10", "Failed to fetch shippi…"} < texts
    assert [text for text in texts if set(text) & set("{}")] == []


def test_the_documented_500s_are_declared() -> None:
    """Each that the API sheet has, and no other."""
    said = {
        name: one["responses"]["500"]["description"] for name, one in operations().items() if "500" in one["responses"]
    }
    assert said == {
        "list_recent_pulls": "An unexpected error occurred",
        "start_purchase": "Error during transaction",
        "get_inventory": "An unexpected error occurred",
        "sell_back": "An unexpected error occurred",
        "quote_shipping": "Failed to fetch shippi{...}",
        "request_shipping": "Failed to create shipping request",
        "get_shipping_order": "An unexpected error occurred",
    }


def test_a_refusal_has_a_sentence_and_may_have_more() -> None:
    """`error` is in every refusal; the two further fields are those of a refused address."""
    error = load()["components"]["schemas"]["Error"]
    assert error["required"] == ["error"]
    assert {name: field["type"] for name, field in error["properties"].items()} == {
        "error": "string", "details": "string", "suggested": "object",
    }  # fmt: skip


def test_times_say_that_they_are_times() -> None:
    """Each moment has the format date-time, and nothing else has."""
    found = {
        (name, field)
        for name, schema in load()["components"]["schemas"].items()
        for field, one in schema.get("properties", {}).items()
        for kind in one.get("anyOf", [one])
        if kind.get("format") == "date-time"
    }
    assert found == {
        ("Item", "purchased_at"), ("Item", "buyback_expires_at"), ("Pack", "ev_updated_at"), ("Pull", "created_at"),
        ("ShippingOrder", "created_at"), ("ShippingOrder", "shipped_at"), ("ShippingOrder", "delivered_at"),
        ("ShippingQuotes", "expires_at"),
    }  # fmt: skip


def test_defaults_are_those_of_the_documents() -> None:
    """A parameter that may be left out says what it counts as then, where the documents do."""
    defaults = {
        (name, parameter["name"]): parameter["schema"]["default"]
        for name, one in operations().items()
        for parameter in one.get("parameters", [])
        if "default" in parameter["schema"]
    }
    assert defaults == {("list_packs", "platform"): "mainnet", ("list_recent_pulls", "limit"): 20}


def test_the_key_is_required_in_its_header() -> None:
    """Every operation takes the API key as `X-API-Key`."""
    document = load()
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"] == {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    assert not any("security" in one for one in operations().values())


def test_every_field_is_described() -> None:
    """Each schema and each of its fields has a description, in which no code of the docstrings is left."""
    for name, schema in load()["components"]["schemas"].items():
        assert schema["description"], name
        # The envelopes around answers are nobody's model.
        if name != "Error" and not name.endswith("Answer"):
            assert [field for field, one in schema.get("properties", {}).items() if not one.get("description")] == [], (
                name
            )


# ---------------------------------------------------------------------------------------------------------
# The document and the sandbox


@contextmanager
def served(sandbox: Sandbox) -> Iterator[str]:
    """Serve a sandbox from a thread of its own, giving the base URL of the API."""
    started = threading.Event()
    urls: list[str] = []
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        async with serve(sandbox) as url:
            stop = asyncio.Event()
            urls.append(url)
            stops.append((asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(30)
    try:
        yield f"{urls[0]}/_/api/v1"
    finally:
        loop, stop = stops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not thread.is_alive()


def stocked() -> tuple[Sandbox, dict[str, list[Any]]]:
    """Return a sandbox with something in it, and ids to be used as the arguments of those names."""
    sandbox = Sandbox(seed=0)
    known: dict[str, list[Any]] = {
        "id": [pack.id for pack in sandbox.packs],
        "slug": [pack.slug for pack in sandbox.packs],
        "user_id": ["user", "a/b c|é"],
        "amount": [1, 2, 10, 11],
    }
    items = [
        sandbox.add_item("user", name="Card", buyback_price=Decimal(n), type=source).id
        for n in range(1, 40)
        for source in (ItemSource.ENFT, ItemSource.EBAY)
    ]
    sandbox.add_user("a/b c|é")

    async def prepare() -> None:
        home = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
        async with PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test") as api:
            started = await api.start_purchase(sandbox.packs[0].id, 2, "user")
            quotes = [await api.quote_shipping([item], home) for item in items[:20]]
            order = await api.request_shipping(quotes[0].quotes[0].id)
            known["session_id"] = [started.session_id]
            known["quote_id"] = [session.quotes[0].id for session in quotes]
            known["order_id"] = [order.order_id]

    asyncio.run(prepare())
    known["item_id"] = items[20:]
    known["item_ids"] = [[items[20]], items[21:23]]
    known["claw_ids"] = [known["id"][:1], known["id"]]
    return sandbox, known


def narrowed(document: dict[str, Any], known: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the document with arguments narrowed to known values, so that requests get somewhere."""
    narrow = copy.deepcopy(document)
    for methods in narrow["paths"].values():
        for described in methods.values():
            for parameter in described.get("parameters", []):
                if parameter["name"] in known:
                    parameter["schema"] = {"enum": known[parameter["name"]]}
            body = described.get("requestBody", {"content": {"application/json": {"schema": {"properties": {}}}}})
            properties = body["content"]["application/json"]["schema"]["properties"]
            for name in properties:
                if name in known:
                    properties[name] = {"enum": known[name]}
    destination = narrow["components"]["schemas"]["Destination"]
    destination["properties"]["country"] = {"enum": ["US", "ZZ", "USA"]}
    return narrow


def explore(
    document: dict[str, Any], base: str, checks: list[str], mode: GenerationMode = GenerationMode.POSITIVE
) -> dict[str, Counter[int]]:
    """Call each operation with invented arguments, check each answer, and return the statuses seen."""
    seen: dict[str, Counter[int]] = {}
    load_all_checks()
    wanted = CHECKS.get_by_names(checks)
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        seen[name] = call_often(operation.as_strategy(generation_mode=mode), base, wanted)
    return seen


def call_often(cases: SearchStrategy[Any], base: str, checks: list[Any]) -> Counter[int]:
    """Call one operation with invented arguments, check each answer, and return the statuses seen."""
    statuses = Counter[int]()

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    @given(case=cases)
    def call(case: Any) -> None:
        response = case.call_and_validate(base_url=base, headers=HEADERS, checks=checks)
        statuses[response.status_code] += 1

    call()
    return statuses


CONFORMANCE: Final = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def test_the_sandbox_contradicts_it_nowhere() -> None:
    """Arguments of all the allowed kinds, mostly of things that do not exist, get documented answers."""
    with served(Sandbox(seed=0)) as base:
        seen = explore(load(), base, CONFORMANCE)
    assert set(seen) == {operation.name for operation in OPERATIONS}
    assert all(sum(statuses.values()) for statuses in seen.values())


def test_the_sandbox_contradicts_it_nowhere_with_known_ids() -> None:
    """Arguments that exist get documented answers, and each operation succeeds at times; a key is needed always."""
    sandbox, known = stocked()
    with served(sandbox) as base:
        seen = explore(narrowed(load(), known), base, [*CONFORMANCE, "ignored_auth"])
    assert [name for name, statuses in seen.items() if not statuses[200]] == []
    refusing = ("start_purchase", "quote_shipping")
    assert [name for name in refusing if set(seen[name]) <= {200}] == []


def test_the_sandbox_contradicts_it_nowhere_on_bad_requests() -> None:
    """Arguments that the document does not allow get documented refusals too."""
    with served(Sandbox(seed=0)) as base:
        seen = explore(load(), base, CONFORMANCE, GenerationMode.NEGATIVE)
    assert any(statuses[400] for statuses in seen.values())


def test_a_contradiction_would_be_found() -> None:
    """The checks are no formality: a document that promises something else fails them."""
    document = load()
    document["components"]["schemas"]["Pack"]["properties"]["mint_price"] = {"type": "string"}
    only = {"/vm/available": document["paths"]["/vm/available"]}
    with served(Sandbox(seed=0)) as base, pytest.raises(FailureGroup) as caught:
        explore({**document, "paths": only}, base, CONFORMANCE)
    assert [type(one) for one in caught.value.exceptions] == [JsonSchemaError]

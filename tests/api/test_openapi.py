"""docs/openapi.json: what the declarations say, valid, and true of the sandbox."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from jsonschema_rs import Draft202012Validator
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
from support import ROOT, fixture_json, script

DOCUMENT: Final = ROOT / "docs" / "openapi.json"
HEADERS: Final = {"X-API-Key": "sandbox-test"}
EXAMPLES: Final = 12


def load() -> dict[str, Any]:
    """Return the document as it stands in the project."""
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return document


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
    build = script("build_openapi")
    assert build.TARGET == DOCUMENT
    assert DOCUMENT.read_text() == build.render()


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
        for status, response in one["responses"].items()
        for example in response["content"]["application/json"].get("examples", {}).values()
        if status != "200"
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


def test_a_client_left_unconfigured_aims_at_the_sandbox() -> None:
    """Tools take the first server: it is the vendor's sandbox, and production is the last."""
    assert [server["url"] for server in load()["servers"]] == [
        "https://api.phygitals.com/_/api/v1",
        "http://127.0.0.1:8765/_/api/v1",
        "https://api.phygitals.com/api/v1",
    ]


def test_it_says_whose_it_is() -> None:
    """Whom to ask, under which licence the document is, and where the vendor's own documentation is."""
    document = load()
    assert document["info"]["contact"]["email"] == "hello@phygitals.com"
    assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert document["externalDocs"]["url"] == "https://dev.phygitals.com"


def test_operations_are_tagged() -> None:
    """Each has one tag, and the tags are listed."""
    used = [one["tags"] for one in operations().values()]
    assert all(len(tags) == 1 for tags in used)
    assert [tag["name"] for tag in load()["tags"]] == list(dict.fromkeys(tag for tags in used for tag in tags))
    assert {name: one["tags"][0] for name, one in operations().items() if "ship" in name} == {
        "quote_shipping": "shipping", "request_shipping": "shipping", "get_shipping_order": "shipping",
    }  # fmt: skip


def accepts(schema: dict[str, Any], value: object) -> bool:
    """Whether a value is what a schema of the document describes."""
    return Draft202012Validator({"components": load()["components"], **schema}).is_valid(value)


@pytest.mark.parametrize("name", ["Pull", "SellbackPaid", "ShippingQuote", "Pack"])
@pytest.mark.parametrize(
    ("value", "good"),
    [
        (8.5, True), ("8.50", True), ("0", True), ("-0.125", True), ("999999999999999.99", True),
        ("1_0", False), (" 12 ", False), ("\uff11\uff12", False), ("", False), ("8,50", False), ("08", False),
        (".5", False), ("NaN", False), ("USD 8", False), ("1000000000000000", False), (True, False),
    ],
)  # fmt: skip
def test_money_is_a_number_also_as_text(name: str, value: object, good: bool) -> None:
    """A price in text is one in JSON's own syntax, of a size that money has."""
    field = {"Pull": "buyback_price", "Pack": "mint_price"}.get(name, "amount")
    assert accepts(load()["components"]["schemas"][name]["properties"][field], value) is good


@pytest.mark.parametrize(
    ("name", "answer", "shape"),
    [
        ("PurchaseAnswer", {"status": "pending"}, "PurchasePending"),
        ("PurchaseAnswer", {"status": "failed"}, "PurchaseFailed"),
        ("PurchaseAnswer", {"status": "failed", "error": "no"}, "PurchaseFailed"),
        ("PurchaseAnswer", {"error": "no"}, "PurchaseError"),
        ("PurchaseAnswer", {"result": {"session_id": "a", "user_id": "b", "nfts": []}}, "PurchaseUnfilled"),
        ("PurchaseAnswer", {"result": {"session_id": "a", "user_id": "b"}}, "PurchaseUnfilled"),
        ("PurchaseAnswer", fixture_json("purchase-status.json"), "PurchaseFulfilled"),
        ("PurchaseAnswer", {}, None),
        ("PurchaseAnswer", {"status": "done"}, None),
        ("SellbackAnswer", {"success": True, "amount": 98.5}, "SellbackPaid"),
        ("SellbackAnswer", {"success": False, "error": "no"}, "SellbackFailed"),
        ("SellbackAnswer", {"success": True}, None),
        ("ShippingAnswer", {"order_id": "order_123", "status": "success"}, "ShippingAccepted"),
        ("ShippingAnswer", {"order_id": None, "status": "error", "error_message": "no"}, "ShippingFailed"),
        ("ShippingAnswer", {"order_id": None, "status": "success"}, None),
    ],
)
def test_an_envelope_has_one_of_its_shapes(name: str, answer: object, shape: str | None) -> None:
    """Each answer in an envelope is one shape and no other; what the library could not read is none."""
    schemas = load()["components"]["schemas"]
    references = [one["$ref"] for one in schemas[name]["oneOf"]]
    fitting = [reference.rpartition("/")[2] for reference in references if accepts({"$ref": reference}, answer)]
    assert fitting == ([shape] if shape else [])


def test_every_operation_shows_its_answers() -> None:
    """Each recorded answer is an example of its operation, and is what the schema describes."""
    described = operations()
    shown = {
        name: {key: example["value"] for key, example in content["examples"].items()}
        for name, one in described.items()
        for content in [one["responses"]["200"]["content"]["application/json"]]
    }
    recorded = {entry["file"].removesuffix(".json") for entry in fixture_json("index.json")}
    assert {key for examples in shown.values() for key in examples} == recorded
    for name, examples in shown.items():
        schema = described[name]["responses"]["200"]["content"]["application/json"]["schema"]
        assert examples
        for key, value in examples.items():
            assert value == fixture_json(f"{key}.json")
            assert accepts(schema, value), key


def test_every_operation_shows_a_request() -> None:
    """Whatever is needed to call it has an example, which is what the schema describes."""
    for name, one in operations().items():
        for parameter in one.get("parameters", []):
            assert "example" in parameter or not parameter["required"], name
            assert "example" not in parameter or accepts(parameter["schema"], parameter["example"]), name
        for content in one.get("requestBody", {"content": {}})["content"].values():
            assert accepts(content["schema"], content["example"]), name


def test_links_lead_from_one_answer_to_the_next_call() -> None:
    """Each link takes a text out of the example exchange that the other operation takes under that name."""
    described = operations()
    leads = set()
    for name, one in described.items():
        done = one["responses"]["200"]
        said = next(iter(done["content"]["application/json"]["examples"].values()))["value"]
        sent = one.get("requestBody", {"content": {"application/json": {}}})["content"]["application/json"]
        for target, link in done.get("links", {}).items():
            assert link["operationId"] == target
            leads.add((name, target))
            by_name = next(operation for operation in OPERATIONS if operation.name == target)
            taken = by_name.body or dict.fromkeys(by_name.path_arguments)
            values = link["requestBody" if by_name.body else "parameters"]
            assert set(values) == set(taken)
            for expression in values.values():
                value = sent.get("example") if expression.startswith("$request.body#") else said
                for step in expression.partition("#/")[2].split("/"):
                    value = value[int(step)] if isinstance(value, list) else value[step]
                assert isinstance(value, str)
    assert {
        ("list_packs", "list_chase_cards"), ("start_purchase", "get_purchase"), ("get_inventory", "sell_back"),
        ("quote_shipping", "request_shipping"), ("request_shipping", "get_shipping_order"),
    } <= leads  # fmt: skip


def test_a_limit_has_no_maximum() -> None:
    """The server lowers what is above its maximum, so the document refuses none of it."""
    (schema,) = [p["schema"] for p in operations()["list_recent_pulls"]["parameters"] if p["name"] == "limit"]
    assert schema == {"type": "integer", "minimum": 1, "default": 20}


@pytest.mark.parametrize(("country", "good"), [("US", True), ("ZZ", True), ("USA", False), ("", False), ("U", False)])
def test_a_country_is_two_characters(country: str, good: bool) -> None:
    """No more and no fewer."""
    home = {"name": "Jane Doe", "line1": "123 Main St", "city": "Austin", "country": country}
    assert accepts({"$ref": "#/components/schemas/Destination"}, home) is good


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
        undescribed = [field for field, one in schema.get("properties", {}).items() if not one.get("description")]
        assert undescribed == [], name


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

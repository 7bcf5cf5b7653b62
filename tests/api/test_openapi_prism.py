"""docs/openapi.json under Prism: this client reads every answer that another's mock server makes of it.

Prism is a program of Node.js. PRISM names it.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import attrs
import pytest

from phygitals_async import Destination, PhygitalsClient, Request, Response, StatusError
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Operation
from phygitals_transports import AiohttpTransport, MemoryTransport
from support import ONCE, ROOT, fixture_bytes, fixture_json

DOCUMENT: Final = ROOT / "docs" / "openapi.json"
ROUNDS: Final = 200
JSON: Final = {"content-type": "application/json"}

pytestmark = pytest.mark.asyncio


class Asking:
    """A transport that tells Prism which answer to give, in a header of Prism's."""

    def __init__(self) -> None:
        self.prefer = ""
        self._inner = AiohttpTransport()

    async def send(self, request: Request) -> Response:
        """Send the request with the header."""
        return await self._inner.send(attrs.evolve(request, headers={**request.headers, "Prefer": self.prefer}))

    async def aclose(self) -> None:
        """Close the transport within."""
        await self._inner.aclose()


@pytest.fixture(scope="session")
def prism() -> str:
    """Give the path of the program."""
    return os.environ["PRISM"]


@pytest.fixture(scope="module")
def url(prism: str) -> Iterator[str]:
    """Serve the document as it stands; a request or an answer that contradicts it gets an error from Prism."""
    command = [prism, "mock", "--errors", "--port", "0", str(DOCUMENT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"listening on (http://\S+)", line):
                    break
            else:
                pytest.fail("Prism did not start: " + "".join(said))
            # It writes lines for every request: they are taken from it, so that it does not wait.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found[1]
        finally:
            process.terminate()


def recorded() -> Iterator[tuple[Operation[Any], str, dict[str, Any]]]:
    """Yield each recorded answer: its operation, its name, which the document's example has too, and the request."""
    of_path = {(operation.method, re.sub(r"{(\w+)}", r":\1", operation.path)): operation for operation in OPERATIONS}
    for one in fixture_json("index.json"):
        operation = of_path[one["method"], one["path"].removeprefix("/api/v1")]
        yield operation, one["file"].removesuffix(".json"), one["request"]


async def call(api: PhygitalsClient, operation: Operation[Any], request: dict[str, Any]) -> Any:
    """Call an operation with the arguments of a recorded request."""
    arguments = dict(request.get("params", {}))
    for part, declared in (("query", operation.query), ("body", operation.body)):
        arguments |= {declared[name].name: value for name, value in request.get(part, {}).items()}
    if "destination" in arguments:
        arguments["destination"] = Destination(**arguments["destination"])
    return await getattr(api, operation.name)(**arguments)


async def test_every_example_is_read_as_the_recorded_answer_is(url: str) -> None:
    """Static: each round, each operation gives for each example what the client reads off the file itself."""
    exchanges = list(recorded())
    expected = {}
    for operation, name, request in exchanges:
        file = MemoryTransport.answering(Response(200, JSON, fixture_bytes(f"{name}.json")))
        async with PhygitalsClient(file, api_key="sandbox-test", retry=ONCE) as api:
            expected[name] = await call(api, operation, request)
    asking = Asking()
    async with PhygitalsClient(asking, api_key="sandbox-test", base_url=url, path_prefix="", retry=ONCE) as api:
        for _ in range(ROUNDS):
            for operation, name, request in exchanges:
                asking.prefer = f"example={name}"
                assert await call(api, operation, request) == expected[name], name


async def test_every_made_up_answer_is_read(url: str) -> None:
    """Dynamic: whatever Prism makes of the schemas, every shape of the envelopes among it, is a result or a refusal."""
    requests = {operation.name: (operation, request) for operation, _, request in reversed(list(recorded()))}
    seen = {name: Counter[str]() for name in requests}
    asking = Asking()
    async with PhygitalsClient(asking, api_key="sandbox-test", base_url=url, path_prefix="", retry=ONCE) as api:
        for seed in range(ROUNDS):
            asking.prefer = f"dynamic=true, seed={seed}"
            for name, (operation, request) in requests.items():
                try:
                    kind = type(await call(api, operation, request)).__name__
                except StatusError as refusal:
                    kind = f"{type(refusal).__name__} in a {refusal.status}"
                seen[name][kind] += 1
    assert {name: set(kinds) for name, kinds in seen.items()} == {
        "list_packs": {"Rows"},
        "list_chase_cards": {"Rows"},
        "list_recent_pulls": {"Rows"},
        "get_card": {"Card"},
        "start_purchase": {"StartedPurchase"},
        "get_purchase": {"Purchase", "NoneType", "TransactionFailed in a 200"},
        "get_inventory": {"Inventory"},
        "sell_back": {"Sellback", "TransactionFailed in a 200"},
        "quote_shipping": {"ShippingQuotes"},
        "request_shipping": {"ShippingRequest", "ShippingRequestFailed in a 200"},
        "get_shipping_order": {"ShippingOrder"},
    }
    assert {kinds.total() for kinds in seen.values()} == {ROUNDS}

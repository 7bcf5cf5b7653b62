"""Small helpers that tests import by name."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import re
from collections.abc import Awaitable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import unquote

import pytest

import phygitals_async
import phygitals_transports
from phygitals_async import Request, Response, RetryPolicy
from virtual import backend_options

# For tests of asyncio's own ways, in virtual time; beside `pytest.mark.anyio`.
ON_VIRTUAL_ASYNCIO: Final = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", backend_options("asyncio"))], ids=["asyncio"]
)
# For tests of a single attempt: nothing is repeated.
ONCE: Final = RetryPolicy(retries=0)

TESTS: Final = Path(__file__).parent
ROOT: Final = TESTS.parent
FIXTURES: Final = TESTS / "fixtures"


def fixture_bytes(name: str) -> bytes:
    """Return a documented payload as it stands in `tests/fixtures`."""
    return (FIXTURES / name).read_bytes()


def fixture_json(name: str) -> Any:
    """Return a documented payload as plain Python values."""
    return json.loads(fixture_bytes(name))


def last_segment(request: Request) -> str:
    """Return what stands last in a request's path: the user or the order asked for."""
    return unquote(request.url.rpartition("/")[2])


def inventory_of(user_id: str) -> Response:
    """Return the answer of a user who owns nothing."""
    return Response(200, {"content-type": "application/json"}, json.dumps({"user_id": user_id, "items": []}).encode())


def empty_inventories(request: Request) -> Response:
    """Answer as if every user there is owned nothing: a handler."""
    return inventory_of(last_segment(request))


def public_modules() -> Iterator[ModuleType]:
    """Yield each module that users import from."""
    for package in (phygitals_async, phygitals_transports):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(re.match("_(?!_main__$)", part) for part in found.name.split(".")):
                yield importlib.import_module(found.name)


def script(name: str) -> ModuleType:
    """Return one of the project's scripts, imported by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def noting(seen: list[BaseException], call: Awaitable[object]) -> None:
    """Await a call, and note what it raises on its way out, cancellation too."""
    try:
        await call
    except BaseException as error:
        seen.append(error)
        raise

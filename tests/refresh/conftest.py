"""What the tests of refreshes share as fixtures."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import count
from typing import Final
from urllib.parse import urlsplit

import pytest

import postgres_server
from postgres_server import execute

_numbers: Final = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Give the address of a PostgreSQL server."""
    with postgres_server.postgres_server() as address:
        yield address


@pytest.fixture
def schema(postgres: str) -> Iterator[str]:
    """Give the name of a schema of the test's own."""
    name = f'phygitals test "{os.getpid()}" {next(_numbers)}'
    yield name
    quoted = name.replace('"', '""')
    asyncio.run(execute(postgres, f'DROP SCHEMA IF EXISTS "{quoted}" CASCADE'))


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """Give the address of an empty database of the test's own."""
    name = f"phygitals_test_{os.getpid()}_{next(_numbers)}"
    asyncio.run(execute(postgres, f"CREATE DATABASE {name}"))
    yield urlsplit(postgres)._replace(path=f"/{name}").geturl()
    asyncio.run(execute(postgres, f"DROP DATABASE {name} WITH (FORCE)"))

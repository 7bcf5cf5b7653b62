"""What some tests need beside Python: where it is missing they are not run, or fail where a variable says they must.

It is looked for before a test's fixtures are set up, in one place, so that pytest tells of all its tests in one line.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable
from typing import Final

import pytest
from attrs import frozen

import postgres_server
from browser_support import chromium


@frozen
class Need:
    """Something that tests need.

    Attributes:
        fixture: By whose name a test asks for it.
        found: Whether it is there.
        variable: Of the environment: where it is set, the absence is a failure.
        missing: Which tests are not run without it, and how to have it.
    """

    fixture: str
    found: Callable[[], bool]
    variable: str
    missing: str


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


NEEDS: Final = (
    Need(
        fixture="browser_path",
        found=lambda: chromium() is not None and _installed("axe_core_python"),
        variable="PHYGITALS_TESTS_NEED_BROWSER",
        missing="the tests in a browser: `apt install chromium`, `pip install playwright axe-core-python`",
    ),
    Need(
        fixture="postgres",
        found=lambda: postgres_server.is_available() and _installed("asyncpg"),
        variable="PHYGITALS_TESTS_NEED_POSTGRES",
        missing="the tests of PostgreSQL: `apt install postgresql`, or name a server in PHYGITALS_TEST_POSTGRES, "
        "and `pip install asyncpg`",
    ),
    Need(
        fixture="site_builder",
        found=lambda: _installed("zensical", "mkdocstrings"),
        variable="PHYGITALS_TESTS_NEED_SITE",
        missing="the tests of the site of documents: `pip install --group docs`",
    ),
    Need(
        fixture="curl",
        found=lambda: bool(shutil.which("bash") and shutil.which("curl")),
        variable="PHYGITALS_TESTS_NEED_CURL",
        missing="the tests of shell commands in the documents: `apt install curl`",
    ),
    Need(
        fixture="prism",
        found=lambda: bool(os.environ.get("PRISM")),
        variable="PHYGITALS_TESTS_NEED_PRISM",
        missing="the tests against Prism: with Node.js, `make prism`, which installs it for `make`",
    ),
)


def check_needs(fixtures: Iterable[str]) -> None:
    """Skip a test that asks for what is not here, or fail it."""
    for need in NEEDS:
        if need.fixture in fixtures and not need.found():
            if os.environ.get(need.variable):
                pytest.fail(f"missing for {need.missing}", pytrace=False)
            pytest.skip(f"not run: {need.missing}")

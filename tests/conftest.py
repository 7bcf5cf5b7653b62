"""What all tests share.

Core tests carry `@pytest.mark.anyio` and run on asyncio and on trio; tests of asyncio-only engines carry
`@pytest.mark.asyncio`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from needs import check_needs
from site_support import build, stage

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")

_VARIABLES = ("PHYGITALS_API_KEY", "PHYGITALS_ENVIRONMENT", "PHYGITALS_BASE_URL")


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own configuration out of the tests."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each anyio test on both event loops."""
    return str(request.param)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out that needs what is not here."""
    if isinstance(item, pytest.Function):
        check_needs(item.fixturenames)


@pytest.fixture(scope="session")
def site_builder() -> None:
    """Ask for what builds the site."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, site_builder: None) -> Path:
    """Build the site of documents, and give its folder."""
    folder = tmp_path_factory.mktemp("site")
    stage(folder)
    done = build(folder)
    assert done.returncode == 0, done.stdout
    return folder / "site"

"""What all tests share.

Core tests carry `@pytest.mark.anyio` and run on asyncio and on trio; tests of asyncio-only engines carry
`@pytest.mark.asyncio`.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

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

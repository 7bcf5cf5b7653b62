"""What the tests of the sandbox share as fixtures."""

from __future__ import annotations

import pytest

from phygitals_async import (
    PhygitalsClient,
    Sandbox,
)
from phygitals_transports import MemoryTransport
from sandbox_support import NOW


@pytest.fixture
def sandbox() -> Sandbox:
    """Return a sandbox whose time stands still until it is advanced."""
    return Sandbox(clock=lambda: NOW, seed=1)


@pytest.fixture
def api(sandbox: Sandbox) -> PhygitalsClient:
    """Return a client of the sandbox."""
    return PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test")

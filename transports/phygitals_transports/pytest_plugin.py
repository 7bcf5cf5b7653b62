"""Fixtures for the tests of applications that use the library; pytest finds them once it is installed.

They are plain fixtures, without an event loop of their own, so they serve sync tests, both modes of
pytest-asyncio, and anyio's plugin on asyncio and trio alike.
"""

from __future__ import annotations

import pytest

from phygitals_async import Environment, PhygitalsClient, Sandbox
from phygitals_transports.memory import MemoryTransport

# Its assertions say what they compared, as those of a test module do.
pytest.register_assert_rewrite("phygitals_async.conformance")


@pytest.fixture
def phygitals_sandbox() -> Sandbox:
    """Return an in-memory sandbox of its own for each test, with repeatable draws."""
    return Sandbox(seed=0)


@pytest.fixture
def phygitals_transport(phygitals_sandbox: Sandbox) -> MemoryTransport:
    """Return the transport that `phygitals_client` uses: its `sent` holds every request to `phygitals_sandbox`."""
    return MemoryTransport(phygitals_sandbox)


@pytest.fixture
def phygitals_client(phygitals_transport: MemoryTransport) -> PhygitalsClient:
    """Return a client of `phygitals_sandbox`. Nothing needs closing: it holds no connection."""
    return PhygitalsClient(
        phygitals_transport,
        # Named in full, so that nothing is read from the environment.
        api_key="sandbox-test",
        environment=Environment.SANDBOX,
        base_url="https://api.phygitals.com/_",
    )

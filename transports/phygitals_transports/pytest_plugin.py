"""Fixtures for the tests of applications that use the library; pytest finds them once it is installed.

They are plain fixtures, without an event loop of their own, so they serve sync tests, both modes of
pytest-asyncio, and anyio's plugin on asyncio and trio alike.
"""

from __future__ import annotations

import anyio
import pytest

from phygitals_async import Environment, PhygitalsClient, Sandbox
from phygitals_async.clock import SkippingClock
from phygitals_transports.faults import FaultTransport
from phygitals_transports.memory import MemoryTransport

# Its assertions say what they compared, as those of a test module do.
pytest.register_assert_rewrite("phygitals_async.conformance")


@pytest.fixture
def phygitals_clock() -> SkippingClock:
    """Return a clock that moves the other fixtures of a test that asks for it: the client's pauses take no time.

    `advance` moves the sandbox's time, and all that waits for it.
    """
    return SkippingClock()


@pytest.fixture
def phygitals_sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Return an in-memory sandbox of its own for each test, with repeatable draws."""
    clock = _clock(request)
    return Sandbox(seed=0) if clock is None else Sandbox(seed=0, clock=clock.utc_now)


@pytest.fixture
def phygitals_transport(phygitals_sandbox: Sandbox) -> MemoryTransport:
    """Return the transport that `phygitals_faults` uses: its `sent` holds every request to `phygitals_sandbox`."""
    return MemoryTransport(phygitals_sandbox)


@pytest.fixture
def phygitals_faults(request: pytest.FixtureRequest, phygitals_transport: MemoryTransport) -> FaultTransport:
    """Return what `phygitals_client` sends through: tell it what is to `fail`, or to take its time."""
    clock = _clock(request)
    return FaultTransport(phygitals_transport, sleep=anyio.sleep if clock is None else clock.sleep)


@pytest.fixture
def phygitals_client(request: pytest.FixtureRequest, phygitals_faults: FaultTransport) -> PhygitalsClient:
    """Return a client of `phygitals_sandbox`. Nothing needs closing: it holds no connection."""
    return PhygitalsClient(
        phygitals_faults,
        # Named in full, so that nothing is read from the environment.
        api_key="sandbox-test",
        environment=Environment.SANDBOX,
        base_url="https://api.phygitals.com/_",
        clock=_clock(request),
    )


def _clock(request: pytest.FixtureRequest) -> SkippingClock | None:
    """Return the clock of a test that asks for it; others run in real time."""
    if "phygitals_clock" not in request.fixturenames:
        return None
    clock: SkippingClock = request.getfixturevalue("phygitals_clock")
    return clock

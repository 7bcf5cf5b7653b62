"""A sandbox as it is served over HTTP: pictures, an admin API, a console, a clock that moves, and faults."""

from phygitals_async.sandbox.served.clock import MovableClock
from phygitals_async.sandbox.served.site import ServedSandbox

__all__ = ["MovableClock", "ServedSandbox"]

"""The vendor's sandbox as a pure state machine: a handler of requests that does no I/O.

Give it to a `MemoryTransport`, or serve it over HTTP with `python -m phygitals_async.sandbox`.
"""

from phygitals_async.sandbox.catalogue import Listing
from phygitals_async.sandbox.options import RateLimit, SandboxOptions
from phygitals_async.sandbox.sandbox import Sandbox

__all__ = ["Listing", "RateLimit", "Sandbox", "SandboxOptions"]

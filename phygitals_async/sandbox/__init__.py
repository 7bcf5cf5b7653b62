"""The vendor's sandbox as a pure state machine: a handler of requests that does no I/O.

Give it to a `MemoryTransport`, or serve it over HTTP with `python -m phygitals_async.sandbox`.
"""

import typing

from phygitals_async._late import late

if typing.TYPE_CHECKING:
    from phygitals_async.sandbox.catalogue import Listing
    from phygitals_async.sandbox.options import RateLimit, SandboxOptions
    from phygitals_async.sandbox.sandbox import Sandbox

__all__ = ["Listing", "RateLimit", "Sandbox", "SandboxOptions"]

if not typing.TYPE_CHECKING:
    # The help of its server needs none of them.
    __getattr__, __dir__ = late(
        __name__,
        {"Listing": "catalogue", "RateLimit": "options", "Sandbox": "sandbox", "SandboxOptions": "options"},
    )

"""A pytest kit that proves a transport right: the wire contract, every fault of the wire, and the life cycle.

Make a class of your own of `HttpTransportConformance`, or of `TransportConformance` for a transport that opens no
connections, in a test module. The kit has loopback servers of its own. It needs pytest, and trio where the transport
runs on it.
"""

from __future__ import annotations

from phygitals_async.conformance.contract import Handler, TransportConformance
from phygitals_async.conformance.network import HttpTransportConformance
from phygitals_async.conformance.rules import Rule, Settings

__all__ = ["Handler", "HttpTransportConformance", "Rule", "Settings", "TransportConformance"]

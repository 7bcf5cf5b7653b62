"""Implementations of `phygitals_async.Transport`, one file each, named for its engine.

Each is imported when first asked for, so that using one does not load the engine of another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phygitals_transports.aiohttp import AiohttpTransport
    from phygitals_transports.aiohttp_connector import GuardedConnector
    from phygitals_transports.caching import CachingTransport
    from phygitals_transports.faults import FaultTransport
    from phygitals_transports.httpx2 import Httpx2Transport
    from phygitals_transports.memory import MemoryTransport
    from phygitals_transports.recording import RecordingTransport
    from phygitals_transports.replaying import ReplayTransport
    from phygitals_transports.reqwest import ReqwestTransport

__all__ = [
    "AiohttpTransport",
    "CachingTransport",
    "FaultTransport",
    "GuardedConnector",
    "Httpx2Transport",
    "MemoryTransport",
    "RecordingTransport",
    "ReplayTransport",
    "ReqwestTransport",
]

_HOMES = {
    "AiohttpTransport": "aiohttp",
    "CachingTransport": "caching",
    "FaultTransport": "faults",
    "GuardedConnector": "aiohttp_connector",
    "Httpx2Transport": "httpx2",
    "MemoryTransport": "memory",
    "RecordingTransport": "recording",
    "ReplayTransport": "replaying",
    "ReqwestTransport": "reqwest",
}


def _load(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


if not TYPE_CHECKING:
    # Type checkers would take every misspelt name for one that it has.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)

"""Whether aiohttp is what this package rests on.

Where it is not, a request could be sent twice without anyone noticing; so nothing is sent with it.
"""

from __future__ import annotations

import inspect
from typing import Final

import aiohttp
import aiohttp.client
import aiohttp.client_proto
import aiohttp.connector

from phygitals_async import ConfigurationError

_CONNECT: Final = ["self", "req", "traces", "timeout"]
_SETTINGS: Final = ("force_close", "keepalive_timeout", "limit", "resolver", "use_dns_cache")


def check_aiohttp() -> None:
    """See that the installed aiohttp has all that `GuardedConnector` uses of it.

    Raises:
        ConfigurationError: It has not.
    """
    connect = getattr(aiohttp.TCPConnector, "connect", None)
    settings = inspect.signature(aiohttp.TCPConnector).parameters
    connection = getattr(aiohttp.connector, "Connection", None)
    found = {
        "TCPConnector.connect(req, traces, timeout)": inspect.iscoroutinefunction(connect)
        and [*inspect.signature(connect).parameters] == _CONNECT,
        **{f"TCPConnector({name}=)": name in settings for name in _SETTINGS},
        **{f"Connection.{name}": hasattr(connection, name) for name in ("close", "protocol")},
        "ResponseHandler.should_close": hasattr(aiohttp.client_proto.ResponseHandler, "should_close"),
    }
    if missing := [name for name, there in found.items() if not there]:
        raise ConfigurationError(_refusal(f"it lacks {', '.join(missing)}"))


def connector_was_passed_by() -> ConfigurationError | None:
    """Tell what an answer means for which the connector was never asked.

    Returns:
        The error for every later request, or None where a test library has replaced aiohttp's way of sending.
    """
    # The one private name of aiohttp here, and only to see whether it is aiohttp's: test libraries replace it,
    # aioresponses among them.
    sends = getattr(aiohttp.ClientSession, "_request", None)
    if sends is not None and getattr(sends, "__globals__", None) is not vars(aiohttp.client):
        return None
    return ConfigurationError(_refusal("it sends requests without asking the connector"))


def _refusal(reason: str) -> str:
    return f"this library cannot vouch for requests sent with aiohttp {aiohttp.__version__}: {reason}"

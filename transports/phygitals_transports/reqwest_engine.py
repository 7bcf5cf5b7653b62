"""The clients of pyreqwest, and its failures in this library's words."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ClientClosedError, DecodeError, NetworkError, RequestTimeoutError

from phygitals_async import ConnectionLost, PhygitalsError, TransportError

_LOST: Final = (ClientClosedError, DecodeError, NetworkError, RequestTimeoutError)


def new_client(connect_timeout: float, timeout: float, authority: str | None, *, keep: bool) -> Client:
    """Return a client that keeps connections, or none; its timeouts are in seconds."""
    builder = ClientBuilder().no_proxy().follow_redirects(False).referer(False)
    builder.connect_timeout(timedelta(seconds=connect_timeout)).timeout(timedelta(seconds=timeout))
    if not keep:
        builder.pool_max_idle_per_host(0)
    if authority is not None:
        builder.add_root_certificate_pem(authority.encode())
    return builder.build()


def translate(error: Exception) -> PhygitalsError:
    """Name a failure; none of them tells whether the request was sent."""
    if isinstance(error, PhygitalsError):
        return error
    kind = ConnectionLost if isinstance(error, _LOST) else TransportError
    return kind(f"the exchange failed: {type(error).__name__}")

"""The failures of pyreqwest in this library's words."""

from __future__ import annotations

from typing import Final

from pyreqwest.exceptions import ClientClosedError, DecodeError, NetworkError, RequestTimeoutError

from phygitals_async import ConnectionLost, PhygitalsError, TransportError

_LOST: Final = (ClientClosedError, DecodeError, NetworkError, RequestTimeoutError)


def translate(error: Exception) -> PhygitalsError:
    """Name a failure; none of them tells whether the request was sent."""
    if isinstance(error, PhygitalsError):
        return error
    kind = ConnectionLost if isinstance(error, _LOST) else TransportError
    return kind(f"the exchange failed: {type(error).__name__}")

"""The engines, by name."""

from __future__ import annotations

from typing import Final

import phygitals_transports
from phygitals_async import ConfigurationError, Transport

# The classes' names: each is imported when it is asked for.
ENGINES: Final = {"aiohttp": "AiohttpTransport", "httpx2": "Httpx2Transport", "reqwest": "ReqwestTransport"}


def new_transport(engine: str) -> Transport:
    """Return a transport with its usual settings.

    Raises:
        ConfigurationError: There is no such engine, or it is not installed. What was given is not shown: it may be the
            API key.
    """
    if engine not in ENGINES:
        names = ", ".join(ENGINES)
        msg = f"transport must be a Transport, not str, or one of {names}; the API key goes by name: api_key=..."
        raise ConfigurationError(msg)
    made: Transport = getattr(phygitals_transports, ENGINES[engine])()
    return made

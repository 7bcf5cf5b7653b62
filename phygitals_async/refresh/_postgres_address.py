"""The address of a PostgreSQL database: whether it can be one, and what may be shown of it."""

from __future__ import annotations

import re
from typing import Final

from phygitals_async.errors import ConfigurationError

_ADDRESS: Final = re.compile(r"postgres(?:ql)?://(?:[^/?#]*@)?([^@/?#]*)(/[^@?#]*)?(?:[?#][^@]*)?", re.DOTALL)
_HOST: Final = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::(\d{0,5}))?")
_LAST_PORT: Final = 65535


def shown(address: str) -> str:
    """Return the hosts and the database of an address, without a user or a password.

    Raises:
        ConfigurationError: It is none. What it says shows nothing of it, for any piece may be one of a password.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None or not all(map(_is_host, parts[1].split(","))):
        msg = (
            "the address of the database cannot be read: it is postgresql://user:password@host:port/database, where "
            "a port is at most 65535, and in a user or a password / is %2F, ? is %3F, # is %23, @ is %40 and : is %3A"
        )
        raise ConfigurationError(msg)
    return f"{parts[1]}{parts[2] or ''}" or "of this machine"


def _is_host(text: str) -> bool:
    parts = _HOST.fullmatch(text)
    return parts is not None and int(parts[1] or 0) <= _LAST_PORT

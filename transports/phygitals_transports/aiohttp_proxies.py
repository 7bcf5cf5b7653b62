"""The proxies that the environment names."""

from __future__ import annotations

import os

from yarl import URL

from phygitals_async import ConnectError
from phygitals_async.transport import Delivery


def proxy_for(url: URL, delivery: Delivery) -> URL | None:
    """Return the proxy for a request to `url`, or None for a direct connection.

    `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in upper or lower case, are read each time; on Windows and macOS
    the system's settings count where the variables are missing.

    Raises:
        ConnectError: What is named is not the URL of an HTTP proxy. The request is never sent, and `delivery` says so.
    """
    # Slow to import, and not needed by most.
    from urllib.request import getproxies, proxy_bypass

    value = getproxies().get(url.scheme)
    if value is None or proxy_bypass(url.raw_host or ""):
        return None
    proxy = _parsed(value)
    if proxy is None:
        delivery.failed = True
        name, shown = _variable(url.scheme, value), _without_password(value)
        msg = f"no connection: {name} is not the URL of an HTTP proxy: {shown!r}"
        raise ConnectError(msg)
    return proxy


def _parsed(value: str) -> URL | None:
    try:
        proxy = URL(value)
        return proxy if proxy.scheme in ("http", "https") and proxy.raw_host and proxy.port else None
    except ValueError:
        return None


def _variable(scheme: str, value: str) -> str:
    """Return the name of the variable that holds `value`."""
    name = f"{scheme}_proxy"
    return name if os.environ.get(name) == value else name.upper()


def _without_password(value: str) -> str:
    scheme, separator, rest = value.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]

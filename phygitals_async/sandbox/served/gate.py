"""Who may look at the console, and who may change anything."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

COOKIE: Final = "phygitals_admin"
TOKEN_HEADER: Final = "x-admin-token"  # noqa: S105 - its name.

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:[0-9]+)?", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, and nobody else can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def named_host(headers: Mapping[str, str]) -> str:
    """Return the host and port that a request names, or an empty text where that is no such name."""
    host = headers.get("host", "")
    return host if _HOST.fullmatch(host) else ""


@frozen
class Gate:
    """Keeps pages of other sites out, and, with a token, everybody who does not know it.

    A page of another site says so in `Origin` or `Sec-Fetch-Site`, which it cannot leave out when it changes anything.
    One that had its own name lead to this machine would be at home by both: without a token, only names that cannot be
    anybody's are answered; with one, it does not have the cookie.

    Attributes:
        token: What opens it; None for a server that only this machine can reach.
    """

    token: str | None = field(default=None, repr=False)

    def is_same_site(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from no browser, from a page of this server, or changes nothing."""
        host, origin = named_host(headers), headers.get("origin")
        if method in ("GET", "HEAD"):
            return True
        if origin is not None and not (self.knows(headers) and origin in (f"http://{host}", f"https://{host}")):
            return False
        return headers.get("sec-fetch-site", "none") in ("same-origin", "none")

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether the server is asked under a name of its own."""
        found = _HOST.fullmatch(headers.get("host", ""))
        return found is not None and (self.token is not None or is_loopback(found[1]))

    def opens(self, token: str | None) -> bool:
        """Whether a token is the right one."""
        given = (token or "").encode(errors="surrogateescape")
        return self.token is None or hmac.compare_digest(self.token.encode(), given)


def cookie_of(headers: Mapping[str, str], name: str = COOKIE) -> str | None:
    """Return what a browser keeps under a name, by default the token."""
    found = re.search(rf"(?:^|;\s*){name}=([^;]*)", headers.get("cookie", ""))
    return found[1] if found else None

"""What `phygitals doctor` looks at."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import click
from attrs import frozen

from phygitals_async import (
    AuthenticationError,
    CertificateRefused,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    PermissionDenied,
    PhygitalsError,
    Request,
    Response,
    RetryPolicy,
)
from phygitals_async._api.headers import parse_date
from phygitals_async.cli._client import Connection
from phygitals_async.cli._endings import Exit
from phygitals_async.cli._errors import status_of
from phygitals_async.cli._transport import Remembering, transport
from phygitals_async.config import Settings, resolve_settings
from phygitals_async.sync import PhygitalsClient
from phygitals_async.version import VERSION

_DEPENDENCIES: Final = ("aiohttp", "anyio", "attrs", "cattrs", "msgspec", "yarl", "click", "rich")
# Seconds for a connection that only looks at the certificate, and for a request without a key.
_PATIENCE: Final = 10.0
# A clock that is off by more makes sellback deadlines look wrong; by very much more, so that nothing is right.
_CLOCK: Final = timedelta(seconds=30)
_CLOCK_WRONG: Final = timedelta(hours=1)


@frozen
class Finding:
    """What came of one look.

    Attributes:
        name: What was looked at.
        state: `ok`, `warning` or `failed`.
        found: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""


def examine(connection: Connection) -> Iterator[tuple[Finding, Exit]]:
    """Look at one thing after the other, each with the status it comes to.

    What rests on a thing that failed is not looked at; name, TLS and clock do not rest on the key.
    """
    yield check_versions(), Exit.DONE
    try:
        settings = connection.settings()
    except (ConfigurationError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        yield from _without_settings(connection, text)
        return
    kind = "a sandbox key" if settings.api_key.startswith("sandbox-") else "a production key"
    yield Finding("key", "ok", f"set: {kind}"), Exit.DONE
    yield Finding("environment", "ok", f"{settings.environment} at {settings.root}"), Exit.DONE
    if (yield from _reach(urlsplit(settings.root))):
        yield from _call(connection)


def _without_settings(connection: Connection, text: str) -> Iterator[tuple[Finding, Exit]]:
    root = _root(connection)
    yield Finding("key and environment", "failed", text, _settings_advice(root)), Exit.USAGE
    if root is None:
        return
    yield Finding("URL", "ok", root), Exit.DONE
    if (yield from _reach(urlsplit(root))):
        yield from _ask(root)


def _status(finding: Finding) -> Exit:
    return Exit.FAILED if finding.state == "failed" else Exit.DONE


def _root(connection: Connection) -> str | None:
    """Return where calls would go with a key that fits, or None where no key could."""
    for key in ("none", "sandbox-none"):
        try:
            return _settings(key, connection.environment, connection.base_url).root
        except ConfigurationError:
            continue
    return None


def _settings(key: str | None, environment: str | None, base_url: str | None) -> Settings:
    return resolve_settings(key, environment, base_url, "/api/v1")


def _settings_advice(root: str | None) -> str:
    if root is None:
        return (
            "set PHYGITALS_ENVIRONMENT to production or sandbox, or leave it out; set PHYGITALS_BASE_URL only for "
            "another place than the vendor's"
        )
    if not os.environ.get("PHYGITALS_API_KEY"):
        return "set PHYGITALS_API_KEY to the key Phygitals issued; for `phygitals sandbox`, to sandbox-local"
    for environment in ("production", "sandbox"):
        try:
            # On its own, there is nothing wrong with it.
            _settings(None, environment, "http://127.0.0.1")
        except ConfigurationError:
            continue
        return (
            f"this key is for {environment}: leave PHYGITALS_ENVIRONMENT out, or set it to {environment}, and name no "
            "other URL of the vendor's in PHYGITALS_BASE_URL; or set PHYGITALS_API_KEY to a key for what they name"
        )
    return "set PHYGITALS_API_KEY to the key as Phygitals issued it, and nothing around it"


def _reach(parts: SplitResult) -> Generator[tuple[Finding, Exit], None, bool]:
    """Look at the way to a URL, and return whether it is free as far as one can see."""
    proxied = _proxy(parts)
    yield check_proxy(parts, proxied), Exit.DONE
    for check in (check_name, check_tls) if proxied is None else ():
        finding = check(parts)
        yield finding, _status(finding)
        if finding.state == "failed":
            return False
    return True


def check_versions() -> Finding:
    """Tell what is installed."""
    found = [f"phygitals-async {VERSION}", f"Python {platform.python_version()} on {platform.system()}"]
    for name in _DEPENDENCIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            # Vendored, or in an executable.
            found.append(f"{name} (unknown)")
    return Finding("versions", "ok", ", ".join(found))


def _proxy(parts: SplitResult) -> str | None:
    """Return the proxy that the environment names for a URL, without its password."""
    value = getproxies().get(parts.scheme)
    if value is None or proxy_bypass(parts.hostname or ""):
        return None
    scheme, separator, rest = value.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


def check_proxy(parts: SplitResult, proxied: str | None) -> Finding:
    """Tell whether calls go through a proxy."""
    if proxied is None:
        return Finding("proxy", "ok", "none")
    found = f"{parts.scheme.upper()}_PROXY: {proxied}"
    return Finding("proxy", "ok", f"{found}; name and TLS are looked at through it, with the call below")


def check_name(parts: SplitResult) -> Finding:
    """Resolve the host name."""
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        advice = (
            f"check the spelling of {host}, this machine's DNS (resolv.conf, VPN), and whether calls must go through a "
            "proxy (HTTPS_PROXY)"
        )
        return Finding("name", "failed", f"{host} could not be resolved: {reason}", advice)
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return Finding("name", "ok", f"{host} is {', '.join(addresses)}")


def check_tls(parts: SplitResult) -> Finding:
    """Connect, and look at the certificate."""
    host = parts.hostname or ""
    try:
        with socket.create_connection((host, _port(parts)), _PATIENCE) as plain_socket:
            if parts.scheme == "http":
                return Finding("TLS", "ok", "none: plain HTTP on this machine")
            with ssl.create_default_context().wrap_socket(plain_socket, server_hostname=host) as secure:
                certificate = secure.getpeercert() or {}
                until = certificate.get("notAfter", "unknown")
                return Finding("TLS", "ok", f"{secure.version()}, certificate valid until {until}")
    except ssl.SSLCertVerificationError as error:
        advice = (
            "check this machine's clock; where a company's proxy signs its own certificates, name its CA file in "
            "SSL_CERT_FILE; where the system has none, install ca-certificates"
        )
        return Finding("TLS", "failed", f"the certificate of {host} was refused: {error.verify_message}", advice)
    except ssl.SSLError as error:
        advice = (
            f"what listens at {host}:{_port(parts)} speaks no TLS: check the port; on this machine, a base URL may "
            "begin with http://"
        )
        return Finding("TLS", "failed", f"no TLS at {host}:{_port(parts)}: {error.reason or error}", advice)
    except OSError as error:
        reason = error.strerror or str(error)
        place = f"{host}:{_port(parts)}"
        advice = (
            f"start what should answer at {place}: `phygitals sandbox` does, once it has said that it is ready"
            if parts.scheme == "http"
            else f"check whether a firewall lets this machine reach {place}, or whether it needs a proxy"
        )
        return Finding("TLS", "failed", f"no connection to {host}:{_port(parts)}: {reason}", advice)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _call(connection: Connection) -> Iterator[tuple[Finding, Exit]]:
    """List the packs, once, and compare the clocks."""
    remembering = Remembering(transport())
    began = time.monotonic()
    try:
        with PhygitalsClient(remembering, **connection.arguments(), retry=RetryPolicy(retries=0)) as api:
            packs = api.list_packs()
    except PhygitalsError as error:
        yield Finding("call", "failed", str(error), _advice(error)), status_of(error)
    else:
        milliseconds = (time.monotonic() - began) * 1000
        yield Finding("call", "ok", f"{len(packs)} packs in {milliseconds:.0f} ms"), Exit.DONE
    if remembering.last is not None:
        clock = check_clock(remembering.last, datetime.now(UTC))
        yield clock, _status(clock)


def _ask(root: str) -> Iterator[tuple[Finding, Exit]]:
    """Send one request without a key: whoever refuses it has a clock, too."""
    try:
        response = asyncio.run(_refused(root))
    except PhygitalsError as error:
        yield Finding("answer", "failed", str(error), _advice(error)), Exit.FAILED
        return
    yield Finding("answer", "ok", f"{response.status}, to a request without a key"), Exit.DONE
    clock = check_clock(response, datetime.now(UTC))
    yield clock, _status(clock)


async def _refused(root: str) -> Response:
    sends = transport()
    try:
        async with asyncio.timeout(_PATIENCE):
            return await sends.send(Request("GET", f"{root}/vm/available", {}))
    except TimeoutError:
        msg = f"no answer within {_PATIENCE:.0f} s"
        raise ConnectionLost(msg) from None
    finally:
        await sends.aclose()


def _advice(error: PhygitalsError) -> str:
    advice: tuple[tuple[type[PhygitalsError], str], ...] = (
        (
            AuthenticationError,
            "the key is not known there: compare it with the one Phygitals issued, and its environment",
        ),
        (PermissionDenied, "the edge firewall may refuse this machine's address: ask the vendor to allow-list it"),
        (CertificateRefused, "check the clock, and SSL_CERT_FILE where a proxy signs its own certificates"),
        (ConnectError, "check the proxy (HTTPS_PROXY, NO_PROXY) and the firewall"),
    )
    return next((text for cls, text in advice if isinstance(error, cls)), "try again later; -v tells of each attempt")


def check_clock(response: Response, now: datetime) -> Finding:
    """Compare this machine's clock with the server's, to the second or so."""
    date = next((value for name, value in response.headers.items() if name.lower() == "date"), "")
    server = parse_date(date)
    if server is None:
        return Finding("clock", "warning", "the answer has no date to compare with")
    off = now - server
    if abs(off) <= _CLOCK:
        return Finding("clock", "ok", "agrees with the server's")
    found = f"{abs(off).total_seconds():,.0f} s {'ahead of' if off > timedelta(0) else 'behind'} the server's"
    state: Literal["warning", "failed"] = "failed" if abs(off) > _CLOCK_WRONG else "warning"
    return Finding("clock", state, found, "set this machine's clock, best by NTP: deadlines are compared with it")

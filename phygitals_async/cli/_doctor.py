"""Why calls fail: what a call needs, looked at piece by piece, with what to do about each."""

from __future__ import annotations

import platform
import socket
import ssl
import time
from collections.abc import Iterator
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
    PermissionDenied,
    PhygitalsError,
    Response,
    RetryPolicy,
)
from phygitals_async._api.headers import parse_date
from phygitals_async.cli._client import Connection, Remembering, connects, transport
from phygitals_async.cli._endings import Exit, plain, say
from phygitals_async.cli._errors import status_of
from phygitals_async.cli._output import json_option, print_json, print_table
from phygitals_async.sync import PhygitalsClient
from phygitals_async.version import VERSION

_DEPENDENCIES: Final = ("aiohttp", "anyio", "attrs", "cattrs", "msgspec", "yarl", "click", "rich")
# Seconds for a connection that only looks at the certificate.
_PATIENCE: Final = 10.0
# A clock that is off by more makes sellback deadlines and certificates look wrong.
_CLOCK: Final = timedelta(seconds=30)


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


@click.command()
@json_option
@connects
def doctor(connection: Connection, as_json: bool) -> int:
    """Find out why calls fail, and what to do.

    It looks at versions, key, environment, proxy, name, TLS, an answer, and the clock. It makes one call, which lists
    the packs. The key is not shown.
    """
    findings: list[Finding] = []
    code = Exit.DONE
    with connection.told():
        for finding, status in _look(connection):
            findings.append(finding)
            code = max(code, status)
    if as_json:
        print_json({"findings": findings, "exit": int(code)})
        return code
    print_table(("", "state", "found"), [(one.name, one.state, one.found) for one in findings])
    for finding in findings:
        if finding.advice:
            click.echo(f"{finding.name}: {plain(finding.advice)}")
    say("all is well" if code is Exit.DONE else "something is wrong: see above what to do")
    return code


def _look(connection: Connection) -> Iterator[tuple[Finding, Exit]]:
    """Look at one thing after the other; what rests on one that failed is not looked at."""
    yield check_versions(), Exit.DONE
    try:
        settings = connection.settings()
    except (ConfigurationError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        advice = "set PHYGITALS_API_KEY, and PHYGITALS_ENVIRONMENT and PHYGITALS_BASE_URL where you need them"
        yield Finding("key and environment", "failed", text, advice), Exit.FAILED
        return
    kind = "a sandbox key" if settings.api_key.startswith("sandbox-") else "a production key"
    yield Finding("key", "ok", f"set: {kind}"), Exit.DONE
    yield Finding("environment", "ok", f"{settings.environment} at {settings.root}"), Exit.DONE
    parts = urlsplit(settings.root)
    proxied = _proxy(parts)
    yield check_proxy(parts, proxied), Exit.DONE
    if proxied is None:
        for check in (check_name, check_tls):
            finding = check(parts)
            failed = finding.state == "failed"
            yield finding, Exit.FAILED if failed else Exit.DONE
            if failed:
                return
    yield from _call(connection)


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
        yield check_clock(remembering.last, datetime.now(UTC)), Exit.DONE


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
    return Finding("clock", "warning", found, "set this machine's clock, best by NTP: deadlines are compared with it")

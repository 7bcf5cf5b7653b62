"""Where to send requests and with which key, and the refusals that stop a mix-up before it is sent."""

from __future__ import annotations

import enum
import ipaddress
import os
import re
from typing import Final, NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import frozen

from phygitals_async._api_key import ApiKey, conceal
from phygitals_async._checks import shown
from phygitals_async.errors import ConfigurationError

_VENDOR_ORIGIN: Final = "https://api.phygitals.com"
_SANDBOX_KEY_PREFIX: Final = "sandbox-"
# What somebody wrote who meant the sandbox; it would mean production.
_NEARLY_SANDBOX: Final = re.compile(r"sandbox([^a-z]|$)", re.IGNORECASE)
_PUBLIC_API_KEY_PREFIX: Final = "phy_"
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_AUTHORITY: Final = rf"(\[[0-9A-Fa-f:.]+\]|{_LABEL}(\.{_LABEL})*\.?)(:[0-9]+)?"


class Environment(enum.StrEnum):
    """The vendor's environments (API sheet, section 1). Production moves real money and goods."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


_BASE_URLS: Final = {
    Environment.PRODUCTION: _VENDOR_ORIGIN,
    Environment.SANDBOX: f"{_VENDOR_ORIGIN}/_",
}


@frozen
class Settings:
    """What a client needs to know to address the API.

    Attributes:
        api_key: The partner's key.
        environment: The environment the key belongs to.
        root: What every path is appended to: base URL and path prefix, without a trailing slash.
    """

    api_key: ApiKey
    environment: Environment
    root: str

    def __reduce__(self) -> NoReturn:
        # Pickling would have to drop the key in silence or carry it.
        msg = "settings hold an API key and are not picklable"
        raise TypeError(msg)


def resolve_settings(
    api_key: object, environment: Environment | str | None, base_url: str | None, path_prefix: str
) -> Settings:
    """Combine arguments with the environment variables; arguments win.

    Raises:
        ConfigurationError: A setting is missing, malformed, or contradicts another. It never shows the key.
    """
    key = _check_key(conceal(os.environ.get("PHYGITALS_API_KEY") or None if api_key is None else api_key))
    named = os.environ.get("PHYGITALS_ENVIRONMENT") or None if environment is None else environment
    given = os.environ.get("PHYGITALS_BASE_URL") or None if base_url is None else base_url
    if named is None and given is None:
        _check_plain(key)
    chosen = _check_environment(named, key)
    base = _BASE_URLS[chosen] if given is None else _check_base_url(given)
    prefix = _check_path_prefix(path_prefix)
    if prefix and base.endswith(prefix):
        msg = f"the base URL must not end with {prefix}: that is the path prefix, which is appended to it"
        raise ConfigurationError(msg)
    settings = Settings(key, chosen, base + prefix)
    _check_root(settings)
    return settings


def _check_key(key: object) -> ApiKey:
    if key is None:
        msg = "no API key: pass api_key or set PHYGITALS_API_KEY"
    elif not isinstance(key, ApiKey):
        msg = "the API key must be a string"
    elif not key:
        msg = "the API key is empty"
    elif not re.fullmatch(r"[!-~]+", key):
        msg = "the API key holds whitespace, control or non-ASCII characters; was it copied with a line break?"
    elif key[0] in "'\"`" or key[-1] in "'\"`":
        msg = "the API key stands in quotes, which are no part of it: leave them out"
    elif key.startswith(_PUBLIC_API_KEY_PREFIX):
        msg = (
            f"a key that starts with {_PUBLIC_API_KEY_PREFIX} belongs to the public API, another product; "
            "the Partner API needs the key Phygitals issued to the partner"
        )
    else:
        return key
    raise ConfigurationError(msg)


def _check_plain(key: ApiKey) -> None:
    """Refuse a key that alone would have to tell the environment, and does not."""
    if _NEARLY_SANDBOX.match(key) and not key.startswith(_SANDBOX_KEY_PREFIX):
        msg = (
            f"a key that starts with {_SANDBOX_KEY_PREFIX}, in lower case, means the sandbox, any other production; "
            "this one nearly does: if it is a production key, say environment='production'"
        )
        raise ConfigurationError(msg)


def _check_environment(named: Environment | str | None, key: ApiKey) -> Environment:
    is_sandbox_key = key.startswith(_SANDBOX_KEY_PREFIX)
    if named is None:
        return Environment.SANDBOX if is_sandbox_key else Environment.PRODUCTION
    try:
        environment = Environment(named)
    except ValueError:
        msg = (
            "the environment (PHYGITALS_ENVIRONMENT, unless given) must be 'production' or 'sandbox', "
            f"not {shown(named)}"
        )
        raise ConfigurationError(msg) from None
    _check_fit(environment, is_sandbox_key=is_sandbox_key)
    return environment


def _check_fit(environment: Environment, *, is_sandbox_key: bool) -> None:
    if environment is Environment.PRODUCTION and is_sandbox_key:
        msg = f"a {_SANDBOX_KEY_PREFIX} key does not fit production: use the sandbox, whose base URL ends with /_"
        raise ConfigurationError(msg)
    if environment is Environment.SANDBOX and not is_sandbox_key:
        msg = f"the sandbox takes keys that start with {_SANDBOX_KEY_PREFIX}; this looks like a production key"
        raise ConfigurationError(msg)


def _check_base_url(url: str) -> str:
    parts = _split_url(url)
    if parts.scheme not in ("http", "https"):
        msg = "the base URL must start with https:// (http:// for loopback only)"
    elif not parts.hostname:
        msg = "the base URL has no host"
    elif "@" in parts.netloc:
        msg = "the base URL must not hold user info"
    elif "?" in url or "#" in url:
        msg = "the base URL must not hold a query or a fragment"
    elif "\\" in url or not _is_plain_path(parts.path):
        msg = "the base URL's path must not hold backslashes, empty, '.' or '..' segments"
    elif not re.fullmatch(_AUTHORITY, parts.netloc):
        msg = "the base URL has no valid host and port"
    elif re.fullmatch(r"[0-9.]+", parts.hostname) and not _is_ip_address(parts.hostname):
        msg = "the base URL's host looks like an IP address and is none"
    elif parts.scheme == "http" and not _is_loopback(parts.hostname):
        msg = "plain http would show the API key to the network: use https (http is for loopback only)"
    else:
        return url.rstrip("/")
    raise ConfigurationError(msg)


def _check_root(settings: Settings) -> None:
    """Refuse a key that does not fit the vendor's environment that the URL addresses, however it is spelt."""
    parts = urlsplit(settings.root)
    if (parts.hostname or "").rstrip(".") == urlsplit(_VENDOR_ORIGIN).hostname:
        first = unquote(parts.path).lstrip("/").partition("/")[0]
        environment = Environment.SANDBOX if first == "_" else Environment.PRODUCTION
        _check_fit(environment, is_sandbox_key=settings.api_key.startswith(_SANDBOX_KEY_PREFIX))


def _split_url(url: str) -> SplitResult:
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]+", url):
        msg = "the base URL must be ASCII text without whitespace or control characters"
        raise ConfigurationError(msg)
    try:
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    except ValueError:
        pass
    msg = "the base URL has no valid host and port"
    raise ConfigurationError(msg)


def _check_path_prefix(prefix: str) -> str:
    if not isinstance(prefix, str) or not re.fullmatch(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?", prefix):
        msg = "the path prefix must be empty or look like /api/v1"
        raise ConfigurationError(msg)
    if not _is_plain_path(prefix):
        msg = "the path prefix must not hold '.' or '..' segments"
        raise ConfigurationError(msg)
    return prefix.rstrip("/")


def _is_plain_path(path: str) -> bool:
    """Whether no part of `path` could be dropped or resolved away on its journey."""
    inner = path.removeprefix("/").removesuffix("/")
    if not inner:
        return True
    return "" not in inner.split("/") and not {".", ".."} & set(re.split(r"[/\\]", unquote(inner)))


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

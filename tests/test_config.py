"""Settings: where requests go, with which key, and every mix-up that is refused."""

from __future__ import annotations

import math
import pickle
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from phygitals_async import ConfigurationError, Environment, PhygitalsClient, Request, Response
from phygitals_async._api_key import ApiKey
from phygitals_async._checks import check_count, check_seconds
from phygitals_async.config import Settings, resolve_settings
from phygitals_transports import MemoryTransport

SANDBOX_KEY = "sandbox-0123456789"
PRODUCTION_KEY = "live-9876543210"
VENDOR = "https://api.phygitals.com"
ELSEWHERE = "https://gateway.example"


def _resolve(
    api_key: Any = PRODUCTION_KEY, environment: Any = None, base_url: Any = None, path_prefix: Any = "/api/v1"
) -> Settings:
    return resolve_settings(api_key, environment, base_url, path_prefix)


def _refusal(**settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        _resolve(**settings)
    return caught.value


def _shown(error: BaseException) -> str:
    return "\n".join([str(error), repr(error), repr(error.args), *traceback.format_exception(error)])


# Keys


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        (" ", "whitespace"),
        ("\t", "whitespace"),
        ("live key-0123", "whitespace"),
        ("live-key-0123\n", "copied with a line break"),
        (" live-key-0123", "whitespace"),
        ("live-key\r\nX-Evil: 1", "control"),
        ("live-key\x00", "control"),
        ("live-key\x7f", "control"),
        ("live-kéy", "non-ASCII"),
        ("live-key\u200b", "non-ASCII"),
        ("live-key\u00a0", "non-ASCII"),
        ("live-\ud800", "non-ASCII"),
        ("phy_0123456789", "public API"),
        ("'sandbox-0123'", "in quotes"),
        ('"sandbox-0123"', "in quotes"),
        ('"live-key-0123', "in quotes"),
        ("`live-key-0123`", "in quotes"),
        ("Sandbox-0123456", "environment='production'"),
        ("SANDBOX-0123456", "environment='production'"),
        ("sandbox_0123456", "environment='production'"),
        ("sandbox0123456", "environment='production'"),
        ("Sandbox", "environment='production'"),
        (b"live-key-0123", "must be a string"),
        (12345678, "must be a string"),
    ],
)
def test_a_malformed_key_is_refused_and_not_shown(key: Any, reason: str) -> None:
    """The refusal names the rule and never the key."""
    error = _refusal(api_key=key)
    assert reason in str(error)
    assert not str(key).strip() or str(key) not in _shown(error)
    assert isinstance(error, ValueError)


def test_no_key_at_all_is_refused() -> None:
    """Without an argument and without a variable, the message tells both ways to give a key."""
    error = _refusal(api_key=None)
    assert str(error) == "no API key: pass api_key or set PHYGITALS_API_KEY"


@pytest.mark.parametrize(
    ("key", "environment", "base_url"),
    [
        (SANDBOX_KEY, "production", None),
        (SANDBOX_KEY, Environment.PRODUCTION, None),
        (SANDBOX_KEY, "production", ELSEWHERE),
        (SANDBOX_KEY, "production", f"{VENDOR}/_"),
        (SANDBOX_KEY, "sandbox", VENDOR),
        (SANDBOX_KEY, None, VENDOR),
        (SANDBOX_KEY, None, f"{VENDOR}/"),
        (SANDBOX_KEY, None, f"{VENDOR}:443"),
        (SANDBOX_KEY, None, f"{VENDOR}/_x"),
        (SANDBOX_KEY, None, "https://API.Phygitals.com"),
        (PRODUCTION_KEY, "sandbox", None),
        (PRODUCTION_KEY, Environment.SANDBOX, None),
        (PRODUCTION_KEY, "sandbox", ELSEWHERE),
        (PRODUCTION_KEY, "sandbox", VENDOR),
        (PRODUCTION_KEY, None, f"{VENDOR}/_"),
        (PRODUCTION_KEY, None, f"{VENDOR}/_/"),
        (PRODUCTION_KEY, None, f"{VENDOR}/_/deeper"),
        (PRODUCTION_KEY, "production", f"{VENDOR}/_"),
        (PRODUCTION_KEY, None, f"{VENDOR}:443/_"),
        (PRODUCTION_KEY, None, "HTTPS://API.PHYGITALS.COM/_"),
        ("SANDBOX-0123456789", "sandbox", None),
        ("live-sandbox-0123", "sandbox", None),
    ],
)
def test_a_key_of_the_other_environment_is_refused(key: str, environment: Any, base_url: str | None) -> None:
    """Neither the environment nor the vendor's own URL may contradict the key, and the key is not shown."""
    error = _refusal(api_key=key, environment=environment, base_url=base_url)
    assert "sandbox" in str(error)
    assert key not in _shown(error)


@pytest.mark.parametrize(
    ("base_url", "path_prefix"),
    [
        ("https://api.phygitals.com./_", "/api/v1"),
        (f"{VENDOR}//_", "/api/v1"),
        (f"{VENDOR}/%5F", "/api/v1"),
        (f"{VENDOR}/%5f/", "/api/v1"),
        (VENDOR, "/_/api/v1"),
        (None, "/_/api/v1"),
        (None, "/%5f/api/v1"),
    ],
)
def test_no_spelling_of_the_vendors_sandbox_takes_a_production_key(base_url: str | None, path_prefix: str) -> None:
    """A trailing dot, an encoded underscore or a prefix that holds `/_` address the sandbox all the same."""
    _refusal(api_key=PRODUCTION_KEY, base_url=base_url, path_prefix=path_prefix)


@pytest.mark.parametrize("environment", ["Production", "prod", "test", " sandbox", 1, b"sandbox"])
def test_an_unknown_environment_is_refused(environment: Any) -> None:
    """Only the two names count, exactly as written."""
    error = _refusal(environment=environment)
    text = "the environment (PHYGITALS_ENVIRONMENT, unless given) must be 'production' or 'sandbox', not "
    assert str(error) == text + (repr(environment) if isinstance(environment, str | int) else "a bytes")
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("key", "environment", "expected", "root"),
    [
        (SANDBOX_KEY, None, Environment.SANDBOX, f"{VENDOR}/_/api/v1"),
        (SANDBOX_KEY, "sandbox", Environment.SANDBOX, f"{VENDOR}/_/api/v1"),
        (SANDBOX_KEY, Environment.SANDBOX, Environment.SANDBOX, f"{VENDOR}/_/api/v1"),
        (PRODUCTION_KEY, None, Environment.PRODUCTION, f"{VENDOR}/api/v1"),
        (PRODUCTION_KEY, "production", Environment.PRODUCTION, f"{VENDOR}/api/v1"),
        ("!~", None, Environment.PRODUCTION, f"{VENDOR}/api/v1"),
        ("phyX0123", None, Environment.PRODUCTION, f"{VENDOR}/api/v1"),
        ("sandbox-", None, Environment.SANDBOX, f"{VENDOR}/_/api/v1"),
    ],
)
def test_the_key_decides_where_no_environment_is_named(
    key: str, environment: Any, expected: Environment, root: str
) -> None:
    """The environment follows from the key, and the URL from the environment."""
    settings = _resolve(api_key=key, environment=environment)
    assert (settings.api_key, settings.environment, settings.root) == (key, expected, root)


def test_a_key_that_is_nearly_a_sandbox_key_is_taken_where_something_else_decides() -> None:
    """The environment that is named, or the URL that is given."""
    for key in ("sandbox_0123", "Sandbox-0123"):
        assert _resolve(api_key=key, environment="production").root == f"{VENDOR}/api/v1"
        assert _resolve(api_key=key, base_url=ELSEWHERE).root == f"{ELSEWHERE}/api/v1"
    assert _resolve(api_key="sandboxed-0123").environment is Environment.PRODUCTION


# Base URLs


@pytest.mark.parametrize(
    ("base_url", "reason"),
    [
        ("", "ASCII text"),
        (5, "ASCII text"),
        (b"https://gateway.example", "ASCII text"),
        ("https://gateway.example\n", "whitespace"),
        (" https://gateway.example", "whitespace"),
        ("https://gate way.example", "whitespace"),
        ("https://gatewäy.example", "ASCII"),
        ("https://gateway.example\x00", "control"),
        ("gateway.example", "https://"),
        ("//gateway.example", "https://"),
        ("/api", "https://"),
        ("gateway.example:443", "https://"),
        ("ftp://gateway.example", "https://"),
        ("ws://gateway.example", "https://"),
        ("file:///etc/passwd", "https://"),
        ("https:", "no host"),
        ("https://", "no host"),
        ("https:///api", "no host"),
        ("https:gateway.example", "no host"),
        ("https://:8443", "no host"),
        ("https://user@gateway.example", "user info"),
        ("https://user:secret@gateway.example", "user info"),
        ("https://@gateway.example", "user info"),
        ("https://api.phygitals.com@evil.example", "user info"),
        ("http://127.0.0.1@evil.example", "user info"),
        ("https://gateway.example?x=1", "query"),
        ("https://gateway.example/?", "query"),
        ("https://gateway.example#x", "fragment"),
        ("https://gateway.example/a#", "fragment"),
        ("https://gateway.example/a\\b", "backslashes"),
        ("https://gateway.example\\.evil.example", "backslashes"),
        ("https://gateway.example/.", "'.'"),
        ("https://gateway.example/..", "'..'"),
        ("https://gateway.example/_/..", "'..'"),
        ("https://gateway.example/../_", "'..'"),
        ("https://gateway.example/a/./b", "'.'"),
        ("https://gateway.example/%2e", "'.'"),
        ("https://gateway.example/%2e%2e", "'..'"),
        ("https://gateway.example/%2E%2e/x", "'..'"),
        ("https://gateway.example/.%2E", "'..'"),
        ("https://gateway.example/a//b", "empty"),
        ("https://gateway.example//a", "empty"),
        ("https://gateway.example:0", "host and port"),
        ("https://gateway.example:65536", "host and port"),
        ("https://gateway.example:-1", "host and port"),
        ("https://gateway.example:port", "host and port"),
        ("https://gateway.example:443x", "host and port"),
        ("https://[::1", "host and port"),
        ("https://::1]", "host and port"),
        ("https://[::1].evil.example", "host and port"),
        ("https://evil.example[::1]", "host and port"),
        ("https://[::1]evil.example:80", "host and port"),
    ],
)
def test_a_malformed_base_url_is_refused(base_url: Any, reason: str) -> None:
    """The refusal names the rule; it shows neither the URL, which may hold a secret, nor the key."""
    error = _refusal(base_url=base_url)
    assert reason in str(error)
    assert PRODUCTION_KEY not in _shown(error)
    assert "secret" not in _shown(error)


@pytest.mark.parametrize(
    "host",
    [
        "gateway.example",
        "api.phygitals.com",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "evil.com.localhost.evil.com",
        "mylocalhost",
        "localhost.",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",  # noqa: S104 - nothing listens here.
        "128.0.0.1",
        "10.0.0.1",
        "192.168.0.1",
        "[::]",
        "[::2]",
        "[fe80::1]",
        "[::1].evil.com",
        "[::1]evil.com",
        "evil.com[::1]",
    ],
)
@pytest.mark.parametrize("port", ["", ":8080"])
def test_plain_http_to_another_machine_is_refused(host: str, port: str) -> None:
    """Only the loopback takes plain http, however much another host looks like it."""
    _refusal(api_key=SANDBOX_KEY, base_url=f"http://{host}{port}")


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.0.0.1:8765/_", "http://127.0.0.1:8765/_"),
        ("http://127.255.255.254:1", "http://127.255.255.254:1"),
        ("http://localhost:65535/", "http://localhost:65535"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://[::1]:8765", "http://[::1]:8765"),
        ("http://[::1]/_/", "http://[::1]/_"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://gateway.example", "https://gateway.example"),
        ("https://gateway.example/", "https://gateway.example"),
        ("https://gateway.example/a/b/", "https://gateway.example/a/b"),
        ("https://gateway.example/%2f", "https://gateway.example/%2f"),
        ("https://gateway.example/.a/..b/c..", "https://gateway.example/.a/..b/c.."),
        ("https://gateway.example/_", "https://gateway.example/_"),
        ("https://api.phygitals.com.evil.example", "https://api.phygitals.com.evil.example"),
        ("https://api.phygitals.com:8443", "https://api.phygitals.com:8443"),
    ],
)
@pytest.mark.parametrize(
    ("path_prefix", "suffix"),
    [("/api/v1", "/api/v1"), ("/api/v1/", "/api/v1"), ("", ""), ("/", ""), ("/api/partner/v1", "/api/partner/v1")],
)
def test_a_given_base_url_is_used_as_it_stands(base_url: str, root: str, path_prefix: str, suffix: str) -> None:
    """The prefix is appended, never resolved; a trailing slash makes no difference."""
    assert _resolve(base_url=base_url, path_prefix=path_prefix).root == root + suffix


@pytest.mark.parametrize("key", [SANDBOX_KEY, PRODUCTION_KEY])
def test_a_gateway_of_ones_own_takes_either_key(key: str) -> None:
    """Only the vendor's own host tells the environments apart by path."""
    assert _resolve(api_key=key, base_url=f"{ELSEWHERE}/_").root == f"{ELSEWHERE}/_/api/v1"
    assert _resolve(api_key=key, base_url=ELSEWHERE).root == f"{ELSEWHERE}/api/v1"


def test_the_vendors_urls_fit_their_own_keys() -> None:
    """Naming the vendor's URLs changes nothing but what the default would be."""
    assert _resolve(api_key=SANDBOX_KEY, base_url=f"{VENDOR}/_") == _resolve(api_key=SANDBOX_KEY)
    assert _resolve(api_key=PRODUCTION_KEY, base_url=VENDOR) == _resolve(api_key=PRODUCTION_KEY)


@pytest.mark.parametrize(
    "path_prefix",
    [
        None,
        5,
        "api/v1",
        "//api",
        "/api//v1",
        "/api/v1//",
        "/api v1",
        "/api?x",
        "/api#x",
        "/api\\v1",
        "/api/v1\n",
        "/äpi",
        "/{user_id}",
        "/.",
        "/..",
        "/api/../v1",
        "/api/%2e%2E/v1",
        "/api/.%2e",
    ],
)
def test_a_malformed_path_prefix_is_refused(path_prefix: Any) -> None:
    """A prefix that a server or proxy could read otherwise is refused."""
    assert "path prefix" in str(_refusal(path_prefix=path_prefix))


# The environment variables


def test_variables_stand_in_for_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three variables is read when its argument is left out."""
    monkeypatch.setenv("PHYGITALS_API_KEY", SANDBOX_KEY)
    monkeypatch.setenv("PHYGITALS_ENVIRONMENT", "sandbox")
    monkeypatch.setenv("PHYGITALS_BASE_URL", f"{ELSEWHERE}/_/")
    settings = _resolve(api_key=None)
    assert settings == Settings(ApiKey(SANDBOX_KEY), Environment.SANDBOX, f"{ELSEWHERE}/_/api/v1")


@pytest.mark.parametrize(
    ("variable", "value", "argument"),
    [
        ("PHYGITALS_API_KEY", "phy_other", {}),
        ("PHYGITALS_ENVIRONMENT", "sandbox", {"environment": "production"}),
        ("PHYGITALS_ENVIRONMENT", "nonsense", {"environment": Environment.PRODUCTION}),
        ("PHYGITALS_BASE_URL", "http://evil.example", {"base_url": VENDOR}),
    ],
)
def test_arguments_win_over_variables(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, argument: dict[str, Any]
) -> None:
    """A variable that would be refused is not even looked at where an argument is given."""
    monkeypatch.setenv(variable, value)
    assert _resolve(**argument) == _resolve(base_url=VENDOR, environment="production")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PHYGITALS_API_KEY", "phy_other"),
        ("PHYGITALS_ENVIRONMENT", "nonsense"),
        ("PHYGITALS_ENVIRONMENT", "production"),
        ("PHYGITALS_BASE_URL", "http://evil.example"),
        ("PHYGITALS_BASE_URL", VENDOR),
    ],
)
def test_variables_are_checked_like_arguments(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """What an argument may not say, a variable may not say either."""
    monkeypatch.setenv("PHYGITALS_API_KEY", SANDBOX_KEY)
    monkeypatch.setenv(variable, value)
    error = _refusal(api_key=None)
    assert SANDBOX_KEY not in _shown(error)


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable set to nothing, as shells and CI do, is no variable."""
    for variable in ("PHYGITALS_API_KEY", "PHYGITALS_ENVIRONMENT", "PHYGITALS_BASE_URL"):
        monkeypatch.setenv(variable, "")
    assert _resolve(api_key=SANDBOX_KEY).root == f"{VENDOR}/_/api/v1"
    assert str(_refusal(api_key=None)) == "no API key: pass api_key or set PHYGITALS_API_KEY"


def test_an_explicit_empty_argument_is_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty key or URL that is passed on purpose is an error and not a reason to look elsewhere."""
    monkeypatch.setenv("PHYGITALS_API_KEY", PRODUCTION_KEY)
    monkeypatch.setenv("PHYGITALS_BASE_URL", ELSEWHERE)
    assert str(_refusal(api_key="")) == "the API key is empty"
    _refusal(base_url="")


# Secrecy


def test_settings_show_no_key_and_do_not_pickle() -> None:
    """No dump of settings or of headers can show the key, and none can lose it in silence."""
    settings = _resolve()
    headers = {"X-API-Key": settings.api_key}
    assert PRODUCTION_KEY not in f"{settings!r} {settings!s} {headers}"
    assert "***" in repr(settings)
    with pytest.raises(TypeError, match="not picklable"):
        pickle.dumps(settings)
    assert PRODUCTION_KEY.encode() not in pickle.dumps(headers)
    assert pickle.loads(pickle.dumps(headers)) == {"X-API-Key": "***"}  # noqa: S301 - our own bytes.


def test_an_api_key_is_still_the_text_that_is_sent() -> None:
    """Hiding is for repr only: the wire needs the text itself."""
    key = _resolve().api_key
    assert str(key) == key == PRODUCTION_KEY
    assert key.encode() == PRODUCTION_KEY.encode()


def test_the_client_refuses_a_mix_up_before_anything_is_sent() -> None:
    """The constructor raises, so there is no client that could send."""
    transport = MemoryTransport(_unreachable)
    with pytest.raises(ConfigurationError):
        PhygitalsClient(transport, api_key=SANDBOX_KEY, environment="production")
    assert transport.sent == []


def _unreachable(request: Request) -> Response:
    raise AssertionError(request)


# Numbers


@pytest.mark.parametrize("value", [1, 0.001, 1e9, 3600])
def test_positive_finite_seconds_are_taken(value: float) -> None:
    """Ints and floats alike are returned as they are."""
    assert check_seconds("deadline", value) is value


@pytest.mark.parametrize("value", [1, 2, 10**30])
def test_whole_counts_are_taken(value: int) -> None:
    """Any int from 1 up is returned as it is."""
    assert check_count("limit", value) is value


@pytest.mark.parametrize(
    ("check", "value"),
    [
        *((check_seconds, value) for value in (0, 0.0, -1, -0.5, math.inf, -math.inf, math.nan, True, False)),
        *((check_seconds, value) for value in ("1", None, Decimal(1), 1j)),
        pytest.param(check_seconds, 10**400, id="check_seconds-no-float-holds-it"),
        *((check_count, value) for value in (0, -1, True, False, 1.0, 1.5, math.nan, "1", None, Decimal(1))),
    ],
)
def test_other_numbers_are_refused_by_name(check: Callable[[str, Any], Any], value: Any) -> None:
    """The refusal names the argument."""
    with pytest.raises(ConfigurationError, match=r"^this must be a "):
        check("this", value)

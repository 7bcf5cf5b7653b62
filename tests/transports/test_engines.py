"""Engines by name, and those that are not installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phygitals_async import ConfigurationError, PhygitalsClient, Transport
from phygitals_transports import AiohttpTransport, Httpx2Transport, ReqwestTransport, extras
from phygitals_transports.engines import ENGINES


@pytest.mark.parametrize(
    ("name", "kind"), [("aiohttp", AiohttpTransport), ("httpx2", Httpx2Transport), ("reqwest", ReqwestTransport)]
)
def test_a_client_takes_the_name_of_an_engine(name: str, kind: type[Transport]) -> None:
    """And makes its transport, with the usual settings."""
    assert name in ENGINES
    api = PhygitalsClient(name, api_key="sandbox-test")  # type: ignore[arg-type] # the names are literals.
    assert type(api._engine.transport) is kind


@pytest.mark.parametrize("name", ["", "curl", "AIOHTTP"])
def test_another_name_is_refused(name: str) -> None:
    """What was given may be the key, and is not shown."""
    with pytest.raises(ConfigurationError, match="not str, or one of aiohttp, httpx2, reqwest; the API key") as caught:
        PhygitalsClient(name, api_key="sandbox-test")  # type: ignore[arg-type] # it is no name.
    assert "curl" not in str(caught.value)


@pytest.mark.parametrize(("make", "extra"), [(Httpx2Transport, "httpx2"), (ReqwestTransport, "reqwest")])
def test_an_engine_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Transport], extra: str
) -> None:
    """The error names the command that installs it."""
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=rf"not found: pip install 'phygitals-async\[{extra}\]'"):
        make()


@pytest.mark.parametrize("make", [Httpx2Transport, ReqwestTransport])
@pytest.mark.parametrize("settings", [{"max_body": 0}, {"connect_timeout": -1}, {"connect_timeout": float("inf")}])
def test_settings_that_make_no_sense_are_refused(make: Callable[..., Transport], settings: dict[str, float]) -> None:
    """And named."""
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        make(**settings)

"""Fixtures of the tests of the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from click import testing

from cli_support import Server, served

_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_PLACES = ("PHYGITALS_STORE", "PHYGITALS_JOURNAL")


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve a sandbox over loopback HTTP."""
    with served() as server:
        yield server


@pytest.fixture(autouse=True)
def _the_usual_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever started the tests may ignore Ctrl-C, live behind a proxy, or have a store."""
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in _PLACES:
        monkeypatch.delenv(name, raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    end = signal.getsignal(signal.SIGTERM)
    yield
    # What a refresh leaves behind that was interrupted, for the process is about to end.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is end
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a command prints go to a terminal, 120 columns wide and in black and white."""
    monkeypatch.setattr(testing._NamedTextIOWrapper, "isatty", lambda _: True, raising=False)
    for name, value in {"COLUMNS": "120", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

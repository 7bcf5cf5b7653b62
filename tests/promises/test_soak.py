"""`make soak` for as long as it takes until everything that can happen has happened."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import pytest

from soak import Soak, main


def test_every_kind_of_bad_weather() -> None:
    """Every call is accounted for, nothing happens twice, nothing is left."""
    soak = Soak(seconds=300.0, seed=2, until_seen=True)
    seen = asyncio.run(soak.run())
    assert soak.unseen(Counter(seen["faults"])) == []


def test_its_command_line_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what was seen."""
    monkeypatch.setattr(sys, "argv", ["soak.py", "--seconds", "0.5", "--seed", "1"])
    main()
    assert "nothing happened twice" in capsys.readouterr().out

"""A few seconds of `make soak`."""

from __future__ import annotations

import asyncio
import sys

import pytest

from soak import Soak, main


def test_ten_seconds_of_bad_weather() -> None:
    """Every call is accounted for, nothing happens twice, nothing is left."""
    seen = asyncio.run(Soak(seconds=10.0, seed=2).run())
    assert seen["requests"] > 500
    assert len(seen["faults"]) > 8
    for goods in ("purchases", "sellbacks", "shipments"):
        assert seen[goods]["done"] > 5
    assert sum(seen[goods]["unknown"] for goods in ("purchases", "sellbacks", "shipments")) > 0


def test_its_command_line_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what was seen."""
    monkeypatch.setattr(sys, "argv", ["soak.py", "--seconds", "0.5", "--seed", "1"])
    main()
    assert "nothing happened twice" in capsys.readouterr().out

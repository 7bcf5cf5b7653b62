"""How far a bulk run has come."""

from __future__ import annotations

import io
import sys

import pytest

from phygitals_async.cli._progress import Meter, _time


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return its seconds."""
        return self.now


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines since the last look."""
    return [line.removeprefix("phygitals: ") for line in capsys.readouterr().err.splitlines()]


def test_lines_with_total_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    """One after a second, one each ten seconds from then on, and one at the end."""
    clock = Clock()
    with Meter(10_000, clock=clock) as meter:
        clock.now = 100.9
        meter.show(99, 0)
        assert told(capsys) == []
        clock.now = 101.0
        meter.show(100, 0)
        assert told(capsys) == ["100 of 10,000, 100 per second, 2 min left"]
        clock.now = 110.9
        meter.show(1_000, 0)
        assert told(capsys) == []
        clock.now = 111.0
        meter.show(2_000, 5)
        assert told(capsys) == ["2,000 of 10,000, 5 failed, 182 per second, 44 s left"]
        clock.now = 120.9
        meter.show(3_000, 5)
        assert told(capsys) == []
        clock.now = 121.0
        meter.show(3_000, 0, waiting=True)
        assert told(capsys) == ["3,000 of 10,000, 143 per second, 49 s left, waiting for the API"]
    assert told(capsys) == ["3,000 of 10,000 in 21 s, 143 per second"]


def test_nobody_knows_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    """Then there is no time left to tell; nor where nothing is done yet."""
    clock = Clock()
    with Meter(None, clock=clock) as meter:
        clock.now += 10
        meter.show(50, 0)
    assert told(capsys) == ["50, 5 per second", "50 in 10 s, 5 per second"]
    with Meter(7, clock=clock) as meter:
        clock.now += 10
        meter.show(0, 0)
    assert told(capsys) == ["0 of 7, 0 per second", "0 of 7 in 10 s, 0 per second"]
    with Meter(7, clock=clock):
        pass
    assert told(capsys) == ["0 of 7 in 0 s, 0 per second"]


def test_what_was_done_before_is_not_counted_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is gone on with skips thousands in no time, and needs as long for the rest as ever."""
    clock = Clock()
    with Meter(1_000, clock=clock) as meter:
        clock.now += 10
        meter.show(900, 0, skipped=900)
        clock.now += 10
        meter.show(920, 0, skipped=900)
    assert told(capsys) == [
        "900 of 1,000, 0 per second",
        "920 of 1,000, 1 per second, 1 min left",
        "920 of 1,000 in 20 s, 1 per second",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "1 h 0 min"), (50400, "14 h 0 min")]
)
def test_times(seconds: float, text: str) -> None:
    """Seconds, minutes, or hours."""
    assert _time(seconds) == text


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes when the run is over, and the last line stays. What is printed to a file goes there."""
    for name, value in {"COLUMNS": "100", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    screen, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", file)
    clock = Clock()
    with Meter(100, clock=clock) as meter:
        print("to the file")
        clock.now += 0.05
        meter.show(1, 0)
        clock.now += 0.1
        meter.show(50, 1)
        assert meter._bar is not None
        meter._bar.refresh()
    assert file.getvalue() == "to the file\n"
    assert "50 of 100, 1 failed, 333 per second, 0 s left" in screen.getvalue()
    assert screen.getvalue().splitlines()[-1].endswith("phygitals: 50 of 100 in 0 s, 1 failed, 333 per second")

"""What signals do to work that keeps what it has; `test_refresh.py` has the real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import NoReturn

import pytest

from phygitals_async.cli._endings import Exit
from phygitals_async.cli._signals import run_until_interrupted


def test_without_a_signal() -> None:
    """The result comes out, and the handlers are those of before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_until_interrupted(asyncio.sleep(0, 5), "farewell") == 5
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_cancels_and_the_others_wait_for_the_end(number: int) -> None:
    """What is done at the end is done, and nothing can disturb it."""
    done = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(60)
        finally:
            signal.raise_signal(number)
            await asyncio.sleep(0)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted(work(), "farewell")
    assert done == [True]
    signal.raise_signal(number)


def test_the_third_ends_the_process_or_the_second_that_nobody_hears(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is doing: nobody has to kill it."""

    def leave(status: int) -> NoReturn:
        raise SystemExit(status)

    async def heard() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    async def unheard() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "_exit", leave)
    for work in (heard, unheard):
        with pytest.raises(SystemExit) as ended:
            run_until_interrupted(work(), "phygitals: farewell")
        assert ended.value.code == Exit.INTERRUPTED
        assert capfd.readouterr().err == "\nphygitals: farewell\n"

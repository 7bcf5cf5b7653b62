"""What is tied to one event loop says so, and starts afresh in the next."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

import pytest
import trio

from phygitals_async import ConfigurationError
from phygitals_async._loop.affinity import Affinity

Run = Callable[[Callable[[], bool]], bool]


def in_asyncio(call: Callable[[], bool]) -> bool:
    """Call a function inside a fresh asyncio loop."""

    async def main() -> bool:
        return call()

    return asyncio.run(main())


def in_trio(call: Callable[[], bool]) -> bool:
    """Call a function inside a fresh trio run."""

    async def main() -> bool:
        return call()

    return trio.run(main)


RUNS = [pytest.param(in_asyncio, id="asyncio"), pytest.param(in_trio, id="trio")]


@pytest.mark.parametrize("run", RUNS)
def test_the_first_use_starts_afresh_and_the_next_do_not(run: Run) -> None:
    """Within one loop it is the same thing throughout."""
    affinity = Affinity("it")
    assert run(lambda: [affinity.must_start_afresh() for _ in range(3)] == [True, False, False])


@pytest.mark.parametrize("second", RUNS)
@pytest.mark.parametrize("first", RUNS)
def test_a_loop_that_has_ended_is_followed_by_the_next(first: Run, second: Run) -> None:
    """Of either kind, any number of times."""
    affinity = Affinity("it")
    for run in (first, second, first, second):
        assert run(affinity.must_start_afresh)
        assert not affinity_holds(affinity)


def affinity_holds(affinity: Affinity) -> bool:
    """Whether its loop is still there."""
    with pytest.raises(RuntimeError):
        affinity.must_start_afresh()
    return False


@pytest.mark.parametrize("inner", RUNS)
@pytest.mark.parametrize("outer", RUNS)
def test_a_second_loop_beside_a_living_one_is_refused(outer: Run, inner: Run) -> None:
    """Another thread's loop, asyncio's or trio's, gets a clear error; the first goes on."""
    affinity = Affinity("this thing")
    caught: list[ConfigurationError] = []

    def elsewhere() -> None:
        try:
            inner(affinity.must_start_afresh)
        except ConfigurationError as error:
            caught.append(error)

    def main() -> bool:
        assert affinity.must_start_afresh()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return not affinity.must_start_afresh()

    assert outer(main)
    (error,) = caught
    assert "this thing is in use by another event loop" in str(error)


def test_a_loop_that_stopped_and_was_not_closed_is_followed_by_the_next() -> None:
    """With a warning: it may run again, and then it is the one that starts afresh. In between it is one loop."""
    affinity = Affinity("it")
    loop = asyncio.new_event_loop()

    async def use() -> bool:
        return affinity.must_start_afresh()

    assert loop.run_until_complete(use())
    assert not loop.run_until_complete(use())
    with pytest.warns(RuntimeWarning, match="it was left by an event loop that stopped and was never closed"):
        assert asyncio.run(use())
    assert loop.run_until_complete(use())
    assert not loop.run_until_complete(use())
    loop.close()
    assert asyncio.run(use())


def test_a_forked_process_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same loop object in another process is not the same loop."""
    affinity = Affinity("it")

    def main() -> bool:
        assert affinity.must_start_afresh()
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        assert affinity.must_start_afresh()
        return not affinity.must_start_afresh()

    assert in_asyncio(main)

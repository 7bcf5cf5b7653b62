"""`kill -9` at any moment: the run goes on, loses nothing, and tells nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

import refresh_kills


def test_a_killed_run_goes_on_loses_nothing_and_tells_nothing_twice(tmp_path: Path) -> None:
    """Six times, over two days, against what the market really was."""
    users = 600
    killed = refresh_kills.refresh_and_kill(str(tmp_path / "store.db"), users, 6, seed=1, commit=25)
    assert (killed.lost, killed.twice) == ([], [])
    assert killed.kills == 6
    _asked_little_again(killed, users)


def test_a_killed_run_into_postgres(database: str) -> None:
    """The same, with a server that the killed process leaves behind."""
    users = 400
    killed = refresh_kills.refresh_and_kill(database, users, 4, seed=2, commit=25)
    assert (killed.lost, killed.twice) == ([], [])
    assert killed.kills == 4
    _asked_little_again(killed, users)


def test_a_killed_run_on_dask(tmp_path: Path) -> None:
    """The same with two workers, which are killed as well as the process that hands the users out to them."""
    _kill_on_dask(str(tmp_path / "store.db"))


def test_a_killed_run_on_dask_into_postgres(database: str) -> None:
    """The same, with a server that both workers leave behind."""
    _kill_on_dask(database)


def _kill_on_dask(store: str) -> None:
    pytest.importorskip("distributed", reason="not run: distributed is not installed")
    users = 600
    killed = refresh_kills.refresh_and_kill(store, users, 4, seed=3, commit=25, part=100)
    assert (killed.lost, killed.twice) == ([], [])
    assert killed.kills == 4
    # For each kill, what the worker had in flight, or both of them had.
    assert 2 * users <= killed.asked <= 2 * users + killed.kills * 2 * (25 + 3 * 64)


def _asked_little_again(killed: refresh_kills.Killed, users: int) -> None:
    # Asked again was only what had not been committed: for each kill, a batch and what was in flight.
    assert 2 * users <= killed.asked <= 2 * users + killed.kills * (25 + 3 * 64)

"""`runs`, and what `changes` says of a run that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_support import Server, lines
from phygitals_async import Response
from phygitals_async.cli._endings import Exit

RUNS = ["first", "a[/b]", "third", "fourth", "fifth", "sixth"]


@pytest.fixture
def store(server: Server, tmp_path: Path) -> str:
    """Refresh some times, the last time without an end, and return where the store is."""
    server.item("ann")
    (tmp_path / "ids.txt").write_text("ann\nbob\n")
    place = str(tmp_path / "users.db")
    for name in RUNS:
        if name == RUNS[-1]:
            server.replaced["/bob"] = lambda _: Response(401, {}, b"")
        server.run("refresh", "--ids", str(tmp_path / "ids.txt"), "--store", place, "--run", name, "--limit", "1")
    return place


def test_the_runs_of_a_store(server: Server, store: str) -> None:
    """The last one first, with what came of each."""
    result = server.run("runs", "--store", store)
    assert (result.exit_code, result.stderr) == (Exit.DONE, "")
    head, *rows = lines(result.stdout)
    assert head == ["run", "started, UTC", "finished, UTC", "users", "failed", "changes"]
    assert [row[0] for row in rows] == RUNS[::-1]
    assert rows[0][2] == "not yet"
    assert rows[-1][3:] == ["2", "0", "2"]
    assert rows[-2][3:] == ["2", "0", "0"]
    documents = [json.loads(line) for line in server.run("runs", "--store", store, "--json").stdout.splitlines()]
    assert [document["name"] for document in documents] == RUNS[::-1]
    assert (documents[0]["finished_at"], documents[-1]["known"], documents[-1]["unknown"]) == (None, 1, 1)


def test_a_run_that_is_not_there(server: Server, store: str) -> None:
    """The last ones are named, so that the right one can be picked."""
    result = server.run("changes", "--store", store, "--since", "nope")
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert result.stderr.startswith(
        "phygitals: the store has no run named 'nope': the last ones are sixth, fifth, fourth, third, a[/b]; "
        "phygitals runs lists them."
    )


def test_a_store_without_runs(server: Server, tmp_path: Path) -> None:
    """As that of a journal."""
    server.run("sell", server.item().id, "--yes", "--journal", str(tmp_path / "money.db"))
    result = server.run("changes", "--store", str(tmp_path / "money.db"), "--since", "nope")
    assert "the store has no run named 'nope': it has none." in result.stderr

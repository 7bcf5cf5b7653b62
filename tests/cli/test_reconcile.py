"""`--journal`, and `reconcile`: what became of calls whose outcome is open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cli_support import Server, lines, pressing
from phygitals_async import Request, Response, StoreFull
from phygitals_async.cli._endings import Exit
from phygitals_async.refresh import SqliteStore


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Return where the journal is going to be."""
    return str(tmp_path / "money.db")


def lost(server: Server) -> Any:
    """Let the sandbox act, and lose its answer."""

    def answer(request: Request) -> Response:
        server.sandbox(request)
        return Response(502, {}, b"")

    return answer


def found(server: Server, journal: str, *more: str, code: Exit = Exit.DONE) -> list[Any]:
    """Return the findings."""
    result = server.run("reconcile", "--journal", journal, "--json", *more)
    assert result.exit_code == code
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_what_ended_well_is_not_open(server: Server, journal: str) -> None:
    """Each kind of call is written down, and done."""
    item, shipped = server.item(), server.item()
    home = ("--name", "J", "--line1", "1", "--city", "A", "--country", "US")
    for command in (
        ["buy", "pokemon-vault", "ann"],
        ["sell", item.id, "--user", "ann"],
        ["ship", shipped.id, *home],
    ):
        assert server.run(*command, "--yes", "--journal", journal).exit_code == Exit.DONE
    assert found(server, journal) == []
    result = server.run("reconcile", "--journal", journal)
    assert (result.stdout, result.stderr) == ("", "phygitals: 0 calls were open, 0 closed now\n")


@pytest.mark.parametrize("is_typed", [True, False])
def test_a_lost_sale_is_looked_up(server: Server, journal: str, is_typed: bool) -> None:
    """The line that tells of it names the command, which says that it was sold, and closes it when asked to."""
    item = server.item()
    server.replaced["/buyback"] = lost(server)
    typed = ["--journal", journal] if is_typed else []
    result = server.run(
        "sell", item.id, "--user", "ann", "--yes", *typed, PHYGITALS_JOURNAL=None if is_typed else journal
    )
    assert result.exit_code == Exit.FAILED
    named = f" --journal {journal}" if is_typed else ""
    assert result.stderr.splitlines()[-1].endswith(f" Or let it be looked up: phygitals reconcile{named}")
    (finding,) = found(server, journal)
    assert finding["arguments"] == {"item_id": item.id, "owner": "ann"}
    assert (finding["verdict"], finding["settled"]) == ("happened", False)
    shown = server.run("reconcile", "--journal", journal, "--settle")
    assert shown.exit_code == Exit.DONE
    row = lines(shown.stdout)[1]
    assert row[0] == finding["id"]
    assert row[2:] == [
        "sell_back",
        f"item_id {item.id}, owner ann",
        "happened",
        "the owner's inventory does not show it any more",
        "closed",
    ]
    assert "1 call was open, 1 closed now" in shown.stderr
    assert found(server, journal) == []


def test_a_lost_sale_that_did_not_happen(server: Server, journal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The item is still there when the sale cannot be under way any more."""
    item = server.item()
    server.replaced["/buyback"] = lambda _: Response(502, {}, b"")
    server.run("sell", item.id, "--user", "ann", "--yes", "--journal", journal)
    (finding,) = found(server, journal, "--settle", code=Exit.FAILED)
    assert (finding["verdict"], finding["settled"]) == ("undecided", False)
    monkeypatch.setattr("phygitals_async.journal._LAG", timedelta())
    (finding,) = found(server, journal, "--settle")
    assert (finding["verdict"], finding["settled"]) == ("did not happen", True)
    assert [one["id"] for one in finding["items"]] == [item.id]
    assert found(server, journal) == []


@pytest.mark.parametrize("option", ["--happened", "--did-not-happen"])
def test_what_stays_undecided_is_closed_by_who_knows(server: Server, journal: str, option: str) -> None:
    """Status 1 until then."""
    item = server.item()
    server.replaced["/buyback"] = lost(server)
    server.run("sell", item.id, "--yes", "--journal", journal)
    (finding,) = found(server, journal, "--settle", code=Exit.FAILED)
    assert (finding["verdict"], finding["settled"]) == ("undecided", False)
    (closed,) = found(server, journal, option, finding["id"])
    assert closed["settled"] is True
    assert found(server, journal) == []


def test_ids_that_are_mistaken(server: Server, journal: str) -> None:
    """Nothing is closed then."""
    item = server.item()
    server.replaced["/buyback"] = lost(server)
    server.run("sell", item.id, "--user", "ann", "--yes", "--journal", journal)
    mistaken = server.run("reconcile", "--journal", journal, "--settle", "--happened", "no-such-id")
    assert mistaken.exit_code == Exit.USAGE
    assert "no open call has the id 'no-such-id'; nothing was closed." in mistaken.stderr
    assert len(found(server, journal)) == 1
    both = server.run("reconcile", "--journal", journal, "--happened", "x", "--did-not-happen", "x")
    assert "x cannot have happened and not have happened." in both.stderr
    none = server.run("reconcile", "--journal", f"{journal}.none")
    assert none.exit_code == Exit.USAGE


def test_going_on_with_sales_keeps_the_journal(server: Server, journal: str) -> None:
    """The command to go on with names it."""
    first, second = server.item(), server.item()

    server.replaced["/buyback"] = pressing(server, 1)
    result = server.run("sell", first.id, second.id, "--user", "ann", "--yes", "--journal", journal)
    assert result.exit_code == Exit.INTERRUPTED
    assert f"phygitals sell --user ann --journal {journal} " in result.stderr.splitlines()[-1]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the disk be full from the write on whose number is put in the list."""
    write, writes, limit = SqliteStore.write_entry, [], [0]

    async def fail(self: SqliteStore, entry: Any) -> None:
        writes.append(entry)
        if len(writes) > limit[0]:
            msg = "the disk is full"
            raise StoreFull(msg)
        await write(self, entry)

    monkeypatch.setattr(SqliteStore, "write_entry", fail)
    yield limit
    assert writes


def test_without_a_place_for_the_intent_nothing_is_sent(server: Server, journal: str, full: list[int]) -> None:
    """It is an error in one line."""
    item = server.item()
    result = server.run("sell", item.id, "--user", "ann", "--yes", "--journal", journal)
    assert result.exit_code == Exit.FAILED
    assert result.stderr.splitlines()[-1] == "phygitals: sell_back: the disk is full"
    assert "POST /vm/buyback" not in server.seen


def test_an_outcome_that_cannot_be_written_is_told(server: Server, journal: str, full: list[int]) -> None:
    """The answer is not lost, and there is no traceback."""
    full[0] = 1
    item = server.item()
    result = server.run("sell", item.id, "--user", "ann", "--yes", "--journal", journal)
    assert result.exit_code == Exit.DONE
    assert lines(result.stdout) == [[item.id, "sold for USD 8.50"]]
    assert result.stderr.splitlines()[-1] == (
        "phygitals: sell_back: the outcome could not be written to the journal: done"
    )

"""`refresh` and `changes`, against a store in a file."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sqlite3
import subprocess
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli_support import Server, lines, press_ctrl_c
from phygitals_async import Request, Response, StoreFull
from phygitals_async.cli._endings import Exit
from phygitals_async.refresh import SqliteStore


@pytest.fixture
def ids(server: Server, tmp_path: Path) -> str:
    """Give two users a card each, and name them, and a third, in a file."""
    server.item("ann")
    server.item("bob", name="Pikachu", price="1")
    (tmp_path / "ids.txt").write_text("ann\nbob\nnobody\n")
    return str(tmp_path / "ids.txt")


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return where the store is going to be."""
    return str(tmp_path / "users.db")


def told(server: Server, store: str, *more: str) -> list[Any]:
    """Return the changes."""
    result = server.run("changes", "--store", store, "--json", *more)
    assert result.exit_code == Exit.DONE
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_first_run(server: Server, ids: str, store: str) -> None:
    """It tells what it found, and how fast."""
    result = server.run("refresh", "--ids", ids, "--store", store, "--run", "first", "--rate", "1000")
    assert result.exit_code == Exit.DONE
    head, *facts = lines(result.stdout)
    assert head == ["run", "first"]
    assert dict(facts) == {
        "users known": "2",
        "users unknown": "1",
        "users with changes": "3",
        "changes": "3",
        "asked just now": "3",
        "asked before": "0",
        "failed": "0",
    }
    assert "phygitals: 3 of 3 in " in result.stderr
    assert sorted((one["user_id"], one["kind"]) for one in told(server, store)) == [
        ("ann", "new user"),
        ("bob", "new user"),
        ("nobody", "unknown user"),
    ]


@pytest.mark.parametrize("command", ["refresh", "inventory"])
def test_ids_from_a_pipe(server: Server, store: str, command: str) -> None:
    """As from `--ids <(...)`: it is read once, and how many there are is not known."""
    for user_id in ("ann", "bob"):
        server.item(user_id)
    reader, writer = os.pipe()
    os.write(writer, b"ann\nbob \r\n")
    os.close(writer)
    result = server.run(command, "--ids", f"/dev/fd/{reader}", *(["--store", store] if command == "refresh" else []))
    os.close(reader)
    assert result.exit_code == Exit.DONE
    assert sorted(server.seen) == ["GET /inventory/ann", "GET /inventory/bob"]
    assert "phygitals: 2 in " in result.stderr


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_ids_from_a_file_that_has_none(server: Server, store: str, tmp_path: Path, content: str) -> None:
    """It is a mistake, whichever command reads it, from wherever."""
    (tmp_path / "ids.txt").write_text(content)
    for command in (["refresh", "--store", store], ["inventory"]):
        for file in (str(tmp_path / "ids.txt"), "-"):
            result = server.run(*command, "--ids", file, answers=content)
            assert result.exit_code == Exit.USAGE
            assert "there are no user ids: give one on each line" in result.stderr
    assert server.seen == []


def test_other_ids_do_not_finish_a_run(server: Server, ids: str, store: str, tmp_path: Path) -> None:
    """The run of the first command is left as it is."""
    server.replaced["/bob"] = lambda _: Response(401, {}, b"")
    command = ["refresh", "--ids", ids, "--store", store, "--limit", "1", "--json"]
    assert server.run(*command).exit_code == Exit.KEY_REFUSED
    server.replaced.clear()
    server.seen.clear()
    (tmp_path / "one.txt").write_text("ann\n")
    another = server.run("refresh", "--ids", str(tmp_path / "one.txt"), "--store", store, "--json")
    document = json.loads(another.stdout)
    assert (document["number"], document["asked"], server.seen) == (2, 1, ["GET /inventory/ann"])
    first, told, *_ = another.stderr.splitlines()[0].removeprefix("phygitals: the run ").partition(" was begun with ")
    assert first.endswith("-1")
    assert another.stderr.splitlines()[0].endswith(
        f"{told}other users, and is left unfinished; this is a new one, {document['name']}"
    )


def test_resuming_where_there_is_nothing_to_resume(server: Server, ids: str, store: str) -> None:
    """It begins a new run, as it does without the option, and says so."""
    command = ["refresh", "--ids", ids, "--store", store]
    for more, says in (([], False), (["--resume"], True), (["--new"], False), (["--run", "a", "--resume"], False)):
        result = server.run(*command, *more)
        assert result.exit_code == Exit.DONE
        assert ("there is no unfinished run to go on with; this is a new one, " in result.stderr) == says


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_run_that_cannot_be_named_so(server: Server, ids: str, store: str, name: str) -> None:
    """It could not be found again."""
    result = server.run("refresh", "--ids", ids, "--store", store, "--run", name)
    assert result.exit_code == Exit.USAGE
    assert "the name of a run must be a text of at least one character" in result.stderr
    assert server.seen == []


@pytest.mark.parametrize(
    "address", ["sqlite:///x.db", "mysql://me:secret@localhost/db", "postgresql://u:ge/secret@h/d"]
)
def test_an_address_of_no_store(server: Server, ids: str, address: str) -> None:
    """It is told in one line, without a password."""
    for command in (["refresh", "--ids", ids, "--store", address], ["changes", "--store", address]):
        result = server.run(*command)
        assert result.exit_code == Exit.USAGE
        (line,) = result.stderr.splitlines()
        assert "postgresql://" in line
        assert "secret" not in line


def test_what_changed(server: Server, ids: str, store: str) -> None:
    """A card that came, one that went, and prices, each with before and after."""
    server.run("refresh", "--ids", ids, "--store", store, "--run", "first")
    server.sandbox.options.price_factor = Decimal(2)
    server.item("bob", name="Charizard", price="3")
    result = server.run("refresh", "--store", store, "--json")
    assert result.exit_code == Exit.DONE
    assert "phygitals: 3 of 3 in " in result.stderr
    document = json.loads(result.stdout)
    assert (document["number"], document["asked"], document["repriced"]) == (2, 3, 1)
    assert document["stopped_by"] is None
    found = {(one["user_id"], one["kind"]): one for one in told(server, store, "--since", "first")}
    assert set(found) == {("ann", "repriced"), ("bob", "repriced"), ("bob", "bought")}
    assert found["ann", "repriced"]["before"]["buyback_price"] == 8.5
    assert found["ann", "repriced"]["after"]["buyback_price"] == 17
    shown = server.run("changes", "--store", store, "--since", "first")
    rows = {(row[2], row[3]): row[4:] for row in lines(shown.stdout)[1:]}
    assert rows["ann", "repriced"] == ["Juan Soto RC Auto /25", "8.50 > 17.00"]
    assert rows["bob", "bought"] == ["Charizard", "6.00"]
    assert lines(shown.stdout)[0] == ["at, UTC", "run", "user", "what", "card", "USD"]


@pytest.mark.usefixtures("terminal")
def test_changes_on_a_terminal(server: Server, ids: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn, some hundred in a table."""
    monkeypatch.setattr("phygitals_async.cli._output._TABLE", 2)
    server.run("refresh", "--ids", ids, "--store", store)
    shown = server.run("changes", "--store", store).stdout
    assert shown.count("at, UTC") == 2
    assert "new user" in shown
    assert "\t" not in shown


def test_nothing_changed(server: Server, ids: str, store: str) -> None:
    """Then there is nothing to print."""
    server.run("refresh", "--ids", ids, "--store", store, "--run", "first")
    assert told(server, store, "--since", "first") == []
    assert server.run("changes", "--store", store, "--since", "first").stdout == ""


def test_interrupting_and_going_on(server: Server, ids: str, store: str) -> None:
    """Status 4; the command it names goes on, asks nobody twice, and tells nothing twice."""

    async def interrupt(_: Request) -> None:
        press_ctrl_c()
        await asyncio.sleep(60)

    server.replaced["/bob"] = interrupt
    command = ["refresh", "--ids", ids, "--store", store, "--limit", "1"]
    result = server.run(*command, "--new")
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr.splitlines()[-1] == (
        f"phygitals: interrupted; what was committed is kept, go on with: {shlex.join(['phygitals', *command])}"
    )
    server.replaced.clear()
    server.seen.clear()
    again = server.run(*command, "--json")
    assert again.exit_code == Exit.DONE
    assert json.loads(again.stdout)["skipped"] == 1
    assert server.seen == ["GET /inventory/bob", "GET /inventory/nobody"]
    assert len(told(server, store)) == 3


@pytest.mark.parametrize("names", ["SIGINT", "SIGTERM", "SIGINT SIGINT", "SIGTERM SIGINT", "SIGTERM SIGTERM"])
def test_signals_end_a_refresh_that_goes_on(server: Server, ids: str, store: str, names: str) -> None:
    """A real process, real signals, also in quick succession: status 4, and nothing is asked twice."""
    running: list[subprocess.Popen[str]] = []

    async def interrupt(_: Request) -> None:
        for name in names.split():
            running[0].send_signal(getattr(signal, name))
            # Two of a kind that are pending would be one.
            await asyncio.sleep(0.005)
        await asyncio.sleep(60)

    server.replaced["/bob"] = interrupt
    command = ["refresh", "--ids", ids, "--store", store, "--limit", "1", "--json"]
    running.append(server.process(*command))
    out, err = running[0].communicate(timeout=60)
    assert (running[0].returncode, out) == (Exit.INTERRUPTED, ""), err
    assert err.splitlines()[-1] == (
        f"phygitals: interrupted; what was committed is kept, go on with: {shlex.join(['phygitals', *command])}"
    )
    assert "Traceback" not in err
    server.replaced.clear()
    again = server.run(*command)
    # A second one that comes before the first was heard ends the process at once.
    assert json.loads(again.stdout)["skipped"] == 1 or " " in names


def test_a_lookup_that_fails(server: Server, ids: str, store: str) -> None:
    """Status 1; the next run asks again."""
    server.replaced["/bob"] = lambda _: Response(200, {}, b"<html>")
    result = server.run("refresh", "--ids", ids, "--store", store)
    assert result.exit_code == Exit.FAILED
    (of_bob, again) = result.stderr.splitlines()[-2:]
    assert of_bob.startswith("phygitals: bob: get_inventory: not the documented Inventory")
    assert dict(lines(result.stdout))["failed"] == "1"
    server.seen.clear()
    told, _, command = again.partition("; ask for them again with: ")
    assert told == "phygitals: 1 failed"
    once_more = server.run(*shlex.split(command)[1:], "--json")
    assert server.seen == ["GET /inventory/bob"]
    assert once_more.stderr.splitlines()[-1].count("--run") == 1
    document = json.loads(once_more.stdout)
    (failure,) = document["failures"]
    assert (failure["user_id"], failure["error"]["class"]) == ("bob", "DecodeError")


def test_a_key_that_is_refused(server: Server, ids: str, store: str) -> None:
    """Status 3, resumable."""
    result = server.run("refresh", "--ids", ids, "--store", store, PHYGITALS_API_KEY="another")
    assert result.exit_code == Exit.KEY_REFUSED
    line = result.stderr.splitlines()[-1]
    assert "401" in line
    assert "; what was committed is kept, go on with: phygitals refresh" in line
    assert server.run("refresh", "--ids", ids, "--store", store).exit_code == Exit.DONE


def test_an_outage_that_outlasts_the_patience(server: Server, store: str, tmp_path: Path) -> None:
    """Status 4: later it can be gone on with."""
    users = [f"user-{number}" for number in range(40)]
    (tmp_path / "ids.txt").write_text("\n".join(users))
    server.replaced.update(dict.fromkeys(users, lambda _: Response(503, {}, b"")))
    command = ("refresh", "--ids", str(tmp_path / "ids.txt"), "--store", store, "--patience", "0.01", "--limit", "4")
    result = server.run(*command, "--json")
    assert result.exit_code == Exit.INTERRUPTED
    document = json.loads(result.stdout)
    assert document["resumable"] is True
    assert document["stopped_by"]["class"] == "NotAttempted"
    assert "this run's patience with the server has ended: get_inventory: 503" in result.stderr
    assert result.stderr.splitlines()[-1].endswith(f", go on with: {shlex.join(['phygitals', *command, '--json'])}")


def test_a_store_that_nobody_made(server: Server, store: str) -> None:
    """Reading does not make one, and a refresh of nobody is a mistake."""
    result = server.run("changes", "--store", store)
    assert result.exit_code == Exit.USAGE
    assert f"there is no store at {store}" in result.stderr
    assert not Path(store).exists()
    empty = server.run("refresh", "--store", store)
    assert empty.exit_code == Exit.USAGE
    assert "the store knows no users yet: name a file with their ids by --ids." in empty.stderr


def test_a_store_that_cannot_be_opened(server: Server, ids: str, tmp_path: Path) -> None:
    """Before anything is asked, in one line, with the command for when it can be."""
    (tmp_path / "folder.db").mkdir()
    result = server.run("refresh", "--ids", ids, "--store", str(tmp_path / "folder.db"))
    assert result.exit_code == Exit.INTERRUPTED
    (line,) = result.stderr.splitlines()
    assert "unable to open database file; what was committed is kept, go on with: phygitals refresh" in line
    assert server.seen == []
    mistyped = server.run("refresh", "--ids", ids, "--store", str(tmp_path / "nowhere" / "users.db"))
    assert mistyped.exit_code == Exit.USAGE
    assert f"there is no folder {tmp_path / 'nowhere'} for a store." in mistyped.stderr
    assert server.seen == []
    (tmp_path / "text.db").write_text("this is no database at all, but a text of some length\n" * 50)
    corrupt = server.run("changes", "--store", str(tmp_path / "text.db"))
    assert corrupt.exit_code == Exit.FAILED
    assert len(corrupt.stderr.splitlines()) == 1


def test_a_database_that_is_not_there(server: Server, ids: str) -> None:
    """One line, without its password."""
    pytest.importorskip("asyncpg", reason="not run: asyncpg is not installed")
    url = "postgresql://me:secret@127.0.0.1:1/users"
    for command, code in (
        (["refresh", "--ids", ids, "--store", url], Exit.INTERRUPTED),
        (["changes", "--store", url], Exit.FAILED),
    ):
        result = server.run(*command)
        assert result.exit_code == code
        assert "secret" not in result.output
        assert result.stderr.splitlines()[-1].startswith("phygitals: ")
    assert server.seen == []


def test_a_disk_that_fills_up(server: Server, ids: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed is kept, and the command goes on with the rest."""
    monkeypatch.setattr("phygitals_async.refresh._run._COMMIT_USERS", 1)
    commit, commits = SqliteStore.commit, []

    async def full(self: SqliteStore, *args: Any, **kwargs: Any) -> Any:
        commits.append(args)
        # The run, its ids, and the first of its users.
        if len(commits) > 3:
            msg = "the disk is full"
            raise StoreFull(msg)
        return await commit(self, *args, **kwargs)

    monkeypatch.setattr(SqliteStore, "commit", full)
    result = server.run("refresh", "--ids", ids, "--store", store, "--limit", "1")
    assert result.exit_code == Exit.INTERRUPTED
    assert "the disk is full; what was committed is kept, go on with: phygitals refresh" in result.stderr
    monkeypatch.setattr(SqliteStore, "commit", commit)
    again = server.run("refresh", "--ids", ids, "--store", store, "--json")
    assert json.loads(again.stdout)["skipped"] == 1


@pytest.mark.parametrize("room", range(3))
def test_a_disk_that_is_full_from_the_start(
    server: Server, ids: str, store: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is told as well, without a line of counts where nothing was done."""
    commit, commits = SqliteStore.commit, []

    async def full(self: SqliteStore, *args: Any, **kwargs: Any) -> Any:
        commits.append(args)
        if len(commits) > room:
            msg = "the disk is full"
            raise StoreFull(msg)
        return await commit(self, *args, **kwargs)

    command = ["refresh", "--ids", ids, "--store", store]
    monkeypatch.setattr(SqliteStore, "commit", full)
    for _ in range(2):
        commits.clear()
        result = server.run(*command)
        assert result.exit_code == Exit.INTERRUPTED
        again = shlex.join(["phygitals", *command])
        assert result.stderr == (f"phygitals: the disk is full; what was committed is kept, go on with: {again}\n")
    monkeypatch.setattr(SqliteStore, "commit", commit)
    assert server.run(*command).exit_code == Exit.DONE


def test_a_store_that_another_run_has(server: Server, ids: str, store: str) -> None:
    """There is nothing to go on with."""
    command = ["refresh", "--ids", ids, "--store", store]
    assert server.run(*command).exit_code == Exit.DONE
    with closing(sqlite3.connect(f"{store}.lock", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        result = server.run(*command)
    assert result.exit_code == Exit.FAILED
    (line,) = result.stderr.splitlines()
    assert line.startswith("phygitals: another run is under way on ")


def test_a_rate_is_shared_by_all_who_have_the_store(
    server: Server, ids: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the store's default budget. Where that fails, what was answered is kept."""
    reserve, asked = SqliteStore.reserve, []

    async def note(self: SqliteStore, name: str, seconds: float) -> float:
        asked.append((name, seconds))
        if len(asked) > 1:
            msg = "the disk is full"
            raise StoreFull(msg)
        return await reserve(self, name, seconds)

    monkeypatch.setattr(SqliteStore, "reserve", note)
    result = server.run("refresh", "--ids", ids, "--store", store, "--limit", "1", "--rate", "20")
    assert asked == [("default", 0.05)] * 3
    assert result.exit_code == Exit.INTERRUPTED
    assert "the disk is full; what was committed is kept, go on with: phygitals refresh" in result.stderr
    monkeypatch.setattr(SqliteStore, "reserve", reserve)
    again = server.run("refresh", "--ids", ids, "--store", store, "--rate", "20", "--json")
    assert json.loads(again.stdout)["skipped"] == 1


@pytest.mark.parametrize("rate", ["0", "0.05", "nan"])
def test_a_rate_that_no_budget_can_have(server: Server, ids: str, store: str, rate: str) -> None:
    """It is a wrong option."""
    result = server.run("refresh", "--ids", ids, "--store", store, "--rate", rate)
    assert result.exit_code == Exit.USAGE
    assert server.seen == []


def test_following(server: Server, ids: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later run finds comes when it does; Ctrl-C names the number to go on after."""
    server.run("refresh", "--ids", ids, "--store", store, "--run", "first")
    looks = []

    async def pause(_: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.sleep", pause)
    result = server.run("changes", "--store", store, "--since", "first", "--follow", "--json")
    assert result.exit_code == Exit.INTERRUPTED
    assert result.stderr.splitlines()[-1].endswith(
        shlex.join(["changes", "--store", store, "--since", "first", "--follow", "--json", "--after", "0"])
    )
    for after in (["--after", "1"], ["--after=1"], []):
        looks.clear()
        every = server.run("changes", *after, "--follow", PHYGITALS_STORE=store)
        assert len(lines(every.stdout)) == (3 if after else 4)
        assert every.stderr.endswith("; go on with: phygitals changes --follow --after 3\n")
    assert told(server, store, "--after", "3") == []
    assert len(told(server, store, "--after", "2")) == 1


def test_an_unknown_run(server: Server, ids: str, store: str) -> None:
    """It is a mistake of whoever typed it."""
    server.run("refresh", "--ids", ids, "--store", store)
    result = server.run("changes", "--store", store, "--since", "no-such-run")
    assert result.exit_code == Exit.USAGE
    assert "the store has no run named 'no-such-run'" in result.stderr


# export


def test_exporting_to_stdout(server: Server, ids: str, store: str) -> None:
    """A row for each item, with its owner."""
    server.run("refresh", "--ids", ids, "--store", store)
    result = server.run("export", "--store", store)
    assert (result.exit_code, result.stderr) == (Exit.DONE, "phygitals: 2 rows\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["user_id"], row["name"]) for row in rows] == [("ann", "Juan Soto RC Auto /25"), ("bob", "Pikachu")]
    assert server.run("export", "--store", store, "--json").stdout == result.stdout
    table = server.run("export", "--store", store, "--format", "csv").stdout
    assert table.splitlines()[0].startswith("user_id,item_id,name,buyback_price,")
    assert len(table.splitlines()) == 3


def test_exporting_to_a_file(server: Server, ids: str, store: str, tmp_path: Path) -> None:
    """It is there when it is whole, in the place of the one before."""
    server.run("refresh", "--ids", ids, "--store", store)
    file = tmp_path / "items.csv"
    file.write_text("the one before")
    result = server.run("export", "--store", store, "--format", "csv", "--output", str(file), "--json")
    assert json.loads(result.stdout) == {"rows": 2, "output": str(file), "format": "csv"}
    assert len(file.read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.glob("items*")) == ["items.csv"]
    assert server.run("export", "--store", store, "--output", str(file)).stdout == ""


def test_an_export_that_fails_leaves_no_half_of_a_file(server: Server, store: str, tmp_path: Path) -> None:
    """Nor takes the place of a whole one."""
    file = tmp_path / "items.ndjson"
    file.write_text("the one before")
    Path(store).write_text("this is no database at all, but a text of some length\n" * 50)
    result = server.run("export", "--store", store, "--output", str(file))
    assert result.exit_code == Exit.FAILED
    assert file.read_text() == "the one before"
    assert sorted(path.name for path in tmp_path.glob("items*")) == ["items.ndjson"]
    nowhere = server.run("export", "--store", store, "--output", str(tmp_path / "no" / "items"))
    assert nowhere.exit_code == Exit.FAILED
    assert "No such file or directory" in nowhere.stderr


@pytest.mark.usefixtures("terminal")
def test_parquet_is_not_printed_on_a_terminal(server: Server, store: str) -> None:
    """Nor as JSON."""
    result = server.run("export", "--store", store, "--format", "parquet")
    assert result.exit_code == Exit.USAGE
    assert "Parquet is nothing to look at: name a file with --output." in result.stderr
    assert "--json without --output is" in server.run("export", "--store", store, "--format", "csv", "--json").stderr


def test_on_a_cluster(server: Server, ids: str, store: str) -> None:
    """The workers, here in this process, take the key and the URL from their environment."""
    dask: Any = pytest.importorskip("distributed", reason="not run: distributed is not installed")
    with dask.LocalCluster(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        result = server.run("refresh", "--ids", ids, "--store", store, "--on", cluster.scheduler_address, "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    document = json.loads(result.stdout)
    assert (document["known"], document["unknown"], document["asked"]) == (2, 1, 3)
    assert "phygitals: 3 of 3 in " in result.stderr
    assert len(told(server, store)) == 3


@pytest.mark.parametrize(
    "options", [("--environment", "sandbox"), ("--base-url", "https://example.com"), ("--verbose",)]
)
def test_what_would_not_reach_the_workers_is_refused(
    server: Server, ids: str, store: str, options: tuple[str, ...]
) -> None:
    """Each has a client of its own."""
    result = server.run("refresh", "--ids", ids, "--store", store, "--on", "tcp://127.0.0.1:1", *options)
    assert result.exit_code == Exit.USAGE
    assert f"{options[0]} does not go with --on" in result.stderr
    assert not Path(store).exists()

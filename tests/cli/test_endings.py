"""A stdout that takes no more: nobody reads it, the disk is full, or it is closed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from cli_support import COMMAND, Server
from phygitals_async import cli
from phygitals_async.cli._endings import Ending, Exit, written

ADDRESS = ["--name", "Jane Doe", "--line1", "123 Main St", "--city", "Austin", "--country", "US"]
FULL = Path("/dev/full")


def full() -> TextIO:
    """Return a stdout on a disk that is full."""
    if not FULL.is_char_device():
        pytest.skip("not run: there is no /dev/full")
    return FULL.open("w")


def unread() -> TextIO:
    """Return a stdout whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


@pytest.fixture
def store(server: Server, tmp_path: Path) -> str:
    """Return a store in which a user owns a card."""
    server.item("ann")
    (tmp_path / "ids.txt").write_text("ann\n")
    place = str(tmp_path / "users.db")
    assert server.run("refresh", "--ids", str(tmp_path / "ids.txt"), "--store", place).exit_code == Exit.DONE
    return place


def run(server: Server, monkeypatch: pytest.MonkeyPatch, stdout: TextIO, *arguments: str) -> int:
    """Run a command in this process as the entry point does, and return its status."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    with stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
    # It can be closed: what was left in it is dropped.
    assert isinstance(ended.value.code, int)
    return ended.value.code


COMMANDS = [
    ("--help",),
    ("--version",),
    ("refresh", "--help"),
    ("packs",),
    ("packs", "--json"),
    ("inventory", "ann"),
    ("inventory", "ann", "bob", "--json"),
    ("changes", "--store", "STORE"),
    ("export", "--store", "STORE"),
    ("refresh", "--store", "STORE"),
    ("report", "--store", "STORE"),
    ("completion", "bash"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_disk_that_is_full(
    server: Server, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """One line says so, and the status is 1."""
    if command[0] == "report":
        pytest.importorskip("matplotlib", reason="not run: matplotlib is not installed")
    arguments = [store if word == "STORE" else word for word in command]
    assert run(server, monkeypatch, full(), *arguments) == Exit.FAILED
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "phygitals: the output could not be written: No space left on device"


@pytest.mark.parametrize("command", COMMANDS[:-2], ids=" ".join)
def test_a_reader_that_is_gone(
    server: Server, store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Nothing is said of it, and the status is what a shell says of any other program."""
    arguments = [store if word == "STORE" else word for word in command]
    assert run(server, monkeypatch, unread(), *arguments) == Exit.READER_GONE
    assert "written" not in capsys.readouterr().err


@pytest.mark.parametrize("stdout", [full, unread])
def test_a_sale_that_nobody_reads_of(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stdout: Callable[[], TextIO]
) -> None:
    """It is told on stderr, with what was not sold after it."""
    items = [server.item().id for _ in range(3)]
    code = run(server, monkeypatch, stdout(), "sell", *items, "--yes")
    assert code in (Exit.FAILED, Exit.READER_GONE)
    assert (
        f"phygitals: {items[0]} was sold for USD 8.50; not tried: {items[1]}, {items[2]}\n" in capsys.readouterr().err
    )
    assert [request for request in server.seen if request.startswith("POST")] == ["POST /vm/buyback"]


def test_an_order_that_nobody_reads_of(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its id is on stderr before."""
    assert run(server, monkeypatch, unread(), "ship", server.item().id, *ADDRESS, "--yes") == Exit.READER_GONE
    assert "follow it with: phygitals order " in capsys.readouterr().err


def test_an_error_of_another_kind_is_none_of_the_output() -> None:
    """It stays what it is."""
    with pytest.raises(PermissionError), written():
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(Ending, match="Input/output error"), written():
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed(server: Server, closed: str) -> None:
    """The command does its work, and what is printed goes nowhere: above all, into no socket."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **server.environment()}
    done = subprocess.run([*shell, "packs"], env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert server.seen == ["GET /vm/available"]


def test_streams_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python has it where they are closed."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(SystemExit) as ended:
            cli.main(["--version"])
        opened = sys.stdout
    assert ended.value.code == Exit.DONE
    assert opened is not None
    opened.close()

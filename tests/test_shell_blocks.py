"""The shell commands in the documents run as they stand, against a sandbox on this machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from support import ROOT

# Documents by their blocks of commands that are run, one after the other: each ends with status 0.
RUN: Final = {
    "README.md": (2,),
    "docs/cli.md": (2,),
    "docs/guide.md": (1,),
    "docs/sandbox.md": (1, 2, 3),
}
# The others, and why they are not.
NOT_RUN: Final = {
    ("README.md", 1): "the Makefile's own: make test runs this test, and its tests the demo and the storefront",
    ("docs/api-sheet.md", 1): "no commands: the life cycle of an item",
    ("docs/cli.md", 1): "installs from a package index, and needs a key of the vendor's",
    ("docs/cli.md", 3): "a run of somebody's store; tests/cli/test_refresh.py runs the same commands",
    ("docs/cli.md", 4): "lines for the start of three shells; tests/cli/test_app.py has what they evaluate",
    ("docs/errors.md", 1): "no commands: the tree of errors",
    ("docs/index.md", 1): "installs from a package index",
    ("docs/scale.md", 1): "a table of cron's; tests/refresh/test_recipes.py runs the command",
}
# By what they run, whatever is installed: the source, or the wheel.
PROGRAMS: Final = {"phygitals": "-m phygitals_async", "phygitals-sandbox": "-m phygitals_async.sandbox", "python": ""}
# What a reader would replace, or has: a line of a block that only the vendor's sandbox could answer.
VENDOR: Final = re.compile(r"^PHYGITALS_API_KEY=sandbox-\.\.\. .*$", re.MULTILINE)
SERVING: Final = re.compile(r"^(.*sandbox .*--users \d+)(?: *&.*)?$", re.MULTILINE)


def _blocks(document: str) -> list[str]:
    """Return the blocks of a document that are in no language: commands, mostly."""
    fenced = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", (ROOT / document).read_text(), re.MULTILINE)
    return [block for language, block in fenced if not language]


def _documents() -> list[str]:
    return ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")))]


def test_each_block_is_run_or_has_a_reason_not_to_be() -> None:
    """And nothing is named here that is not there."""
    there = {(document, number) for document in _documents() for number, _ in enumerate(_blocks(document), 1)}
    run = {(document, number) for document, numbers in RUN.items() for number in numbers}
    assert run | set(NOT_RUN) == there
    assert run.isdisjoint(NOT_RUN)


@pytest.mark.parametrize("document", RUN)
def test_the_commands_run(document: str, tmp_path: Path, free_port: int, curl: None) -> None:
    """All of a document's in one shell, with a sandbox on a free port in the place of the usual one."""
    blocks = _blocks(document)
    commands = "".join(blocks[number - 1] for number in RUN[document])
    commands = VENDOR.sub("", commands).replace("8765", str(free_port))
    ready = (
        f"until curl --output page.html http://127.0.0.1:{free_port}/_console 2>refused\n"
        "do kill -0 $!; sleep 0.1; done\nset -x"
    )
    commands, served = SERVING.subn(rf"\1 --port {free_port} >sandbox.log 2>&1 &\n{ready}", commands)
    assert served == 1
    script = tmp_path / "commands.sh"
    # Of the status 4xx too, curl makes an exit status.
    (tmp_path / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script.write_text(f"set -eu -o pipefail\ntrap 'kill $!; wait || true' EXIT\n{commands}")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PHYGITALS_")}
    environment = {
        **bare,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HOME": str(tmp_path),
        "CURL_HOME": str(tmp_path),
    }
    # Who is asked says yes.
    done = subprocess.run(
        [shutil.which("bash") or "", script],
        cwd=tmp_path,
        env=environment,
        input="y\n" * 5,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def curl() -> None:
    """Ask for curl."""

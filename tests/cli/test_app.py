"""What every command has in common: help, exit status, one line for an error, and a quick start."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli_support import Server

# Here, before any test runs it as a script: whether coverage follows a file is decided when it sees it first.
from phygitals_async import __main__ as program
from phygitals_async import cli
from phygitals_async.cli._app import COMMANDS, app
from phygitals_async.cli._endings import Exit, go_on_with
from phygitals_async.version import VERSION
from support import ROOT

BASH = shutil.which("bash")
# What takes long to load.
SLOW = {"aiohttp", "anyio", "asyncio", "cattrs", "msgspec", "phygitals_transports", "rich", "yarl"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    command = [sys.executable, "-W", "error", "-m", "phygitals_async", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_the_exit_status() -> None:
    """`phygitals --help`, and `phygitals` alone, which is no use."""
    shown = run("--help")
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()] == list(
        COMMANDS
    )
    assert "4 interrupted" in " ".join(shown.stdout.split())
    for bare in (CliRunner().invoke(app, []), CliRunner().invoke(app, ["--help"])):
        assert bare.output == shown.stdout
    assert CliRunner().invoke(app, []).exit_code == Exit.USAGE
    assert app.list_commands(app.make_context("phygitals", ["--version"], resilient_parsing=True)) == list(COMMANDS)
    assert run("--version").stdout == f"phygitals, version {VERSION}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_its_line_in_the_list(name: str) -> None:
    """What the list says is what the command says, and every one prints JSON."""
    module = importlib.import_module(f"phygitals_async.cli.{COMMANDS[name][0]}")
    assert getattr(module, name).name == name
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output
    if name != "sandbox":
        assert COMMANDS[name][1].rstrip(".") in " ".join(shown.output.split())


def test_the_document_has_every_command_and_status() -> None:
    """What `docs/cli.md` says is there is what is there."""
    text = (ROOT / "docs" / "cli.md").read_text()
    assert set(re.findall(r"^\| `phygitals (\w+)", text, re.MULTILINE)) == set(COMMANDS)
    assert [int(status) for status in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == list(Exit)


def test_help_loads_nothing_that_is_slow() -> None:
    """Not the library behind the commands, no event loop, no HTTP, no tables."""
    program = (
        "import sys; bare = len(sys.modules)\n"
        "from phygitals_async.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded', len(sys.modules) - bare, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    _, count, *packages = done.stdout.splitlines()[-1].split()
    assert not {*SLOW, "attrs", "attr"} & set(packages)
    assert "click" in packages
    # Of these, click and the standard library's modules that it uses are all but a handful.
    assert int(count) < 160


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_command_loads_what_is_slow_before_it_has_something_to_do(name: str) -> None:
    """Not for its help, nor for telling that it was misspelt or has no key, nor for completing it."""
    program = """
import os, sys
from phygitals_async.cli import main
def run(*arguments):
    try: main(arguments)
    except SystemExit: pass
name = sys.argv[1]
run(name, "--help")
run(name, "--no-such-option")
if name not in ("doctor", "sandbox"):
    run(name)
os.environ |= {"_PHYGITALS_COMPLETE": "bash_complete", "COMP_WORDS": f"phygitals {name} --", "COMP_CWORD": "2"}
run()
print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PHYGITALS_")}
    done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, check=True, env=bare)
    # That of the sandbox comes from its own command line.
    assert f"usage: phygitals {name} " in done.stdout.lower()
    assert "plain,--json" in done.stdout
    assert not SLOW & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "phygitals: No such command 'nonsense'. See phygitals --help"),
        (["order"], "phygitals: Missing argument 'ORDER'. See phygitals order --help"),
        (["--nonsense"], "phygitals: No such option"),
        (["buy", "a", "b", "--amount", "0"], "phygitals: Invalid value for '--amount': 0 is not in the range x>=1."),
    ],
)
def test_what_is_misspelt_is_told_in_one_line(arguments: list[str], line: str) -> None:
    """The status is 2, stdout is empty, and stderr has one line."""
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    (told,) = result.stderr.splitlines()
    assert told.startswith(line)


def test_without_a_key(server: Server) -> None:
    """It says what to set, and that there is a sandbox."""
    result = server.run("packs", PHYGITALS_API_KEY=None)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("phygitals: no API key: set PHYGITALS_API_KEY. (phygitals sandbox ")


def test_a_key_that_does_not_fit(server: Server) -> None:
    """A contradiction is refused before anything is sent, and does not show the key."""
    result = server.run("packs", "--environment", "production", PHYGITALS_BASE_URL=None)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("phygitals: a sandbox- key does not fit production")
    assert server.seen == []


def test_a_refused_key(server: Server) -> None:
    """The status is 3."""
    result = server.run("packs", PHYGITALS_API_KEY="some-other-key")
    assert (result.exit_code, result.stdout) == (Exit.KEY_REFUSED, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("phygitals: list_packs: 401 ")
    assert "some-other-key" not in line


def test_what_the_api_says_cannot_steer_the_terminal(server: Server) -> None:
    """Neither an error's text nor a card's name has a control character left."""
    server.item("ann", name="a\x1b[2Jb\tc\nd")
    result = server.run("inventory", "ann")
    assert "a [2Jb c d" in result.stdout
    assert "\x1b" not in result.output
    assert "\x1b" not in server.run("inventory", "\x1b[2J").output


def test_letters_that_the_terminal_does_not_have(server: Server) -> None:
    """They are escaped, and nothing breaks."""
    server.item("ann", name="Pokémon カ")
    old = {"PYTHONIOENCODING": "cp1252"}
    out, err = server.process("inventory", "ann", variables=old, encoding="cp1252").communicate(timeout=60)
    assert "\tPokémon \\u30ab\t" in out
    assert "Traceback" not in err
    _, err = server.process("inventory", "nカbody", variables=old, encoding="cp1252").communicate(timeout=60)
    assert "n\\u30abbody" in err


def test_verbose_tells_of_attempts(server: Server) -> None:
    """And only then: what is repeated is nobody's business otherwise."""
    server.sandbox.options.server_errors = 1
    quiet = server.run("inventory", "ann", "--json")
    assert "attempt" not in quiet.stderr
    told = server.run("packs", "-v").stderr
    assert "phygitals: list_packs: attempt 1: 200 in " in told


def test_deadline(server: Server) -> None:
    """A number of seconds is needed, for each call."""
    result = server.run("packs", "--deadline", "-1")
    assert result.exit_code == Exit.USAGE
    assert "deadline" in result.stderr


@pytest.mark.parametrize("missing", [("click",), ("click", "rich")])
def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: tuple[str, ...]
) -> None:
    """It says how to install what is missing."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else ModuleSpec(name, None))
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == Exit.USAGE
    needed = " and ".join(missing)
    assert capsys.readouterr().err == (
        f"phygitals: the command line needs {needed}: pip install 'phygitals-async[cli]'\n"
    )


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_as_a_process(missing: str) -> None:
    """One line, no traceback."""
    program = (
        "import importlib.machinery, sys\n"
        "class Without(importlib.machinery.PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        return None if name == {missing!r} else super().find_spec(name, path, target)\n"
        "sys.meta_path[-1] = Without\n"
        "from phygitals_async.cli import main\nmain(['packs'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"phygitals: the command line needs {missing}: pip install 'phygitals-async[cli]'\n"


def test_main_takes_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the entry point calls it."""
    monkeypatch.setattr(sys, "argv", ["phygitals", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == Exit.DONE
    assert VERSION in capsys.readouterr().out


def test_python_dash_m_is_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m phygitals_async` runs `main`; what only imports it, as this module does, runs nothing."""
    monkeypatch.setattr(sys, "argv", ["phygitals", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program.__file__), run_name="__main__")
    assert ended.value.code == Exit.DONE
    assert capsys.readouterr().out == f"phygitals, version {VERSION}\n"


def test_ctrl_c_ends_with_the_command_to_go_on_with(server: Server) -> None:
    """A real process, a real signal: status 4, no traceback, and the command as it was typed."""
    running: list[subprocess.Popen[str]] = []

    async def interrupt(_: object) -> None:
        running[0].send_signal(signal.SIGINT)
        await asyncio.sleep(60)

    server.replaced["/available"] = interrupt
    process = server.process("packs", "--platform", "main net", "--json")
    running.append(process)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (Exit.INTERRUPTED, "")
    assert err.splitlines()[-1] == "phygitals: interrupted; go on with: phygitals packs --platform 'main net' --json"
    assert "Traceback" not in err


def test_the_command_to_go_on_with_shows_no_password() -> None:
    """That of a database is left out: what is on stderr ends up in logs."""
    url = "postgresql://me:pass/w@rd@db.example.com/users"
    among = "postgresql://db.example.com/users?user=me&password=pass/w@rd&sslmode=require"
    assert go_on_with("--store", among) == (
        "phygitals --store 'postgresql://db.example.com/users?user=me&password=***&sslmode=require'"
    )
    shown = go_on_with("refresh", "--store", url, f"--store={url}", "a b")
    assert shown == (
        "phygitals refresh --store 'postgresql://me:***@db.example.com/users' "
        "'--store=postgresql://me:***@db.example.com/users' 'a b'"
    )


def test_a_reader_that_goes_away(server: Server) -> None:
    """`phygitals ... | head -1` ends without a traceback."""
    process = server.process("inventory", *(f"user-{number}" for number in range(200)))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == Exit.READER_GONE
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_json_of_an_error_stays_off_stdout(server: Server) -> None:
    """A program that reads JSON reads nothing, and the status."""
    result = server.run("order", "nonsense", "--json")
    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert len(result.stderr.splitlines()) == 1


# Completion


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("phygitals in", ["inventory"]),
        ("phygitals --v", ["--version"]),
        ("phygitals buy --a", ["--amount"]),
        ("phygitals sandbox --p", ["--port"]),
        ("phygitals completion f", ["fish"]),
        ("phygitals api g", ["GET"]),
    ],
)
def test_completion(words: str, found: list[str]) -> None:
    """Names and options come out as the shells' scripts ask for them."""
    count = str(len(words.split()) - 1)
    variables = {"COMP_WORDS": words, "COMP_CWORD": count, "_PHYGITALS_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(app, [], prog_name="phygitals", env=variables)
    assert [line.partition(",")[2] for line in result.output.splitlines()] == found
    zsh = CliRunner().invoke(app, [], prog_name="phygitals", env={**variables, "_PHYGITALS_COMPLETE": "zsh_complete"})
    assert zsh.output.splitlines()[1] == found[0]
    fish = {"COMP_WORDS": words, "COMP_CWORD": words.split()[-1], "_PHYGITALS_COMPLETE": "fish_complete"}
    assert found[0] in CliRunner().invoke(app, [], prog_name="phygitals", env=fish).output


@pytest.mark.parametrize(
    "words",
    [
        "inventory --ids",
        "refresh --ids",
        "refresh --store",
        "changes --store",
        "runs --store",
        "export --store",
        "export --output",
        "report --store",
        "report --output",
        "ship --to",
        "buy --journal",
        "sell --journal",
        "ship --journal",
        "reconcile --journal",
    ],
)
def test_completion_of_files(words: str) -> None:
    """Every option that takes one leaves it to the shell."""
    variables = {"COMP_WORDS": f"phygitals {words} us", "COMP_CWORD": "3", "_PHYGITALS_COMPLETE": "bash_complete"}
    assert CliRunner().invoke(app, [], prog_name="phygitals", env=variables).output == "file,us\n"


@pytest.mark.skipif(BASH is None, reason="not run: bash is not installed")
def test_bash_completes_files(tmp_path: Path) -> None:
    """The script does what bash needs for it."""
    (tmp_path / "phygitals").write_text(f'#!/bin/sh\nexec {sys.executable} -m phygitals_async "$@"\n')
    (tmp_path / "phygitals").chmod(0o755)
    # compopt works in a running completion alone: that it is asked for files is what counts.
    program = """
compopt() { echo "$@"; }
eval "$(phygitals completion bash)"
COMP_WORDS=(phygitals refresh --store us) COMP_CWORD=3
_phygitals_completion phygitals
"""
    path = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [str(BASH), "-c", program], env={**os.environ, **path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "-o default\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_the_shells(shell: str) -> None:
    """Each script asks this program, under the name that it is completed by."""
    script = CliRunner().invoke(app, ["completion", shell]).output
    assert f"_PHYGITALS_COMPLETE={shell}_complete" in script
    as_json = CliRunner().invoke(app, ["completion", shell, "--json"]).output
    assert json.loads(as_json) == {"shell": shell, "script": script.removesuffix("\n")}


def test_the_commands_that_are_installed() -> None:
    """The names in `pyproject.toml` lead to functions."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    assert set(scripts) == {"phygitals", "phygitals-sandbox"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert scripts["phygitals"] == "phygitals_async.cli:main"

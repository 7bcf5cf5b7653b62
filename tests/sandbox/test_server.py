"""The sandbox over HTTP: the command line as a process, and in this one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import phygitals_async.sandbox
from phygitals_async import AuthenticationError, Inventory, PhygitalsClient, Request, Response, UserNotFound
from phygitals_async.sandbox.__main__ import main
from phygitals_async.sandbox.served import program
from phygitals_transports import AiohttpTransport

KEPT = ("PATH", "HOME", "TMPDIR", "SYSTEMROOT", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the command as a process, giving it and the lines it printed up to `ready`."""
    # Whatever it leaves open or misuses becomes visible on stderr.
    command = [sys.executable, "-W", "error", "-m", "phygitals_async.sandbox", *arguments]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    # A process that prints nothing ends this test instead of holding it up.
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1] == "ready":
                break
        yield process, lines
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def look_up(base_url: str, key: str, user_ids: Sequence[str]) -> list[Inventory]:
    """Ask a server with a real client, over aiohttp."""

    async def ask() -> list[Inventory]:
        async with PhygitalsClient(api_key=key, base_url=base_url) as api:
            with pytest.raises(UserNotFound):
                await api.get_inventory("nobody")
            return [await api.get_inventory(user_id) for user_id in user_ids]

    return asyncio.run(ask())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command(number: signal.Signals) -> None:
    """It prints URL and key, answers a client under both, and stops cleanly on SIGINT and on SIGTERM."""
    with running("--port", "0", "--users", "5") as (process, lines):
        text = "\n".join(lines)
        url = re.search(r"http://127\.0\.0\.1:[0-9]+/_", text)
        key = re.search(r"sandbox-\S+", text)
        assert url is not None
        assert key is not None
        assert "user_000000 to user_000004" in text
        users = [f"user_{number:06d}" for number in range(5)]
        inventories = look_up(url[0], key[0], users)
        assert [inventory.user_id for inventory in inventories] == users
        assert any(inventory.items for inventory in inventories)
        with pytest.raises(AuthenticationError):
            look_up(url[0].removesuffix("/_"), "another-key", [])
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (0, "", "")


def test_a_stop_with_open_connections() -> None:
    """A client that keeps its connection open does not hold up the stop."""
    with running("--port", "0") as (process, lines):
        url = re.search(r"http://\S+", "\n".join(lines))
        assert url is not None

        async def stop_it() -> int:
            async with PhygitalsClient(api_key="sandbox-1", base_url=url[0]) as api:
                with pytest.raises(UserNotFound):
                    await api.get_inventory("nobody")
                process.send_signal(signal.SIGTERM)
                return await asyncio.to_thread(process.wait, 30)

        assert asyncio.run(stop_it()) == 0


# A request that is not all there: its head, or its body, breaks off.
HALVES = [
    b"POST /_/api/v1/vm/buyback HTTP/1.1\r\nHost: x\r\nX-API-Key: sandbox-1\r\n",
    b"POST /_/api/v1/vm/buyback HTTP/1.1\r\nHost: x\r\nX-API-Key: sandbox-1\r\nContent-Length: 100\r\n\r\n{",
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("half", HALVES, ids=["head", "body"])
def test_a_stop_during_a_half_sent_request(number: signal.Signals, half: bytes) -> None:
    """A client that never sends the rest of its request does not hold up the stop."""
    with running("--port", "0") as (process, lines):
        address = re.search(r"http://([0-9.]+):([0-9]+)", "\n".join(lines))
        assert address is not None
        with socket.create_connection((address[1], int(address[2])), timeout=30) as half_sent:
            half_sent.sendall(half)
            # Answered on a connection of its own, so the half before it has been read.
            look_up(f"{address[0]}/_", "sandbox-1", [])
            process.send_signal(number)
            # Far from the minute that aiohttp gives by default.
            rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_port_that_is_taken() -> None:
    """A port that is taken ends the command with an error, and with nothing that says it serves."""
    with running("--port", "0") as (_, lines):
        taken = re.search(r":([0-9]+)/_", "\n".join(lines))
        assert taken is not None
        with running("--port", taken[1]) as (second, printed):
            _, errors = second.communicate(timeout=30)
        assert second.returncode == 1
        assert printed == []
        (line,) = errors.splitlines()
        assert line.startswith(f"phygitals-sandbox: cannot serve at 127.0.0.1:{taken[1]}: ")
        assert "address already in use" in line


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".invalid", "300.1.1.1"])
def test_a_host_that_is_unknown(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A host without an address, and one that cannot be a name, ends the command with one line."""
    with pytest.raises(SystemExit) as stopped:
        main(["--port", "0", "--host", host])
    # Python prints such a text, and exits with 1.
    assert isinstance(stopped.value.code, str)
    assert stopped.value.code.startswith(f"phygitals-sandbox: cannot serve at {host}:0: ")
    assert len(stopped.value.code.splitlines()) == 1
    assert capsys.readouterr() == ("", "")


class _Output(io.StringIO):
    """Collects what is printed and does something once the server is ready."""

    def __init__(self, when_ready: Callable[[], None], ready: str = "ready") -> None:
        super().__init__()
        self._when_ready = when_ready
        self._ready = ready

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._ready in text:
            self._when_ready()
        return written


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    """Run with the handlers a process in the foreground starts with, and see that they are there afterwards."""
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    # In the background of a shell script, SIGINT is ignored instead.
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("arguments", "users"), [((), None), (("--users", "2"), "user_000000 to user_000001")])
def test_main_in_this_process(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, arguments: tuple[str, ...], users: str | None
) -> None:
    """`main` serves until a signal, then returns; it names users only if there are any."""
    output = _Output(lambda: os.kill(os.getpid(), number))
    monkeypatch.setattr(sys, "stdout", output)
    main(["--port", "0", "--seed", "4", "--rate-limit", "5", *arguments])
    lines = output.getvalue().splitlines()
    assert re.search(r"http://127\.0\.0\.1:[0-9]+/_$", lines[0])
    assert "sandbox-" in lines[1]
    assert lines[-1] == "ready"
    assert lines[-2] == f"console   {lines[0].split()[-1].removesuffix('/_')}/_console"
    assert len(lines) == (4 if users is None else 5)
    assert users is None or users in lines[2]


class _Interrupting(str):
    """An argument during whose reading somebody presses Ctrl-C."""

    __slots__ = ()

    def __float__(self) -> float:
        signal.raise_signal(signal.SIGINT)
        return 5.0


@pytest.mark.usefixtures("usual_handlers")
def test_an_interruption_while_the_arguments_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends the program without a traceback, as it does later: much may be loaded for an argument."""
    try:
        main(["--port", "0", "--rate-limit", _Interrupting("5")])
    except KeyboardInterrupt:
        pytest.fail("it was passed on")
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize(("count", "said"), [(2, ""), (3, "phygitals-sandbox: making 3 users and their items\n")])
def test_many_users_take_time_to_make(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int, said: str
) -> None:
    """The server says so before, on stderr, which programs do not read."""
    monkeypatch.setattr(program, "_MANY", 3)
    monkeypatch.setattr(sys, "stdout", _Output(lambda: os.kill(os.getpid(), signal.SIGTERM), '"users"'))
    main(["--port", "0", "--json", "--users", str(count)])
    assert capsys.readouterr().err == said


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize(("count", "users"), [(0, None), (2, ["user_000000", "user_000001"])])
def test_main_tells_programs(monkeypatch: pytest.MonkeyPatch, count: int, users: list[str] | None) -> None:
    """With --json it is one line, which has all of it."""
    output = _Output(lambda: os.kill(os.getpid(), signal.SIGTERM), '"users"')
    monkeypatch.setattr(sys, "stdout", output)
    main(["--port", "0", "--json", "--users", str(count)])
    (line,) = output.getvalue().splitlines()
    told = json.loads(line)
    url = told.pop("base_url").removesuffix("/_")
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", url)
    assert told == {
        "api_key": "sandbox-local", "users": users, "console": f"{url}/_console", "admin": f"{url}/_admin",
        "admin_token": None,
    }  # fmt: skip


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize("as_json", [False, True])
def test_a_host_that_others_reach(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    """Admin API and console are opened by a token, which is printed, and is another one each time."""
    tokens = set()
    for _ in range(2):
        output = _Output(lambda: os.kill(os.getpid(), signal.SIGTERM), '"users"' if as_json else "ready")
        monkeypatch.setattr(sys, "stdout", output)
        # All addresses of this machine, in one family.
        main(["--port", "0", "--host", "0.0.0.0", *(["--json"] if as_json else [])])  # noqa: S104 - what is tested.
        if as_json:
            told = json.loads(output.getvalue())
            token = told["admin_token"]
            # The client would refuse one of the network.
            assert "127.0.0.1" in repr(PhygitalsClient(api_key=told["api_key"], base_url=told["base_url"]))
        else:
            *_, console, admin, elsewhere, _ = output.getvalue().splitlines()
            found = re.fullmatch(r"console   http://127\.0\.0\.1:[0-9]+/_console\?token=(\S+)", console)
            assert found is not None
            token = found[1]
            assert output.getvalue().count(token) == 1
            assert admin == "admin     X-Admin-Token: the token in the line above (not shown again)"
            assert elsewhere.startswith("elsewhere only https")
        assert len(token) >= 32
        tokens.add(token)
    assert len(tokens) == 2


def test_strict() -> None:
    """With `--strict`, where production would be answers 401, and the sandbox's own root goes on."""

    async def ask(url: str) -> list[int]:
        async with aiohttp.ClientSession(headers={"X-API-Key": "sandbox-1"}) as session:
            statuses = []
            for root in ("", "/_"):
                async with session.get(f"{url}{root}/api/v1/vm/available") as answer:
                    statuses.append(answer.status)
            return statuses

    with running("--port", "0", "--strict") as (_, lines):
        url = re.search(r"http://[0-9.:]+", "\n".join(lines))
        assert url is not None
        assert asyncio.run(ask(url[0])) == [401, 200]


@pytest.mark.usefixtures("usual_handlers")
def test_where_signals_cannot_be_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an event loop without signal handlers, as on Windows, Ctrl-C ends it all the same, without a traceback."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
    output = _Output(lambda: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(sys, "stdout", output)
    main(["--port", "0"])
    assert output.getvalue().endswith("ready\n")


@pytest.mark.usefixtures("usual_handlers")
def test_python_dash_m(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m phygitals_async.sandbox` runs `main` with the command line's arguments."""
    output = _Output(lambda: os.kill(os.getpid(), signal.SIGTERM))
    path = str(Path(phygitals_async.sandbox.__file__).parent / "__main__.py")
    monkeypatch.setattr(sys, "argv", ["phygitals-sandbox", "--port", "0", "--host", "localhost"])
    monkeypatch.setattr(sys, "stdout", output)
    # By its path: in an installed wheel, pytest's own importer has the package, and runpy cannot read from that.
    runpy.run_path(path, run_name="__main__")
    assert output.getvalue().endswith("ready\n")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names every option, with its default."""
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    options = ("--host", "--port", "--users", "--seed", "--rate-limit", "--no-retry-after", "--strict", "8765")
    for option in options:
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "x"], "invalid port value: 'x'"),
        (["--port", "-1"], "must be 0 to 65535, not -1"),
        (["--port", "65536"], "must be 0 to 65535, not 65536"),
        (["--users", "many"], "invalid count value: 'many'"),
        (["--users", "-1"], "must be at least 0, not -1"),
        (["--users", "1.5"], "invalid count value: '1.5'"),
        (["--rate-limit", "fast"], "invalid rate value: 'fast'"),
        (["--rate-limit", "0"], "must be above 0 and finite, not 0"),
        (["--rate-limit", "-2"], "must be above 0 and finite, not -2"),
        (["--rate-limit", "nan"], "must be above 0 and finite, not nan"),
        (["--rate-limit", "inf"], "must be above 0 and finite, not inf"),
        (["--nothing"], "unrecognized arguments"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad argument is named, with what is wrong with it, and the exit code is 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert arguments[0] in line
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "statuses", "says_when"),
    [
        ((), {404}, False),
        (("--rate-limit", "0.001"), {404, 429}, True),
        (("--rate-limit", "0.001", "--no-retry-after"), {404, 429}, False),
        (("--no-retry-after",), {404}, False),
    ],
    ids=["no limit", "limit", "silent limit", "nothing to be silent about"],
)
def test_rate_limit(arguments: tuple[str, ...], statuses: set[int], says_when: bool) -> None:
    """It answers 429 once the rate is used up, if one is given, and says when to come back unless told not to."""

    async def ask(url: str) -> list[Response]:
        transport = AiohttpTransport()
        try:
            request = Request("GET", f"{url}/api/v1/inventory/nobody", {"X-API-Key": "sandbox-1"})
            return [await transport.send(request) for _ in range(30)]
        finally:
            await transport.aclose()

    with running("--port", "0", *arguments) as (_, lines):
        url = re.search(r"http://\S+", "\n".join(lines))
        assert url is not None
        responses = asyncio.run(ask(url[0]))
    assert {response.status for response in responses} == statuses
    assert any("retry-after" in response.headers for response in responses) == says_when


def test_the_seed_repeats_the_data() -> None:
    """Two servers with one seed hold the same users with the same items, but for the time of the pull."""

    def items(seed: str) -> list[tuple[str, str, str]]:
        with running("--port", "0", "--users", "3", "--seed", seed) as (_, lines):
            url = re.search(r"http://\S+", "\n".join(lines))
            assert url is not None
            found = look_up(url[0], "sandbox-1", [f"user_{number:06d}" for number in range(3)])
            return [(item.id, item.name, str(item.buyback_price)) for each in found for item in each.items]

    assert items("1") == items("1")
    assert items("1") != items("2")

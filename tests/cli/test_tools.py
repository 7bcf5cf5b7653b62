"""`api`, `doctor` and `sandbox`."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from click.testing import CliRunner

from cli_support import KEY, Server, lines, press_ctrl_c
from phygitals_async import CertificateRefused, Request, Response
from phygitals_async.cli import _diagnosis
from phygitals_async.cli._app import app
from phygitals_async.cli._endings import Exit

# api


def test_a_get_is_printed_as_it_came(server: Server) -> None:
    """Byte by byte, also what no model knows."""
    body = b'{"a":  8.50, "big": 12345678901234567890123, "b": [null]}'
    server.replaced["/new"] = lambda _: Response(200, {}, body)
    for flags in ([], ["--json"]):
        result = server.run("api", "get", "/some%2Fthing/new?x=1&x=2", *flags)
        assert (result.exit_code, result.stdout, result.stderr) == (Exit.DONE, f"{body.decode()}\n", "")
    assert server.seen[-1] == "GET /some%2Fthing/new?x=1&x=2"


@pytest.mark.usefixtures("terminal")
def test_a_get_is_indented_on_a_terminal(server: Server) -> None:
    """With the numbers as they are written."""
    server.replaced["/new"] = lambda _: Response(200, {}, b'{"a":8.50}')
    assert server.run("api", "GET", "/new").stdout == '{\n  "a": 8.50\n}\n'


def test_a_get_does_not_show_a_key_that_is_echoed(server: Server) -> None:
    """Wherever it comes from."""
    server.replaced["/new"] = lambda _: Response(200, {}, json.dumps({"you": KEY}).encode())
    assert server.run("api", "GET", "/new").stdout == '{"you": "***"}\n'


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        (404, b"{}", Exit.FAILED, "GET /new: 404"),
        (401, b"{}", Exit.KEY_REFUSED, "GET /new: 401"),
        (200, b"<html>", Exit.FAILED, "not the documented object; $: not JSON"),
    ],
)
def test_a_get_that_fails(server: Server, status: int, body: bytes, code: Exit, told: str) -> None:
    """As any other call."""
    server.replaced["/new"] = lambda _: Response(status, {}, body)
    result = server.run("api", "GET", "/new?x=1")
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert told in line


@pytest.mark.parametrize(
    "path", ["new", "/a/../b", "/%2e%2E/b", "/.", "//host/x", "/a b", "/ü", "/a#b", "/{slug}", "/a\\b", "/", ""]
)
def test_a_path_that_could_lead_elsewhere(server: Server, path: str) -> None:
    """It is refused before anything is sent."""
    result = server.run("api", "GET", path)
    assert result.exit_code == Exit.USAGE
    assert "the path must" in result.stderr
    assert server.seen == []


def test_only_reads(server: Server) -> None:
    """What moves money has commands that ask; and the method comes first."""
    result = server.run("api", "POST", "/vm/buyback")
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert result.stderr == (
        "phygitals: only GET is sent, not POST: buy, sell and ship do what moves money or goods, and ask first. "
        "See phygitals api --help\n"
    )
    bare = server.run("api", "/vm/available").stderr
    assert bare.startswith("phygitals: the method comes before the path: phygitals api GET /vm/available. ")
    assert "Missing argument 'PATH'" in server.run("api", "GET").stderr
    assert "Missing argument 'GET'" in server.run("api").stderr
    assert server.seen == []


def test_interrupting_a_get(server: Server) -> None:
    """Status 4."""

    async def interrupt(_: Request) -> None:
        press_ctrl_c()
        await asyncio.sleep(60)

    server.replaced["/new"] = interrupt
    assert server.run("api", "GET", "/new").exit_code == Exit.INTERRUPTED


# doctor


def examined(server: Server, **variables: str | None) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit status and the findings by name."""
    result = server.run("doctor", "--json", **variables)
    document = json.loads(result.stdout)
    assert document["exit"] == result.exit_code
    return result.exit_code, {finding["name"]: finding for finding in document["findings"]}


def test_all_is_well(server: Server) -> None:
    """Each thing is looked at, in the order in which it could fail."""
    code, found = examined(server)
    assert code == Exit.DONE
    assert list(found) == ["versions", "key", "environment", "proxy", "name", "TLS", "call", "clock"]
    assert {finding["state"] for finding in found.values()} == {"ok"}
    assert found["key"]["found"] == "set: a sandbox key"
    assert found["environment"]["found"] == f"sandbox at {server.url}/_/api/v1"
    assert found["TLS"]["found"] == "none: plain HTTP on this machine"
    shown = server.run("doctor")
    assert [row[:2] for row in lines(shown.stdout)[1:]] == [[name, "ok"] for name in found]
    assert shown.stderr == "phygitals: all is well\n"


def test_no_key(server: Server) -> None:
    """It is a finding, with what to do, and a wrong use as in every command; the way and the clock are looked at."""
    code, found = examined(server, PHYGITALS_API_KEY=None)
    assert code == Exit.USAGE
    assert list(found) == ["versions", "key and environment", "URL", "proxy", "name", "TLS", "answer", "clock"]
    assert [name for name, finding in found.items() if finding["state"] != "ok"] == ["key and environment"]
    assert "set PHYGITALS_API_KEY" in found["key and environment"]["advice"]
    assert found["URL"]["found"] == f"{server.url}/_/api/v1"
    assert found["answer"]["found"] == "401, to a request without a key"
    shown = server.run("doctor", PHYGITALS_API_KEY="with a space")
    assert "key and environment: set PHYGITALS_API_KEY to the key as Phygitals issued it" in shown.stdout
    assert shown.stderr == "phygitals: something is wrong: see above what to do\n"


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"PHYGITALS_ENVIRONMENT": "production"}, "this key is for sandbox: leave PHYGITALS_ENVIRONMENT"),
        (
            {"PHYGITALS_ENVIRONMENT": "sandbox", "PHYGITALS_API_KEY": "other"},
            "this key is for production: leave PHYGITALS_ENVIRONMENT",
        ),
        ({"PHYGITALS_ENVIRONMENT": "nonsense"}, "set PHYGITALS_ENVIRONMENT to production or sandbox, or leave it out"),
        ({"PHYGITALS_BASE_URL": "nonsense"}, "set PHYGITALS_BASE_URL only for another place than the vendor's"),
    ],
)
def test_settings_that_contradict_each_other(server: Server, variables: dict[str, str], advice: str) -> None:
    """It says which one to change; nothing is sent with the key."""
    code, found = examined(server, **variables)
    assert code == Exit.USAGE
    assert advice in found["key and environment"]["advice"]
    assert ("clock" in found) == ("nonsense" not in variables.values())


def test_no_key_and_no_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a connection and says nothing, or goes away."""

    async def wait(_: Request) -> None:
        await asyncio.sleep(60)

    server.replaced["/available"] = wait
    monkeypatch.setattr(_diagnosis, "_PATIENCE", 0.2)
    code, found = examined(server, PHYGITALS_API_KEY=None)
    assert code == Exit.USAGE
    assert "no answer within 0 s" in found["answer"]["found"]
    assert "clock" not in found


def test_a_key_that_is_refused(server: Server) -> None:
    """Status 3, and the clock is looked at all the same."""
    code, found = examined(server, PHYGITALS_API_KEY="another")
    assert code == Exit.KEY_REFUSED
    assert found["key"]["found"] == "set: a production key"
    assert "401" in found["call"]["found"]
    assert "compare it with the one Phygitals issued" in found["call"]["advice"]
    assert found["clock"]["state"] == "ok"


def test_a_firewall(server: Server) -> None:
    """A 403 of the edge is told as what it may be."""
    server.replaced["/available"] = lambda _: Response(403, {"cf-ray": "1"}, b"<html>")
    code, found = examined(server)
    assert code == Exit.FAILED
    assert "allow-list" in found["call"]["advice"]


def test_an_outage(server: Server) -> None:
    """Asked once."""
    server.replaced["/available"] = lambda _: Response(503, {}, b"")
    _, found = examined(server)
    assert found["call"]["advice"] == "try again later; -v tells of each attempt"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("off", "told", "state"),
    [
        (-90, "90 s ahead of", "warning"),
        (90, "90 s behind", "warning"),
        (20, "", "ok"),
        (-91_000_000, "91,000,000 s ahead of", "failed"),
    ],
)
def test_the_clock(off: int, told: str, state: str) -> None:
    """One that is a little off is a warning, one that is off by hours makes everything wrong."""
    now = datetime.now(UTC)
    response = Response(200, {"DATE": format_datetime(now + timedelta(seconds=off), usegmt=True)}, b"")
    finding = _diagnosis.check_clock(response, now.replace(microsecond=0))
    assert finding.state == state
    assert told in finding.found
    assert ("NTP" in finding.advice) == bool(told)
    assert _diagnosis.check_clock(Response(200, {}, b""), now).found == "the answer has no date to compare with"


@pytest.mark.parametrize(
    ("off", "code", "last"),
    [
        (timedelta(minutes=2), Exit.DONE, "phygitals: calls work, but see the warning above\n"),
        (timedelta(days=1060), Exit.FAILED, "phygitals: something is wrong: see above what to do\n"),
    ],
)
@pytest.mark.parametrize("key", [KEY, None])
def test_a_clock_that_is_off(server: Server, off: timedelta, code: Exit, last: str, key: str | None) -> None:
    """The last line does not say that all is well, and the status tells of what is wrong, with a key and without."""
    date = format_datetime(datetime.now(UTC) + off, usegmt=True)
    server.replaced["/available"] = lambda _: Response(200, {"Date": date}, b"[]")
    result = server.run("doctor", PHYGITALS_API_KEY=key)
    assert result.exit_code == (code if key else Exit.USAGE)
    assert result.stderr == (last if key else "phygitals: something is wrong: see above what to do\n")
    assert "clock: set this machine's clock" in result.stdout


def test_a_name_that_is_unknown(server: Server) -> None:
    """What rests on it is not looked at."""
    code, found = examined(server, PHYGITALS_BASE_URL="https://no-such-host.invalid")
    assert code == Exit.FAILED
    assert list(found)[-1] == "name"
    _, without = examined(server, PHYGITALS_BASE_URL="https://no-such-host.invalid", PHYGITALS_API_KEY=None)
    assert list(without)[-1] == "name"
    assert "no-such-host.invalid could not be resolved" in found["name"]["found"]
    assert "DNS" in found["name"]["advice"]
    assert "Unicode" in _diagnosis.check_name(urlsplit(f"https://{'x' * 70}.invalid")).found


def test_a_port_that_nobody_listens_on(server: Server) -> None:
    """It says which."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, found = examined(server, PHYGITALS_BASE_URL=f"http://127.0.0.1:{port}")
    assert found["TLS"]["found"] == f"no connection to 127.0.0.1:{port}: Connection refused"
    assert f"start what should answer at 127.0.0.1:{port}" in found["TLS"]["advice"]
    _, found = examined(server, PHYGITALS_BASE_URL=server.url.replace("http://", "https://"))
    assert found["TLS"]["found"].startswith(f"no TLS at {urlsplit(server.url).netloc}: ")
    assert "speaks no TLS: check the port" in found["TLS"]["advice"]
    _, found = examined(server, PHYGITALS_BASE_URL=f"https://127.0.0.1:{port}")
    assert f"lets this machine reach 127.0.0.1:{port}" in found["TLS"]["advice"]


@contextmanager
def tls(authority: trustme.CA) -> Iterator[int]:
    """Accept TLS connections on a port, and say nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            accepted, _ = listening.accept()
            with accepted:
                try:
                    context.wrap_socket(accepted, server_side=True).close()
                except OSError:
                    # The client did not like the certificate.
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that is not trusted, and the same once its authority is."""
    authority = trustme.CA()
    with tls(authority) as port:
        refused = _diagnosis.check_tls(urlsplit(f"https://localhost:{port}"))
    assert refused.state == "failed"
    assert refused.found.startswith("the certificate of localhost was refused: ")
    assert "SSL_CERT_FILE" in refused.advice
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with tls(authority) as port:
        trusted = _diagnosis.check_tls(urlsplit(f"https://localhost:{port}"))
    assert trusted.state == "ok"
    assert "TLSv1.3, certificate valid until " in trusted.found
    assert "SSL_CERT_FILE" in _diagnosis._advice(CertificateRefused())


@pytest.mark.parametrize(("url", "port"), [("https://a", 443), ("http://a", 80), ("http://a:81", 81)])
def test_ports(url: str, port: int) -> None:
    """The scheme's, unless the URL names one."""
    assert _diagnosis._port(urlsplit(url)) == port


def test_a_proxy(server: Server) -> None:
    """It is told without its password, and the call goes through it."""
    proxy = server.url.replace("http://", "http://user:secret@")
    code, found = examined(server, PHYGITALS_BASE_URL="http://localhost:9/_", HTTP_PROXY=None, http_proxy=proxy)
    assert code == Exit.DONE
    assert list(found)[3:] == ["proxy", "call", "clock"]
    assert found["proxy"]["found"].startswith(f"HTTP_PROXY: {server.url}; ")
    _, around = examined(server, http_proxy=proxy, no_proxy="127.0.0.1")
    assert around["proxy"]["found"] == "none"


def test_a_proxy_that_is_gone(server: Server) -> None:
    """It says what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code, found = examined(server, http_proxy=f"http://127.0.0.1:{port}")
    assert code == Exit.FAILED
    assert "NO_PROXY" in found["call"]["advice"]
    assert "clock" not in found


def test_versions_that_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are no *.dist-info: vendored, or in an executable."""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    assert "(unknown)" not in _diagnosis.check_versions().found
    monkeypatch.setattr(metadata, "version", missing)
    assert "aiohttp (unknown)" in _diagnosis.check_versions().found


# sandbox


def test_the_sandbox_is_a_command(server: Server) -> None:
    """It serves, as one line of JSON says, and Ctrl-C is how it is meant to end."""
    process = server.process("sandbox", "--port", "0", "--users", "3", "--json")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["users"] == ["user_000000", "user_000002"]
    asked = server.run("inventory", "user_000000", "--json", PHYGITALS_BASE_URL=told["base_url"])
    assert asked.exit_code == Exit.DONE
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_help_and_errors_of_the_sandbox_have_its_name() -> None:
    """As the command is called."""
    shown = CliRunner().invoke(app, ["sandbox", "--help"])
    assert shown.exit_code == 0
    assert shown.stdout.startswith("usage: phygitals sandbox ")
    wrong = CliRunner().invoke(app, ["sandbox", "--port", "x"])
    assert wrong.exit_code == Exit.USAGE
    assert wrong.stderr == "phygitals sandbox: argument --port: invalid port value: 'x'. See phygitals sandbox --help\n"

"""The recipes of docs/scale.md do what it says of them: the programs that a scheduler would start, against a sandbox.

Of SAQ the queue is left out, which needs a server of Redis, and of Airflow all but what the recipe names
(tests/stand_ins): what they would call and run is called and run here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template

from cli_support import Server, served
from phygitals_async import AuthenticationError, Response
from support import ROOT

TEXT = (ROOT / "docs" / "scale.md").read_text()
CRON = re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)[0]
AIRFLOW, SAQ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
USERS = ("ann", "bob")


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve a sandbox in which each user has a card."""
    with served() as server:
        for user in USERS:
            server.item(user)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return what stands for /srv, with the file of users in it."""
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in USERS))
    return tmp_path


def _module(program: str, folder: Path, **replaced: str) -> types.ModuleType:
    """Return a recipe as a module, with the paths of this machine."""
    for text, other in {"/srv/": f"{folder}/", **replaced}.items():
        assert text in program
        program = program.replace(text, other)
    module = types.ModuleType("recipe")
    exec(compile(program, "docs/scale.md", "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - our own document.
    return module


def _run(command: str, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, with the variables that the recipes tell of."""
    (folder / "phygitals").write_text(f'#!/bin/sh\nexec {sys.executable} -m phygitals_async "$@"\n')
    (folder / "phygitals").chmod(0o755)
    environment = {
        **os.environ,
        **server.environment(),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PHYGITALS_STORE": str(folder / "users.db"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False)


def test_cron(server: Server, folder: Path) -> None:
    """The second time in a night asks nobody again."""
    (line,) = (line for line in CRON.splitlines() if "refresh" in line)
    command = re.sub(r"^(\S+ +){5}", "", line).replace("\\%", "%")
    command = command.replace("/srv/", f"{folder}/").replace("/var/log/", f"{folder}/")
    command = command.replace("$(date +%F)", "2026-04-18")
    for _ in range(2):
        done = _run(command, server, folder)
        assert done.returncode == 0, done.stderr
    first, second = map(json.loads, (folder / "phygitals.log").read_text().splitlines())
    assert (first["asked"], second["asked"]) == (2, 0)
    assert first["name"] == second["name"] == "night-2026-04-18"


def test_airflow(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tasks run, one after the other; where a lookup fails, the first one has a status that is tried again."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "stand_ins"))
    module = _module(AIRFLOW, folder)
    refresh, export = module.dag.tasks
    assert refresh.downstream == [export]
    assert refresh.retries > 0
    server.replaced["/bob"] = lambda _: Response(400, {}, b'{"error": "not today"}')
    statuses = []
    for task in (refresh, refresh, export):
        assert task.append_env
        done = _run(Template(task.bash_command).render(ds="2026-04-18"), server, folder)
        statuses.append(done.returncode)
        server.replaced.clear()
    assert statuses == [1, 0, 0], done.stderr
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    assert sorted(parquet.read_table(folder / "items-2026-04-18.parquet")["user_id"].to_pylist()) == list(USERS)


@pytest.mark.asyncio
async def test_saq(server: Server, folder: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night that is stopped is tried again, and goes on; the next try has nothing left to do."""
    saq: Any = pytest.importorskip("saq")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    module = _module(SAQ, folder, **{"postgresql://phygitals@database/phygitals": database})

    class Tonight(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Tonight:
            return cls(2026, 4, 18, 2, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Tonight)
    settings = module.settings
    saq.Worker(**settings)  # It knows all of them, and reads the times.
    (job,) = settings["cron_jobs"]
    server.replaced["/bob"] = lambda _: Response(401, {}, b'{"error": "Invalid API key"}')
    ctx: dict[str, Any] = {}
    await settings["startup"](ctx)
    try:
        with pytest.raises(AuthenticationError):
            await job.function(ctx)
        server.replaced.clear()
        assert await job.function(ctx) == {"users": 2, "changes": 2, "failed": 0}
        server.seen.clear()
        assert await job.function(ctx) == {"users": 2, "changes": 2, "failed": 0}
        assert server.seen == []
    finally:
        await settings["shutdown"](ctx)

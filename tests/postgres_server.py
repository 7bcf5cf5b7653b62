"""A PostgreSQL server for tests: the one that `PHYGITALS_TEST_POSTGRES` names, or one started for them."""

from __future__ import annotations

import getpass
import importlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def _program(name: str) -> str | None:
    """Return the path of one of the server's programs, of the newest version there is."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(installed[-1]) if installed else shutil.which(name)


def is_available() -> bool:
    """Whether there is a server, or what starts one."""
    return "PHYGITALS_TEST_POSTGRES" in os.environ or all(map(_program, ("initdb", "pg_ctl")))


@contextmanager
def postgres_server() -> Iterator[str]:
    """Give the address of a server while the block runs."""
    if address := os.environ.get("PHYGITALS_TEST_POSTGRES"):
        yield address
        return
    # Root may not run it.
    user = None if os.getuid() else _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="phygitals-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    name = user or getpass.getuser()
    options: dict[str, Any] = {"user": user, "cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    data = str(folder / "data")
    try:
        subprocess.run([_program("initdb") or "", "-D", data, "-U", name, "-A", "trust", "-N"], **options)
        port = _free_port()
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        command = [_program("pg_ctl") or "", "-D", data]
        subprocess.run([*command, "-w", "-l", str(folder / "log"), "-o", settings, "start"], **options)
        try:
            yield f"postgresql://{name}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*command, "-w", "-m", "immediate", "stop"], **options)
    finally:
        shutil.rmtree(folder)


def _unprivileged() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def execute(address: str, statement: str) -> Any:
    """Execute a statement in a connection of its own, and return the rows."""
    asyncpg: Any = importlib.import_module("asyncpg")
    connection = await asyncpg.connect(address)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()

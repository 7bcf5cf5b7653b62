"""Runs the storefront against a sandbox of its own: `python -m storefront`.

With PHYGITALS_API_KEY set it uses that key instead, and what else the client reads from the environment.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sqlite3
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import uvicorn

from phygitals_async import PhygitalsClient

from .app import create_app
from .deals import Deals
from .own_sandbox import sandbox
from .signing import read_secret


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See --help\n")


def port(text: str) -> int:
    """Read a port; argparse calls it what it is called here."""
    if (number := int(text)) not in range(65536):
        msg = f"must be 0 to 65535, not {text}"
        raise argparse.ArgumentTypeError(msg)
    return number


def main() -> None:
    """Run until Ctrl-C."""
    parser = _Parser(prog="storefront")
    parser.add_argument("--port", type=port, default=8000, help="of the storefront, 0 for any (default: %(default)s)")
    parser.add_argument("--sandbox-port", type=port, default=8765, help="of the sandbox (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the shop keeps its book (default: a temporary one)")
    parser.add_argument("--images", default="https://cdn.phygitals.com", help="origin of pictures, with a key of yours")
    options = parser.parse_args()
    with listen(options.port) as listening, tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        check(folder)
        if "PHYGITALS_API_KEY" in os.environ:
            serve(folder, listening, None, None, options.images)
            return
        with sandbox(options.sandbox_port) as told:
            parts = urlsplit(told["base_url"])
            origin = f"{parts.scheme}://{parts.netloc}"
            print(f"sandbox     {told['base_url']}  (API key {told['api_key']})")
            if "console" in told:
                print(f"console     {told['console']}")
            serve(folder, listening, told["base_url"], told["api_key"], origin)


def listen(number: int) -> socket.socket:
    """Hold the port, before anything is said of it."""
    try:
        return socket.create_server(("127.0.0.1", number))
    except OSError as error:
        raise SystemExit(f"storefront: cannot serve at 127.0.0.1:{number}: {error.strerror}") from None


def check(folder: Path) -> None:
    """See whether the shop's files can be there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        read_secret(folder / "secret")
        Deals(folder / "deals.db").close()
    except (OSError, sqlite3.Error) as error:
        raise SystemExit(f"storefront: the folder {folder} cannot be used: {error}") from None


def serve(folder: Path, listening: socket.socket, base_url: str | None, api_key: str | None, images: str) -> None:
    """Serve the storefront on this machine."""
    app = create_app(
        lambda journal: PhygitalsClient(base_url=base_url, api_key=api_key, journal=journal),
        folder,
        users=("user_000002", "user_000003", "user_000004", "newcomer"),
        images=images,
    )
    print(f"storefront  http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    # Uvicorn ends on SIGTERM by raising it again, and the sandbox has to be ended before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    server.run(sockets=[listening])
    if not server.started:
        # It has logged why.
        sys.exit(1)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()

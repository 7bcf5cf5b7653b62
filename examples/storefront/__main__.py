"""Runs the storefront against a sandbox of its own: `python -m storefront`.

With PHYGITALS_API_KEY set it uses that key instead, and what else the client reads from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from phygitals_async import PhygitalsClient

from .app import create_app


@contextmanager
def sandbox(port: int) -> Iterator[dict[str, str]]:
    """Run a sandbox in a process of its own, and give what it says of itself."""
    command = [sys.executable, "-m", "phygitals_async.sandbox", "--users", "100", "--json", "--port", str(port)]
    # In a session of its own Ctrl-C does not reach it: work under way ends first.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                raise SystemExit("the sandbox did not start; --sandbox-port 0 takes any free port")
            yield json.loads(told)
        finally:
            process.terminate()


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="storefront")
    parser.add_argument("--port", type=int, default=8000, help="of the storefront (default: %(default)s)")
    parser.add_argument("--sandbox-port", type=int, default=8765, help="of the sandbox (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the shop keeps its book (default: a temporary one)")
    parser.add_argument("--images", default="https://cdn.phygitals.com", help="origin of pictures, with a key of yours")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if "PHYGITALS_API_KEY" in os.environ:
            serve(folder, options.port, None, None, options.images)
            return
        with sandbox(options.sandbox_port) as told:
            parts = urlsplit(told["base_url"])
            origin = f"{parts.scheme}://{parts.netloc}"
            print(f"sandbox     {told['base_url']}  (API key {told['api_key']})")
            if "console" in told:
                print(f"console     {told['console']}")
            serve(folder, options.port, told["base_url"], told["api_key"], origin)


def serve(folder: Path, port: int, base_url: str | None, api_key: str | None, images: str) -> None:
    """Serve the storefront on this machine."""
    app = create_app(
        lambda journal: PhygitalsClient(base_url=base_url, api_key=api_key, journal=journal),
        folder,
        users=("user_000002", "user_000003", "user_000004", "newcomer"),
        images=images,
    )
    print(f"storefront  http://127.0.0.1:{port}", flush=True)
    # Uvicorn ends on SIGTERM by raising it again, and the sandbox has to be ended before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    uvicorn.run(app, port=port, log_level="warning", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()

"""The sandbox of `python -m storefront`, in a process of its own that ends when the shop's does, however that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from phygitals_async.sandbox.__main__ import main


@contextmanager
def sandbox(port: int) -> Iterator[dict[str, str]]:
    """Run the sandbox, and give what it says of itself."""
    command = [sys.executable, "-m", __name__, "--users", "100", "--json", "--port", str(port)]
    # In a session of its own Ctrl-C does not reach it: work under way ends first.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                raise SystemExit("storefront: the sandbox did not start; --sandbox-port 0 takes any free port")
            yield json.loads(told)
        finally:
            process.terminate()
            # Leaving the block does not wait where Ctrl-C was what ended it.
            process.wait()


def _end_with_the_shop() -> None:
    # The other end of the pipe is the shop's alone: it is closed when that process is gone, killed or not.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_shop, daemon=True).start()
    main(prog="sandbox")

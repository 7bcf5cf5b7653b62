"""What the tests of the command line share: a sandbox served over loopback HTTP, and commands run against it."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from click.testing import CliRunner, Result

from phygitals_async import Item, Request, Response, Sandbox
from phygitals_async.cli._app import app
from phygitals_transports.aiohttp_server import serve
from support import ROOT

KEY = "sandbox-key-for-these-tests"
COMMAND = (sys.executable, "-W", "error", "-m", "phygitals_async")


class Server:
    """A sandbox behind a socket, whose answers a test can change.

    Attributes:
        sandbox: The sandbox.
        url: Its base URL.
        seen: The requests, as method and path.
        replaced: What answers in its place: by the end of a path, a function of the request that may return None to
            leave it to the sandbox.
    """

    def __init__(self) -> None:
        self.sandbox = Sandbox(seed=1)
        self.url = ""
        self.seen: list[str] = []
        self.replaced: dict[str, Callable[[Request], Any]] = {}

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        path = "/" + request.url.partition("/_/api/v1/")[2]
        self.seen.append(f"{request.method} {path}")
        for end, answer in self.replaced.items():
            if path.partition("?")[0].endswith(end):
                given = answer(request)
                response: Response | None = await given if inspect.isawaitable(given) else given
                if response is not None:
                    return response
        return self.sandbox(request)

    def item(self, user_id: str = "ann", *, name: str = "Juan Soto RC Auto /25", price: str = "8.50") -> Item:
        """Give a user a card."""
        from decimal import Decimal

        return self.sandbox.add_item(user_id, name=name, buyback_price=Decimal(price))

    def environment(self) -> dict[str, str]:
        """Return the variables that turn a command to this server."""
        return {"PHYGITALS_API_KEY": KEY, "PHYGITALS_BASE_URL": f"{self.url}/_"}

    def run(self, *arguments: str, answers: str | None = None, **variables: str | None) -> Result:
        """Run a command in this process, and see that it shows no key and no traceback."""
        runner = CliRunner()
        result = runner.invoke(app, arguments, input=answers, env={**self.environment(), **variables})
        assert isinstance(result.exception, SystemExit | None), result.exc_info
        assert KEY not in result.output
        return result

    def process(
        self, *arguments: str, variables: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        """Start a command as a process of its own, in which Ctrl-C does what it usually does."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith("PHYGITALS_")}
        environment = {
            **bare,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **self.environment(),
            **(variables or {}),
        }
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*COMMAND, *arguments], env=environment, text=True, cwd=ROOT, **{**pipes, **more})


@contextmanager
def served() -> Iterator[Server]:
    """Serve a sandbox from a thread."""
    server, ready = Server(), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def run() -> None:
        async with serve(server) as url:
            server.url = url
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def press_ctrl_c() -> None:
    """Interrupt the main thread, from another."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def pressing(server: Server, times: int) -> Callable[[Request], Any]:
    """Act, press Ctrl-C so often, and answer where that was once."""

    async def answer(request: Request) -> Response:
        response = server.sandbox(request)
        for _ in range(times):
            press_ctrl_c()
            # Until it was noticed, a second one would be the same.
            while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # noqa: ASYNC110 - nothing tells when a handler is set.
                await asyncio.sleep(0.01)
        return response

    return answer


def lines(text: str) -> list[list[str]]:
    """Return the columns of each line of a table that is not on a terminal."""
    return [line.split("\t") for line in text.splitlines()]

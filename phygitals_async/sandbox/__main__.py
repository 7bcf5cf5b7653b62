"""Serves a sandbox over HTTP: `phygitals sandbox --port 8765 --users 100`, or `phygitals-sandbox`, or this module."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, NoReturn

from phygitals_async.sandbox.options import RateLimit, SandboxOptions
from phygitals_async.sandbox.population import user_name

_KEY: Final = "sandbox-local"
# So many users take a second or more to make.
_MANY: Final = 500


def main(arguments: Sequence[str] | None = None, *, prog: str = "phygitals-sandbox") -> None:
    """Run the server until SIGINT or SIGTERM.

    Args:
        arguments: By default those of this process.
        prog: What the command is called in its help and its errors.
    """
    # Where signals cannot be handled below, Ctrl-C arrives as this.
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser(prog).parse_args(arguments), prog))


def parser(prog: str = "phygitals-sandbox") -> argparse.ArgumentParser:
    """Return what reads the options."""
    parser = _Parser(prog=prog, description="Serve a sandbox of the Phygitals Partner API over HTTP, on this machine.")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; one that other machines reach asks for a token (default: %(default)s)",
    )
    parser.add_argument("--port", type=port, default=8765, help="port, or 0 for a free one (default: %(default)s)")
    parser.add_argument("--users", type=count, default=0, help="users to start with (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="makes the data repeatable (default: %(default)s)")
    parser.add_argument("--rate-limit", type=rate, help="requests per second to answer (default: no limit)")
    parser.add_argument("--no-retry-after", action="store_true", help="answer 429 without Retry-After")
    parser.add_argument("--strict", action="store_true", help="answer 401 without /_ in the path, as production does")
    parser.add_argument("--json", action="store_true", help="print what it serves as one line of JSON")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and exit with 2."""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help\n")


def port(text: str) -> int:
    """Read a port. Like the two below, argparse calls it what it is called here."""
    if (number := int(text)) not in range(65536):
        msg = f"must be 0 to 65535, not {text}"
        raise argparse.ArgumentTypeError(msg)
    return number


def count(text: str) -> int:
    """Read how many."""
    if (number := int(text)) < 0:
        msg = f"must be at least 0, not {text}"
        raise argparse.ArgumentTypeError(msg)
    return number


def rate(text: str) -> float:
    """Read how many per second."""
    number = float(text)
    try:
        return RateLimit(number).per_second
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def _serve(options: argparse.Namespace, prog: str) -> None:
    # The core names a transport here and in PhygitalsClient's default, both when needed and not before.
    # Much is loaded for it, which `--help` does without.
    from phygitals_async.sandbox.served import ServedSandbox
    from phygitals_async.sandbox.served.gate import is_loopback
    from phygitals_transports.aiohttp_server import serve

    behaviour = SandboxOptions(strict=options.strict)
    if options.rate_limit is not None:
        behaviour.rate_limit = RateLimit(options.rate_limit, retry_after=not options.no_retry_after)
    token = None if is_loopback(options.host) else secrets.token_urlsafe(24)
    if options.users >= _MANY:
        print(f"{prog}: making {options.users:,} users and their items", file=sys.stderr, flush=True)
    sandbox = ServedSandbox(users=options.users, seed=options.seed, options=behaviour, token=token)
    stop = asyncio.Event()
    with suppress(NotImplementedError):  # Windows has loops that handle no signals; Ctrl-C ends them all the same.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(serve(sandbox, host=options.host, port=options.port))
        except (OSError, UnicodeError) as error:
            # The exit status is 1, and this the only line.
            raise SystemExit(f"{prog}: cannot serve at {options.host}:{options.port}: {error}") from None
        _tell(url, token, options)
        await stop.wait()


def _tell(url: str, token: str | None, options: argparse.Namespace) -> None:
    # One that stands for all of this machine's addresses is none to ask at, and clients send no key there over http.
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    users = (user_name(0), user_name(options.users - 1)) if options.users else None
    if options.json:
        told = {
            "base_url": f"{url}/_", "api_key": _KEY, "users": users, "console": f"{url}/_console",
            "admin": f"{url}/_admin", "admin_token": token,
        }  # fmt: skip
        print(json.dumps(told), flush=True)
        return
    print(f"base URL  {url}/_", flush=True)
    print(f"API key   {_KEY} (any key that starts with sandbox-)", flush=True)
    if users is not None:
        print(f"users     {users[0]} to {users[1]}", flush=True)
    print(f"console   {url}/_console" + ("" if token is None else f"?token={token}"), flush=True)
    if token is not None:
        print("admin     X-Admin-Token: the token in the line above (not shown again)", flush=True)
        print("elsewhere only https: put a proxy with TLS before it, or forward the port (ssh -L)", flush=True)
    print("ready", flush=True)


if __name__ == "__main__":
    main()

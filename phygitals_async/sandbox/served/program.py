"""The sandbox's server, as a program: it says where it is, and runs until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
from contextlib import AsyncExitStack, suppress
from typing import Final

from phygitals_async.sandbox.options import RateLimit, SandboxOptions
from phygitals_async.sandbox.population import user_name
from phygitals_async.sandbox.served import ServedSandbox
from phygitals_async.sandbox.served.gate import is_loopback

_KEY: Final = "sandbox-local"
# So many users take a second or more to make.
_MANY: Final = 500


def run(options: argparse.Namespace, prog: str) -> None:
    """Run the server until SIGINT or SIGTERM.

    Args:
        options: What the command line says.
        prog: What the command is called in its errors.
    """
    asyncio.run(_serve(options, prog))


async def _serve(options: argparse.Namespace, prog: str) -> None:
    # The core names a transport here and in PhygitalsClient's default, both when needed and not before.
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

"""Serves a sandbox over HTTP: `phygitals sandbox --port 8765 --users 100`, or `phygitals-sandbox`, or this module."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn


def main(arguments: Sequence[str] | None = None, *, prog: str = "phygitals-sandbox") -> None:
    """Run the server until SIGINT or SIGTERM.

    Args:
        arguments: By default those of this process.
        prog: What the command is called in its help and its errors.
    """
    # Where signals cannot be handled, or not yet, Ctrl-C arrives as this.
    with suppress(KeyboardInterrupt):
        options = parser(prog).parse_args(arguments)
        # Much is loaded for it, which `--help` does without.
        from phygitals_async.sandbox.served.program import run

        run(options, prog)


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
    from phygitals_async.sandbox.options import RateLimit

    number = float(text)
    try:
        return RateLimit(number).per_second
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()

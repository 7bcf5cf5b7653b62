"""The sandbox's server. Its own command line, `phygitals-sandbox`, needs no extra and has all of the options."""

from __future__ import annotations

import re

import click
from click.shell_completion import CompletionItem

from phygitals_async.sandbox import __main__ as server


class _Server(click.Command):
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the options of the server."""
        options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", server.parser().format_help(), re.MULTILINE)
        return [CompletionItem(option) for option in options if option.startswith(incomplete)]


@click.command(cls=_Server, add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sandbox(arguments: tuple[str, ...]) -> None:
    """Serve a sandbox of the API on this machine."""
    server.main(arguments, prog="phygitals sandbox")

"""The script that completes commands in a shell."""

from __future__ import annotations

from typing import cast

import click
from click.shell_completion import ShellComplete, get_completion_class

from phygitals_async.cli._output import json_option, print_json


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def completion(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that completes commands in a shell.

    \b
    bash:  eval "$(phygitals completion bash)"   in ~/.bashrc
    zsh:   eval "$(phygitals completion zsh)"    in ~/.zshrc, after compinit
    fish:  phygitals completion fish > ~/.config/fish/completions/phygitals.fish
    """
    made = cast("type[ShellComplete]", get_completion_class(shell))
    script = made(ctx.find_root().command, {}, "phygitals", "_PHYGITALS_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)

"""The commands by name. A command's module is imported when the command is run, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from phygitals_async.cli._endings import Ending, Exit, go_on_with, say, written
from phygitals_async.version import VERSION

# Each command with the module that has it under its name, and what `--help` says of it in one line.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "packs": ("_browse", "List the packs on offer."),
    "inventory": ("_browse", "Show what users own."),
    "refresh": ("_refresh", "Look users up, and keep what they own and what changed."),
    "changes": ("_changes", "Tell what the runs found changed."),
    "runs": ("_runs", "List the runs of a store, the last one first."),
    "export": ("_export", "Write what the users of a store own, a row for each item."),
    "report": ("_report", "Write a page with charts of what users own and what changed."),
    "order": ("_browse", "Show where a shipping order stands."),
    "purchase": ("_browse", "Wait for a purchase, and show what was pulled."),
    "buy": ("_buy", "Buy pulls of a pack for a user. Moves money."),
    "sell": ("_sell", "Sell items back. Moves money."),
    "ship": ("_ship", "Ship items to an address. Moves goods, and bills you."),
    "reconcile": ("_reconcile", "Look up what became of calls whose outcome is open."),
    "api": ("_api", "Send one GET to the API, and print what it answers."),
    "doctor": ("_doctor", "Find out why calls fail, and what to do."),
    "sandbox": ("_sandbox", "Serve a sandbox of the API on this machine."),
    "completion": ("_completion", "Print the script that completes commands in a shell."),
}


class Commands(click.Group):
    """The commands, each loaded when it is needed, and what becomes of what they raise."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of `--help`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"phygitals_async.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command without loading one, or an option."""
        names = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments; `--help` and `--version` are printed here."""
        with written():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn this library's errors into what `main` tells."""
        from phygitals_async.cli._errors import told

        with written(), told():
            return super().invoke(ctx)

    def main(  # type: ignore[override]  # It never returns.
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run, say in one line what went wrong, and exit."""
        given = tuple(sys.argv[1:] if args is None else args)
        try:
            code = super().main(list(given), prog_name, standalone_mode=False, obj=given, **extra)
        except click.exceptions.NoArgsIsHelpError as bare:
            bare.show()
            code = Exit.USAGE
        except click.ClickException as refused:
            if sentence := _sentence(refused):
                say(sentence)
            code = refused.code if isinstance(refused, Ending) else refused.exit_code
        except click.Abort:
            # What click makes of Ctrl-C, after it has ended the line.
            say(f"interrupted; go on with: {go_on_with(*given)}")
            code = Exit.INTERRUPTED
        sys.exit(code or Exit.DONE)


def _sentence(refused: click.ClickException) -> str:
    message = refused.format_message()
    path = refused.ctx.command_path if isinstance(refused, click.UsageError) and refused.ctx else ""
    return f"{message} See {path} --help" if path else message


app: Final = Commands(
    "phygitals",
    help="The Phygitals Partner API on the command line. The key comes from PHYGITALS_API_KEY.",
    epilog=(
        "Exit status: 0 done, 1 something failed, 2 the command cannot be run like this, 3 the key was refused, "
        "4 interrupted, and the last line says how to go on, 141 nobody read the output any more."
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
click.version_option(VERSION, prog_name="phygitals")(app)

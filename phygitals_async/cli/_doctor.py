"""Why calls fail: what a call needs, looked at piece by piece, with what to do about each."""

from __future__ import annotations

import click

from phygitals_async.cli._client import Connection, connects
from phygitals_async.cli._endings import Exit, plain, say
from phygitals_async.cli._output import json_option, print_json, print_table


@click.command()
@json_option
@connects
def doctor(connection: Connection, as_json: bool) -> int:
    """Find out why calls fail, and what to do.

    It looks at versions, key, environment, proxy, name, TLS, an answer, and the clock. It makes one call, which lists
    the packs. The key is not shown.
    """
    from phygitals_async.cli._diagnosis import examine

    with connection.told():
        found = list(examine(connection))
    findings = [finding for finding, _ in found]
    code = max(status for _, status in found)
    if as_json:
        print_json({"findings": findings, "exit": int(code)})
        return code
    print_table(("", "state", "found"), [(one.name, one.state, one.found) for one in findings])
    for finding in findings:
        if finding.advice:
            click.echo(f"{finding.name}: {plain(finding.advice)}")
    if code is not Exit.DONE:
        say("something is wrong: see above what to do")
    elif any(finding.state != "ok" for finding in findings):
        say("calls work, but see the warning above")
    else:
        say("all is well")
    return code

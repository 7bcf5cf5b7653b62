"""One GET, as it is, with the key, the deadline and the refusals of every other call."""

from __future__ import annotations

import re
from typing import Any, cast

import click

from phygitals_async.cli._client import Connection, connects
from phygitals_async.cli._output import json_option, on_terminal


def _only_get(ctx: click.Context, _: click.Parameter, method: str) -> str:
    if method.upper() == "GET":
        return "GET"
    if "/" in method:
        msg = f"the method comes before the path: phygitals api GET {method}."
    else:
        msg = f"only GET is sent, not {method}: buy, sell and ship do what moves money or goods, and ask first."
    raise click.UsageError(msg, ctx)


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return ["GET"] if "GET".startswith(incomplete.upper()) else []


@click.command()
@click.argument("method", metavar="GET", callback=_only_get, shell_complete=_complete)
@click.argument("path")
@json_option
@connects
def api(connection: Connection, method: str, path: str, as_json: bool) -> None:
    """Send one GET to the API, and print what it answers.

    PATH is what follows /api/v1, percent-encoded, such as /vm/available?platform=mainnet. On a terminal the answer is
    indented; with --json, and elsewhere, it is printed as it came.
    """
    checked = _checked(path)
    key = connection.settings().api_key
    import asyncio

    import msgspec

    from phygitals_async._api_key import mask_key

    body = asyncio.run(_get(connection, checked))
    shown = msgspec.json.format(body, indent=2) if on_terminal() and not as_json else body
    click.echo(mask_key(key, shown.decode()))


def _checked(path: str) -> str:
    """Return a path that stays below the API's, whatever is between here and there."""
    place = path.partition("?")[0]
    segments = place.split("/")[1:]
    decoded = {re.sub("%2e", ".", segment, flags=re.IGNORECASE) for segment in segments}
    if not place.startswith("/") or decoded & {"", ".", ".."} or not re.fullmatch(r"[!-~]+", path):
        msg = "the path must begin with / and be percent-encoded, without empty, '.' or '..' segments."
    elif re.search(r"[{}#\\]", path):
        msg = "the path must not hold a fragment, braces or backslashes: percent-encode them."
    else:
        return path
    raise click.UsageError(msg)


async def _get(connection: Connection, path: str) -> bytes:
    from phygitals_async import PhygitalsClient, build_converter
    from phygitals_async._api.operation import Operation
    from phygitals_async._calls.exchange import call
    from phygitals_async.cli._transport import Remembering, transport

    # As errors name it; what a query holds may be anything.
    name = f"GET {path.partition('?')[0]}"
    operation = Operation[Any](name=name, method="GET", path=path, answer=object)
    converter = build_converter()
    # Any JSON will do; it is printed from its bytes.
    converter.register_structure_hook_func(lambda cls: cls is object, lambda value, _: value)
    remembering = Remembering(transport())
    with connection.told():
        async with PhygitalsClient(remembering, **connection.arguments(), converter=converter) as client:
            await call(client._engine, operation, None)  # noqa: SLF001 - no method of the client takes a path.
    return cast("bytes", remembering.last and remembering.last.body)

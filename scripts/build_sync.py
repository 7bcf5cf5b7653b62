"""Writes phygitals_async/sync.py from the async client: `python scripts/build_sync.py`.

Nothing of the client is typed here a second time: signatures and docstrings are the async client's, and each method
does no more than to call its counterpart.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from phygitals_async import client

TARGET: Final = Path(__file__).parent.parent / "phygitals_async" / "sync.py"
_WIDTH: Final = 120
# These are written by hand, in `_sync/door.py`.
_BY_HAND: Final = ("aclose", "call_with_response")
_HEAD: Final = '''\
"""The client for programs without an event loop: scripts, and web frameworks that are not async.

Written by `python scripts/build_sync.py`: change the async client instead, and run it.
"""

from __future__ import annotations

{imports}

__all__ = ["FanOut", "PhygitalsClient"]


@public
class PhygitalsClient(Door):
    """The sync client: what `phygitals_async.PhygitalsClient` does, for threads that wait for it.

    Use it as a context manager, or call `close()`. One client serves any number of threads at once: its calls run in
    one event loop, in a thread that starts with the first of them and ends with `close()`. After a fork the child's
    first call starts its own; bulk runs and iterators belong to the process that made them. Observers, converters and
    transports run in that thread, and cannot use the client.

    Ctrl-C cancels the call that is waited for, and is raised once it has ended. Where the call moves money or goods,
    the `KeyboardInterrupt` has a note that says so, or the `OutcomeUnknown` as its cause. Neither is there if it comes
    in the instant in which a result is being returned: that result is lost, so without a note, too, find out.

{docstring}
    """

'''
# What docstrings say of event loops, as it is without.
_SPOKEN: Final = {
    "async with ": "with ",
    "async for ": "for ",
    "Any iterable or async iterable": "Any iterable",
    ", cancellation included,": "",
}


def render() -> str:
    """Return the text of the file."""
    source = ast.parse(inspect.getsource(client))
    (cls,) = (node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "PhygitalsClient")
    docstring = ast.get_docstring(cls) or ""
    methods = [_constructor(cls), *(_method(node) for node in _public(cls))]
    body = "\n".join(methods)
    head = _HEAD.format(
        docstring=textwrap.indent(_speak(docstring.partition("\n\n")[2].partition("\n\n")[2]), "    "),
        imports=_imports(source, body),
    )
    # A line that is indented only.
    return re.sub(r"(?m)^ +$", "", head + body)


def _public(cls: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    methods = (node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return (node for node in methods if not node.name.startswith("_") and node.name not in _BY_HAND)


def _constructor(cls: ast.ClassDef) -> str:
    (init,) = (node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    passed = [_passed(arg, by_name=by_name) for arg, by_name in _arguments(init)]
    made = _fit("client.PhygitalsClient(", passed, ")", 12)
    return _fit("def __init__(", _parameters(init), ") -> None:", 4) + f"        super().__init__(\n{made}        )\n"


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = ast.unparse(node.returns) if node.returns else ""
    passed = [_passed(arg, by_name=by_name) for arg, by_name in _arguments(node)]
    counterpart = f"self._api.{node.name}"
    if isinstance(node, ast.AsyncFunctionDef):
        work = _fit("return self._call(", [counterpart, *passed], ")", 8)
    elif returns.startswith("FanOut["):
        # What a bulk run reads, it reads by itself.
        keys = node.args.args[1].arg
        work = (
            "        return self._stream(\n"
            + _fit(f"lambda keys: {counterpart}(", ["keys", *passed[1:]], "),", 12)
            + f"            {keys},\n        )\n"
        )
    else:
        work = _fit(f"return self._iterate({counterpart}(", passed, "))", 8)
    text = _speak(ast.get_docstring(node) or "")
    documented = textwrap.indent(f'"""{text}' + ("\n" if "\n" in text else "") + '"""', " " * 8) + "\n"
    signature = _fit(f"def {node.name}(", _parameters(node), f") -> {_annotation(returns)}:", 4)
    return signature + documented + work


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[ast.arg, bool]]:
    """Give each argument, and whether it goes by name."""
    yield from ((arg, False) for arg in node.args.args[1:])
    yield from ((arg, True) for arg in node.args.kwonlyargs)


def _passed(arg: ast.arg, *, by_name: bool) -> str:
    annotation = ast.unparse(arg.annotation) if arg.annotation else ""
    # Not to be read in the loop's thread.
    value = f"own({arg.arg})" if "Iterable[" in annotation else arg.arg
    return f"{arg.arg}={value}" if by_name else value


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    args = node.args
    plain = [None] * (len(args.args) - len(args.defaults)) + list(args.defaults)
    shown = [_parameter(arg, default) for arg, default in zip(args.args, plain, strict=True)]
    named = [_parameter(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return [*shown, *(["*", *named] if named else [])]


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {_annotation(ast.unparse(arg.annotation))}" if arg.annotation else ""
    equals = " = " if annotation else "="
    return f"{arg.arg}{annotation}{equals + ast.unparse(default) if default else ''}".replace("'", '"')


def _annotation(text: str) -> str:
    text = re.sub(r" \| AsyncIterable\[\w+\]", "", text)
    return text.replace("AsyncIterator[", "Iterator[")


def _fit(start: str, parts: list[str], end: str, indent: int) -> str:
    """Return a call or a signature as the formatter breaks it."""
    space = " " * indent
    for lines in (
        [f"{space}{start}{', '.join(parts)}{end}"],
        [f"{space}{start}", f"{space}    {', '.join(parts)}", f"{space}{end}"],
    ):
        if all(len(line) <= _WIDTH for line in lines):
            return "\n".join(lines) + "\n"
    return "\n".join([f"{space}{start}", *(f"{space}    {part}," for part in parts), f"{space}{end}"]) + "\n"


def _speak(text: str) -> str:
    for said, meant in _SPOKEN.items():
        text = text.replace(said, meant)
    return text


def _imports(source: ast.Module, body: str) -> str:
    """Return the imports of the async client that are needed here too, and those of what this file is made of."""
    names = {node.id for node in ast.walk(ast.parse(f"class _:\n{body}")) if isinstance(node, ast.Name)}
    own = {
        "phygitals_async": ["client"],
        "phygitals_async._public": ["public"],
        "phygitals_async._sync.door": ["Door", *(["own"] if "own" in names else [])],
        "phygitals_async._sync.streams": ["FanOut"],
        "collections.abc": ["Iterator"],
    }
    for node in source.body:
        if isinstance(node, ast.ImportFrom):
            used = {alias.name for alias in node.names} & names - {"FanOut", "public"}
            own[node.module or ""] = sorted({*own.get(node.module or "", []), *used})
    del own["__future__"]
    lines = {module: _import(module, sorted(names, key=_rank)) for module, names in own.items() if names}
    groups = {True: "", False: ""}
    for module in sorted(lines):
        groups[module.partition(".")[0] in sys.stdlib_module_names] += lines[module] + "\n"
    return f"{groups[True]}\n{groups[False]}".rstrip()


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= _WIDTH else "\n".join([f"from {module} import (", *(f"    {n}," for n in names), ")"])


def _rank(name: str) -> tuple[int, str]:
    """Sort constants first, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


if __name__ == "__main__":
    TARGET.write_text(render())

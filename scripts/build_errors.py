"""Writes docs/errors.md from the classes of phygitals_async/errors.py: `python scripts/build_errors.py`.

A test holds the one against the other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from phygitals_async import errors
from phygitals_async._api.operation import Effect
from phygitals_async._calls.verdicts import judge
from phygitals_async.errors import PhygitalsError, Sent, ServerError, StatusError, StoreError, TransportError

TARGET: Final = Path(__file__).parent.parent / "docs" / "errors.md"
_SENT: Final = {
    Sent.NEVER: "Nothing was sent",
    Sent.YES: "The request was sent",
    Sent.UNKNOWN: "Whether the request was sent is unknown, unless `sent` says more",
}
_HEAD: Final = """\
<!-- Written by scripts/build_errors.py from phygitals_async/errors.py. -->

# Errors, and what to do

Everything a call raises on purpose is a `PhygitalsError`. Each has the `operation`, its `arguments`, the `attempts`
made, and whether the last of them was `sent`; [the reference](reference/errors.md) has the attributes of each class. A
class is also all that it stands below: `except BadRequest` catches an `OutOfStock`.

```
{tree}
```

*API sheet, 2.9* and numbers like it name sections of [the API sheet](api-sheet.md).
"""


def render() -> str:
    """Return the text of the file."""
    tree = inspect.cleandoc((errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0])
    return _HEAD.format(tree=tree) + "".join(_section(cls, level) for cls, level in _classes(PhygitalsError, 2))


def _classes(cls: type[PhygitalsError], level: int) -> Iterator[tuple[type[PhygitalsError], int]]:
    """Yield `cls` and all that stand below it, in the order of the source, with the level of the heading."""
    yield cls, level
    for one in cls.__subclasses__():
        if one.__module__ == errors.__name__:
            yield from _classes(one, level if cls is PhygitalsError else 3)


def _section(cls: type[PhygitalsError], level: int) -> str:
    doc = (inspect.getdoc(cls) or "").replace("What to do:", "**What to do:**")
    # The reference has the attributes.
    kept = [part for part in doc.split("\n\n") if not part.startswith("Attributes:")]
    if cls is not PhygitalsError:
        kept.append(_facts(cls))
    return "\n" + "\n\n".join([f"{'#' * level} {cls.__name__}", *kept]) + "\n"


def _facts(cls: type[PhygitalsError]) -> str:
    """Return one line that the code knows to be true."""
    error = cls(status=503) if issubclass(cls, ServerError) else cls()
    facts = ["A " + " and a ".join(f"`{base.__name__}`" for base in cls.__bases__)]
    if not issubclass(cls, StoreError):
        facts.append(_SENT[error.sent])
    if issubclass(cls, TransportError | StatusError):
        repeats = judge(error, Effect.READS).may_repeat
        facts.append("A read is repeated a few times" if repeats else "Nothing is repeated")
    return ". ".join(facts) + "."


if __name__ == "__main__":
    TARGET.write_text(render())

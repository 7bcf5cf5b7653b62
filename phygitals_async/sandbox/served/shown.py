"""How the console writes things, and reads what its forms send."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

# What the page says after a form.
DONE: Final[Mapping[str, str]] = {
    "set_clock": "The clock was changed.",
    "set_options": "The options were changed.",
    "reset_options": "The options are those of the start again.",
    "add_fault": "The fault is armed.",
    "remove_fault": "The fault was removed.",
    "remove_faults": "All faults were removed.",
    "take_snapshot": "The snapshot was taken.",
    "restore_snapshot": "All is as it was in the snapshot.",
    "remove_snapshot": "The snapshot was removed.",
    "clear_requests": "The log is empty.",
    "wipe": "Users, purchases, quotes and orders are forgotten.",
    "seed": "The users were added.",
    "add_user": "The user is known.",
    "add_item": "The card was added.",
}


def usd(amount: Decimal | float) -> str:
    """Write an amount."""
    return f"${amount:,.2f}"


def moment(at: datetime) -> str:
    """Write a time, UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S")


def clock(at: datetime) -> str:
    """Write the time of a day, UTC."""
    return at.strftime("%H:%M:%S")


def lasting(time: timedelta) -> str:
    """Write how long something is."""
    minutes = int(time.total_seconds()) // 60
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def percent(share: Decimal | None) -> str:
    """Write a fraction."""
    return "" if share is None else f"{float(share * 100):g} %"


def segment(text: str) -> str:
    """Write a text as one part of a path."""
    return quote(text, safe="")


FILTERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "usd": usd,
    "moment": moment,
    "clock": clock,
    "lasting": lasting,
    "percent": percent,
    "segment": segment,
}


def changed(sent: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a form without those that are still as they were shown.

    What was shown comes along as `was:name`. The parts of an object stay together.
    """
    shown = {name.removeprefix("was:"): text for name, text in sent.items() if name.startswith("was:")}
    touched = {name.partition(".")[0] for name, text in sent.items() if shown.get(name) != text}
    return {
        name: text for name, text in sent.items() if name.partition(".")[0] in touched and not name.startswith("was:")
    }


def nested(sent: Mapping[str, str]) -> dict[str, Any]:
    """Read the fields of a form as the JSON that a route takes.

    An empty field is null. `name[]` is a list whose members stand apart by spaces or commas; `name.part` is a part of
    an object, which is null as a whole where its first part is empty, and has no other part that is.
    """
    plain: dict[str, Any] = {}
    for name, text in sent.items():
        whole, _, part = name.partition(".")
        if name.endswith("[]"):
            plain[name[:-2]] = re.findall(r"[^\s,]+", text) or None
        elif not part:
            plain[name] = text or None
        elif whole not in plain:
            plain[whole] = {part: text} if text else None
        elif text and isinstance(plain[whole], dict):
            plain[whole][part] = text
    return plain

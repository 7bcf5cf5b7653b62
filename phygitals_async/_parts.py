"""What a client may be put together of."""

from __future__ import annotations

from phygitals_async._calls.retry import RetryPolicy
from phygitals_async._structuring.converter import PhygitalsConverter
from phygitals_async.clock import SkippingClock
from phygitals_async.errors import ConfigurationError


def check_parts(
    transport: object, retry: object, converter: object, on_unreadable: object, journal: object, clock: object
) -> None:
    """Refuse what would otherwise fail at the first call, perhaps after money has moved.

    Raises:
        ConfigurationError: One of them is not what it should be. The text says what is usually meant.
    """
    if not isinstance(transport, str | None) and not _is_transport(transport):
        msg = f"transport must be a Transport, not {_kind(transport)}; {_meant(transport)}"
    elif retry is not None and not isinstance(retry, RetryPolicy):
        msg = f"retry must be a RetryPolicy, not {_kind(retry)}"
    elif converter is not None and not isinstance(converter, PhygitalsConverter):
        msg = f"converter must come from build_converter(), not {_kind(converter)}"
    elif on_unreadable not in ("refuse", "keep"):
        msg = "on_unreadable must be 'refuse' or 'keep'"
    elif journal is not None and not _is_journal(journal):
        msg = f"journal must be a store of phygitals_async.refresh, or another Journal, not {_kind(journal)}"
    elif clock is not None and not isinstance(clock, SkippingClock):
        msg = f"clock must be a SkippingClock, not {_kind(clock)}"
    else:
        return
    raise ConfigurationError(msg)


def _is_transport(value: object) -> bool:
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("send", "aclose"))


def _is_journal(value: object) -> bool:
    return not isinstance(value, type) and all(
        callable(getattr(value, name, None)) for name in ("write_entry", "read_entry", "open_entries", "entry_page")
    )


def _meant(transport: object) -> str:
    if isinstance(transport, type):
        return f"make one of it: {transport.__name__}(...)"
    if callable(transport):
        return f"wrap it: MemoryTransport({type(transport).__name__.lower()})"
    return "the API key goes by name: api_key=..."


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__

"""What each failure means, in one table: nothing else looks at a status or an error class to decide that.

*Never sent* is not concluded here either: the code that would have made the connection says it (`Delivery`), and it
comes in `error.sent`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from phygitals_async._api.operation import Effect
from phygitals_async.errors import (
    BadRequest,
    CertificateRefused,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    PhygitalsError,
    ProtocolError,
    RateLimited,
    RedirectRefused,
    Sent,
    ServerError,
    StatusError,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
    TransportError,
)


@frozen
class Verdict:
    """What may be done about a failure.

    Attributes:
        may_repeat: Whether the same request may be sent again.
        leaves_open: Whether money or goods may have moved.
        may_pass: Whether another time may well go better, so that a poll or a bulk run goes on.
        slows: Whether further calls of the same operation are to be slowed down, and nobody else's.
        is_limit: Whether it says no more than "not so fast": the pace of the operation bounds the repeats then.
    """

    may_repeat: bool
    leaves_open: bool
    may_pass: bool
    slows: bool
    is_limit: bool


class _Failure(enum.Enum):
    NEVER_SENT = enum.auto()  # no connection came to be
    LOST = enum.auto()  # no answer, or one that says nothing of what the API did, 408 of a proxy included
    UNUSABLE = enum.auto()  # an answer that no repeat would make usable, and that does not say no
    UNAVAILABLE = enum.auto()  # 5xx that passes
    LASTING = enum.auto()  # 5xx that stays what it is, however often it is asked
    LIMITED = enum.auto()  # 429
    TOO_EARLY = enum.auto()  # 425: not acted on
    ELSEWHERE = enum.auto()  # 301, 307, 308: asks to send the same to another address; not acted on
    UNDOCUMENTED = enum.auto()  # a 2xx that is not what the API documents, a status of no class, or no word of it
    HELD_UP = enum.auto()  # not sent: what keeps the moments at which it may be sent failed, and may be back soon
    REFUSED = enum.auto()  # the API said no, nothing was attempted, or the server is not to be trusted


# may be repeated: a read, a call that moves money or goods; leaves the outcome open; may pass
_TABLE: Final[Mapping[_Failure, tuple[bool, bool, bool, bool]]] = {
    _Failure.NEVER_SENT: (True, True, False, True),
    _Failure.LOST: (True, False, True, True),
    _Failure.UNUSABLE: (False, False, True, True),
    _Failure.UNAVAILABLE: (True, False, True, True),
    _Failure.LASTING: (False, False, True, True),
    _Failure.LIMITED: (True, False, False, True),
    _Failure.TOO_EARLY: (True, False, False, True),
    _Failure.ELSEWHERE: (False, False, False, True),
    _Failure.UNDOCUMENTED: (False, False, True, False),
    _Failure.HELD_UP: (False, False, False, True),
    _Failure.REFUSED: (False, False, False, False),
}

# 501 and 505 stay what they are.
_PASSING: Final = frozenset({500, 502, 503, 504, *range(520, 531)})
# The others may be what a server says once it has acted, 303 above all.
_ASKS_ELSEWHERE: Final = frozenset({301, 307, 308})


def judge(error: PhygitalsError, effect: Effect) -> Verdict:
    """Return what may be done about `error`, which an attempt at a call with `effect` ended with."""
    failure = _failure(error)
    read, irreversible, leaves_open, may_pass = _TABLE[failure]
    return Verdict(
        may_repeat=irreversible if effect.is_irreversible else read,
        leaves_open=leaves_open and effect.is_irreversible,
        may_pass=may_pass,
        slows=failure is _Failure.LIMITED or (isinstance(error, ServerError) and error.retry_after is not None),
        is_limit=failure is _Failure.LIMITED,
    )


def _failure(error: PhygitalsError) -> _Failure:
    if isinstance(error, TransportError):
        return _failed_exchange(error)
    if isinstance(error, StatusError):
        return _failed_status(error)
    if isinstance(error, StoreBusy | StoreFull | StoreUnavailable):
        return _Failure.HELD_UP if error.sent is Sent.NEVER else _Failure.UNUSABLE
    # Whatever else a transport or a wrapper of one raises says no only as long as nothing has left.
    return _Failure.REFUSED if error.sent is Sent.NEVER else _Failure.UNDOCUMENTED


def _failed_exchange(error: TransportError) -> _Failure:
    if error.sent is Sent.NEVER:
        return _Failure.REFUSED if isinstance(error, CertificateRefused) else _Failure.NEVER_SENT
    if isinstance(error, RedirectRefused) and error.status in _ASKS_ELSEWHERE:
        return _Failure.ELSEWHERE
    if isinstance(error, ConnectError | ConnectionLost | DeadlineExceeded | ProtocolError):
        return _Failure.LOST
    return _Failure.UNUSABLE


def _failed_status(error: StatusError) -> _Failure:
    status, cls = error.status, type(error)
    if cls is ServerError:
        return _Failure.UNAVAILABLE if status in _PASSING else _Failure.LASTING
    if cls is RateLimited:
        return _Failure.LIMITED
    if cls is BadRequest and status == 408:
        return _Failure.LOST
    if cls is BadRequest and status == 425:
        return _Failure.TOO_EARLY
    return _Failure.UNDOCUMENTED if cls is StatusError else _Failure.REFUSED


def asked_pause(error: PhygitalsError) -> float | None:
    """Return the seconds that the server asked to wait, if it did."""
    return error.retry_after if isinstance(error, StatusError) else None

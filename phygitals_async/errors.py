"""Every error that a call raises on purpose.

    PhygitalsError
    ├── ConfigurationError (ValueError)      refused before anything was sent: a setting
    ├── InvalidArgumentError (ValueError)    refused before anything was sent: an argument
    ├── ClientClosed                         refused before anything was sent: aclose() was called
    ├── NotOwned                             refused before it was sent: the items are not the owner's
    ├── NotAttempted                         a bulk run ended before this key's turn
    ├── OutcomeUnknown                       a call that moves money or goods: nobody knows whether it did
    ├── PurchasePending (TimeoutError)       a purchase was still pending when waiting for it ended
    ├── StoreError                           a store of refreshed users, or of a journal, could not be used
    │   ├── StoreBusy                        another run is under way on it
    │   ├── StoreCorrupt
    │   ├── StoreFull
    │   ├── StoreTooNew                      a newer version of this library wrote it
    │   └── StoreUnavailable
    ├── TransportError                       no usable answer
    │   ├── ConnectError                     never sent
    │   │   └── CertificateRefused
    │   ├── ConnectionLost
    │   ├── DeadlineExceeded (TimeoutError)
    │   ├── ProtocolError
    │   ├── RedirectRefused
    │   └── ResponseTooLarge
    ├── StatusError                          an answer that says no
    │   ├── BadRequest                       400, and any 4xx without a class of its own
    │   │   ├── AddressRejected
    │   │   ├── AmountOutOfRange
    │   │   ├── CountryNotSupported
    │   │   ├── ItemAlreadyShipped
    │   │   ├── ItemExpired
    │   │   ├── ItemNotFound
    │   │   ├── MissingField
    │   │   ├── NothingShippable
    │   │   ├── OutOfStock
    │   │   ├── PackNotFound
    │   │   └── QuoteExpired
    │   ├── AuthenticationError              401
    │   ├── PermissionDenied                 403
    │   ├── NotFound                         404
    │   │   ├── CardNotFound
    │   │   ├── OrderNotFound
    │   │   └── UserNotFound
    │   ├── RateLimited                      429
    │   ├── SellbackInProgress               400 or 429
    │   ├── ServerError                      5xx
    │   ├── ShippingRequestFailed            any status
    │   └── TransactionFailed                400, or inside a 2xx
    └── DecodeError                          a 2xx that is not what the API documents

Every error pickles, keeps plain values only, and never holds another library's exception object, since
some of those print request headers.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any

from phygitals_async.models.shipping import Destination


class Sent(enum.Enum):
    """Whether the request that failed reached the server: never for certain, yes since an answer came, or unknown.

    Compare with `is`: as a condition, every one of them is true.
    """

    NEVER = "never sent"
    YES = "sent"
    UNKNOWN = "unknown whether it was sent"


class PhygitalsError(Exception):
    """The root of every error raised on purpose by this library.

    What to do: catch it where you tell somebody; `operation`, `attempts` and `sent` say how far the call came, and
    `to_dict()` is for logs.

    Attributes:
        operation: The client method that was being attempted, such as `get_inventory`; None outside a call.
        arguments: What it was called with, by name. Not part of the text: a destination is personal data.
        attempts: How many times a request was handed to the transport.
        sent: Whether the last of them reached the server.
    """

    sent: Sent = Sent.NEVER

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.operation: str | None = None
        self.arguments: Mapping[str, Any] = {}
        self.attempts: int = 0

    def describe(self, operation: str, arguments: Mapping[str, Any], attempts: int) -> None:
        """Tell the error what was being attempted."""
        self.operation, self.arguments, self.attempts = operation, arguments, attempts

    @property
    def text(self) -> str:
        """What went wrong, without the operation."""
        return super().__str__()

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values, for logs, queues and answers to a client of yours.

        Six are those of every error: `class` is its name, `operation` the client method or None, `status` the HTTP
        status or None, `message` its text, `sent` is `never`, `yes` or `unknown`, and `attempts` a number. Where the
        error has them, there are also `retry_after`, in seconds; `session_id`, to wait for a purchase with; and
        `suggestion`, an address, and so personal data. The arguments are not in it, and neither is the API key.
        """
        return {
            "class": type(self).__name__,
            "operation": self.operation,
            "status": getattr(self, "status", None),
            "message": self.text,
            "sent": self.sent.name.lower(),
            "attempts": self.attempts,
        }

    def __str__(self) -> str:
        return f"{self.operation}: {self.text}" if self.operation else self.text


class ConfigurationError(PhygitalsError, ValueError):
    """A setting was refused before anything was sent. The message never contains the API key.

    What to do: put the setting right that the text names. `phygitals doctor` finds out more.
    """


class InvalidArgumentError(PhygitalsError, ValueError):
    """An argument of a call was refused before anything was sent.

    What to do: correct the argument that the text names. A country, for one, is a code of two letters.
    """


class ClientClosed(PhygitalsError):
    """The client or its transport was closed before this call.

    What to do: keep one client open for as long as the application runs, and end your own tasks before you close it.
    """


class NotAttempted(PhygitalsError):
    """A bulk run ended, on an error that no further call could escape, before this key was tried.

    Its `__cause__` is the error that ended the run.

    What to do: put right what the `__cause__` tells, then look the key up again.
    """


class NotOwned(PhygitalsError):
    """The inventory of the user named as `owner` does not show the items, so nothing was done with them.

    Where the API does not know the user, its `UserNotFound` is the `__cause__`.

    What to do: refuse what was asked, and show the user their inventory as it is now.

    Attributes:
        owner: The user.
        item_ids: The items that are not theirs; perhaps sold, locked in an order, or never known.
    """

    def __init__(self, message: str = "", *, owner: str = "", item_ids: Sequence[str] = ()) -> None:
        self.owner = owner
        self.item_ids = tuple(item_ids)
        shown = ", ".join(map(repr, self.item_ids[:3])) + (", ..." if len(self.item_ids) > 3 else "")
        super().__init__(message or f"nothing was sent: {owner!r} does not own {shown}")


class OutcomeUnknown(PhygitalsError):
    """Money or goods may have moved, and the answer that would tell was lost, broken, or a server error.

    Nothing was repeated, and the call must not simply be made again.

    What to do: find out first. `phygitals_async.journal.reconcile` does it for the calls of a journal.

    - `start_purchase`: with a `session_id` in `readable`, go on with `wait_for_purchase`. Else compare the user's
      inventory from before the call with one from after it, with `diff_inventories(before, after)`. Items added with
      this pack's `claw_id` mean that it was bought. No endpoint lists purchases, so this is the only way; production
      may take a while to show the items.
    - `sell_back`: read the inventory of the item's owner. If the item is still there, it was not sold. If it is gone,
      it was; the amount paid is lost unless it is in `readable`. A second `sell_back` cannot pay twice, but cannot tell
      either: its `ItemNotFound` means sold, locked in an order, or never known.
    - `request_shipping`: read the inventory. If the items are still there, no order was made. If they are gone, one
      was, and its `order_id` is lost unless it is in `readable`: no endpoint lists orders, so ask the vendor.

    A call that is cancelled, by `asyncio.timeout` for one, raises the cancellation and not this error: give it a
    `deadline` instead, and let no request of a browser end it.

    Attributes:
        readable: What could be read of a 2xx answer that is otherwise not what the API documents: `session_id`,
            `order_id` or `amount`. Empty where there was none.

    `__cause__` is the error behind it (`ConnectionLost`, `DeadlineExceeded`, `ServerError`, `DecodeError`, ...), and
    `arguments` holds what the call was made with.
    """

    def __init__(
        self, message: str = "", *, readable: Mapping[str, Any] | None = None, sent: Sent = Sent.UNKNOWN
    ) -> None:
        super().__init__(message)
        self.readable: Mapping[str, Any] = readable or {}
        self.sent = sent

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values; with the `session_id` where it could be read."""
        session_id = self.readable.get("session_id")
        return super().to_dict() | ({} if session_id is None else {"session_id": session_id})


class PurchasePending(PhygitalsError, TimeoutError):
    """Waiting for a purchase ended while it was still pending, or while nothing could be learned of it.

    It is unknown, not failed: go on with `wait_for_purchase(error.session_id)`. `__cause__` is the last
    error of polling, if the last poll had one; `attempts` counts the polls.

    What to do: tell the user that the purchase is under way, go on waiting, and do not buy again.

    Attributes:
        session_id: The purchase session to resume with.
    """

    sent = Sent.YES

    def __init__(self, message: str = "", *, session_id: str = "") -> None:
        super().__init__(message)
        self.session_id = session_id

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values; with the `session_id`."""
        return super().to_dict() | {"session_id": self.session_id}


class StoreError(PhygitalsError):
    """A store could not be read or written. What was committed before is kept, and a refresh can be run again.

    What to do: what the class says, then run again.
    """


class StoreBusy(StoreError):
    """Another run is under way on the store, in this process or another.

    What to do: wait for its end. Nothing was changed.
    """


class StoreCorrupt(StoreError):
    """It is no store, or a damaged one.

    What to do: restore a copy, or refresh into a new one.
    """


class StoreFull(StoreError):
    """The disk is full.

    What to do: make room and run again: the run goes on where it was.
    """


class StoreTooNew(StoreError):
    """A newer version of this library wrote the store.

    What to do: update the library. Nothing was changed.
    """


class StoreUnavailable(StoreError):
    """The store cannot be reached, opened or written: no such folder, no permission, the database is gone.

    What to do: put the path, the permission or the database right, and run again.
    """


class TransportError(PhygitalsError):
    """No usable answer came back.

    What to do: try again later, in a bulk run's case with the keys that failed. The class says more.
    """

    sent = Sent.UNKNOWN


class ConnectError(TransportError):
    """No connection could be made: name lookup, refusal, TLS or proxy. The request was certainly not sent.

    What to do: look at the name, the proxy and the firewall, or let `phygitals doctor` do it; else try again later.
    """

    sent = Sent.NEVER


class CertificateRefused(ConnectError):
    """The server's TLS certificate was refused: it is not trusted, has expired, or belongs to another host.

    The text names the host and the reason. It is not repeated, and it ends a poll: somebody has to put it right.

    What to do: look at this machine's clock, and at the authorities it trusts, where a proxy signs certificates of its
    own.
    """


class ConnectionLost(TransportError):
    """The connection broke before the whole answer was read. The server may have acted on the request.

    What to do: make a read again later. A call that moves money or goods raises `OutcomeUnknown` instead.
    """


class DeadlineExceeded(TransportError, TimeoutError):
    """The call's deadline, or the last attempt's own limit, passed.

    The server may have acted on the request, or may yet act, unless `sent` says never: then the time went by while
    waiting for a place among the requests in flight, or for the end of a pause.

    What to do: give more time by `deadline=`, or try again later. Where it was never sent, fewer calls at once help.
    """

    @classmethod
    def after(cls, seconds: float) -> DeadlineExceeded:
        """Return the error for an attempt that was given `seconds`."""
        return cls(f"no answer within {seconds:g} s")

    @classmethod
    def while_waiting(cls, seconds: float, last: PhygitalsError | None) -> DeadlineExceeded:
        """Return the error for a call whose deadline of `seconds` came too close before its next attempt.

        Args:
            seconds: The deadline.
            last: What the attempt before failed with, if there was one.
        """
        if last is None:
            error = cls(f"not sent within {seconds:g} s: waited for the requests in flight, or for a pause to end")
        else:
            error = cls(f"no further attempt within {seconds:g} s; the last one: {last.text}")
        error.sent = Sent.NEVER if last is None else last.sent
        return error


class ProtocolError(TransportError):
    """The bytes that came back are not a well-formed HTTP answer.

    What to do: look for a proxy or a firewall that answers in the server's place; else try again later.
    """


class RedirectRefused(TransportError):
    """The answer was a redirect. It is never followed: it would carry the API key to another origin.

    What to do: correct the base URL, or ask whoever runs the proxy that sends the redirect.

    Attributes:
        status: The 3xx status.
    """

    sent = Sent.YES

    def __init__(self, message: str = "", *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ResponseTooLarge(TransportError):
    """The decoded body is larger than the transport's cap. Reading stopped there.

    What to do: raise the transport's `max_body`, if the answer is one that you want.
    """

    sent = Sent.YES


class StatusError(PhygitalsError):
    """The API answered, and the answer says no.

    What to do: read `status` and `message`. One that is of no class below is documented nowhere: ask the vendor.

    Attributes:
        status: The HTTP status.
        message: The API's own sentence (`error`, else `message`, of the JSON body), or an empty string.
        snippet: The beginning of the body as printable text, at most 200 characters.
        retry_after: Seconds the server asked to wait, or None when it did not say.
    """

    sent = Sent.YES

    def __init__(
        self,
        text: str = "",
        *,
        status: int = 0,
        message: str = "",
        snippet: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text or f"{status} {message or snippet or '(empty body)'}")
        self.status = status
        self.message = message
        self.snippet = snippet
        self.retry_after = retry_after

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values; with `retry_after`, in seconds, where the server said it."""
        seconds = self.retry_after
        # JSON has no infinity, which a server of many digits asks for.
        return super().to_dict() | ({} if seconds is None or seconds == math.inf else {"retry_after": seconds})


class BadRequest(StatusError):
    """400, and any 4xx without a class of its own.

    What to do: read `message`. The same call is refused again, but for a 408 and a 425, which pass.
    """


class AddressRejected(BadRequest):
    """The destination failed the vendor's address validation (API sheet, 2.9).

    What to do: show the `suggestion` and quote it if it is right, or ask for another address.

    Attributes:
        details: The validator's own words.
        suggestion: The corrected destination, merged over the one sent and ready to be quoted; None where the
            vendor had none.
    """

    def __init__(
        self,
        text: str = "",
        *,
        status: int = 400,
        message: str = "",
        snippet: str = "",
        retry_after: float | None = None,
        details: str = "",
        suggestion: Destination | None = None,
    ) -> None:
        super().__init__(text, status=status, message=message, snippet=snippet, retry_after=retry_after)
        self.details = details
        self.suggestion = suggestion

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values; with the parts of the `suggestion`, where there is one."""
        return super().to_dict() | ({} if self.suggestion is None else {"suggestion": dict(self.suggestion.parts())})


class AmountOutOfRange(BadRequest):
    """The number of pulls is below 1 or above the pack's `max_per_mint` (API sheet, 2.5).

    What to do: offer from 1 to `max_per_mint` pulls.
    """


class CountryNotSupported(BadRequest):
    """422: the destination's country is not serviced (API sheet, 2.9).

    What to do: tell the user that nothing is shipped there.
    """


class ItemAlreadyShipped(BadRequest):
    """An item of the quote is already locked in another shipping order (API sheet, 2.10).

    What to do: read the inventory again, and quote the items that are still there.
    """


class ItemExpired(BadRequest):
    """The sellback offer for the item has ended (API sheet, 2.8).

    What to do: tell the user that it can be kept but no longer sold back; `buyback_expires_at` says so in advance.
    """


class ItemNotFound(BadRequest):
    """The API's `Item not found`, whose meaning depends on the operation.

    From `sell_back` it means that the id is unknown, or the item is already sold, locked in a shipping order,
    or not a tracked user's (API sheet, 2.8). From `quote_shipping` it means that an id is unknown or belongs to
    another partner's user (2.9).

    What to do: read the owner's inventory again: what is not there cannot be sold or shipped.
    """


class MissingField(BadRequest):
    """A required field was missing or malformed in the API's eyes (API sheet, 2.5, 2.9, 2.10).

    What to do: read `message` for the field, and give the argument it stands for.
    """


class NothingShippable(BadRequest):
    """None of the items can be shipped (API sheet, 2.9).

    What to do: read the inventory again, and tell the user that these items cannot be shipped.
    """


class OutOfStock(BadRequest):
    """The pack cannot be bought now: disabled, out of stock, or without a card to draw (API sheet, 2.5).

    What to do: list the packs again, and offer one that is `purchasable`.
    """


class PackNotFound(BadRequest):
    """The pack id is unknown. The API says 400 here, not 404 (API sheet, 2.5).

    What to do: list the packs again shortly before buying: an id may change when a pack is restocked (2.1).
    """


class QuoteExpired(BadRequest):
    """The quote is past its expiry, its session unknown, or its rate not part of it (API sheet, 2.10).

    What to do: quote again, show the price, and request soon after.
    """


class AuthenticationError(StatusError):
    """401: the API key is missing or not recognised (API sheet, section 1). It ends a bulk run.

    What to do: compare the key with the one that was issued to you, and its environment with the client's.
    """


class PermissionDenied(StatusError):
    """403. An HTML body with a `cf-ray` header is the edge firewall refusing this machine's address; the vendor's
    partner desk allow-lists addresses (API sheet, section 1).

    What to do: ask the vendor to allow this machine's address; where the body is JSON, read `message`.
    """


class NotFound(StatusError):
    """404.

    What to do: compare the id with the one you stored.
    """


class CardNotFound(NotFound):
    """The id is neither a listing nor a mint address (API sheet, 2.4).

    What to do: compare the id with an item's, and drop it from what you show.
    """


class OrderNotFound(NotFound):
    """The order is unknown, or another partner's (API sheet, 2.11).

    What to do: compare the id with the `order_id` you stored. A sandbox forgets its orders when it is restarted
    (section 4).
    """


class UserNotFound(NotFound):
    """The user is unknown to this partner, which includes a user who never bought (API sheet, 2.7).

    What to do: show an empty inventory: the first purchase makes the user known.
    """


class RateLimited(StatusError):
    """429. All calls of the client have paused because of it.

    What to do: give the client a lower `rate=`, and its share to each process with the same key; or wait for
    `retry_after`.
    """


class SellbackInProgress(StatusError):
    """A sellback of this item is already under way: 400 for an active session, 429 for a concurrent call.

    The 429 is a lock on the item and no rate limit; the vendor allows to try again after a moment. The other call may
    win, and then this one meets `ItemNotFound` (API sheet, 2.8).

    What to do: read the owner's inventory after a moment. If the item is still there, sell it again.
    """


class ServerError(StatusError):
    """5xx.

    What to do: try a read again later. A call that moves money or goods raises `OutcomeUnknown` instead.
    """


class ShippingRequestFailed(StatusError):
    """The reserved answer `{order_id: null, status: "error", error_message}`, a failure whatever its status
    (API sheet, 2.10). `message` is the vendor's `error_message`.

    What to do: read `message` and the inventory. If the items are still there, quote and request again.
    """


class TransactionFailed(StatusError):
    """The API's `Transaction failed`, whose meaning depends on the operation and the environment.

    From `get_purchase` in sandbox it means that the session is unknown, also after a restart of the sandbox; in
    production, that the fulfilment failed (API sheet, 2.6). From `sell_back` it means that the sellback failed (2.8).

    What to do: read the user's inventory before anything is bought or sold again: it shows what happened.
    """


class DecodeError(PhygitalsError):
    """A 2xx answer whose body is not what the API documents.

    What to do: read `problems`, take what is in `partial`, and update the library: the API may have changed. With
    `on_unreadable="keep"` reads go on meanwhile.

    Attributes:
        status: The HTTP status, or None when the converter was used on its own.
        problems: One line for every bad place, as `path: what is wrong`, with `$` for the whole body.
        snippet: The beginning of the body as printable text, at most 200 characters.
        readable: What could be read all the same of the answer to a call that moves money or goods: see
            `OutcomeUnknown`.
        partial: The answer with only the rows that can be read, where it is one of rows and nothing else is wrong with
            it; the others are in its `unreadable`. None for any other answer, for one that repeats the API key, and for
            one of a call that moves money or goods.
    """

    sent = Sent.YES
    _SHOWN = 5

    def __init__(
        self,
        text: str = "",
        *,
        status: int | None = None,
        problems: Sequence[str] = (),
        snippet: str = "",
        readable: Mapping[str, Any] | None = None,
        partial: Any = None,
    ) -> None:
        self.status = status
        self.problems = tuple(problems)
        self.snippet = snippet
        self.readable: Mapping[str, Any] = readable or {}
        self.partial = partial
        super().__init__(text)

    @property
    def summary(self) -> str:
        """What went wrong in a few words, without the places."""
        return super().text

    @property
    def text(self) -> str:
        """What went wrong, with the first bad places and the beginning of the body."""
        shown = "; ".join(self.problems[: self._SHOWN])
        more = len(self.problems) - self._SHOWN
        lines = [self.summary, shown, f"and {more} more" if more > 0 else ""]
        if self.snippet:
            lines.append(f"body: {self.snippet}")
        return "; ".join(filter(None, lines))

"""An asyncio client for the Phygitals Partner API.

Start with `PhygitalsClient`. Transports live in `phygitals_transports`.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from phygitals_async._bulk.fan_out import FanOut, fan_out, fan_out_all
    from phygitals_async._bulk.outcomes import Batch, Failed, Found, Outcome
    from phygitals_async._calls.answers import Answer
    from phygitals_async._calls.retry import RetryPolicy
    from phygitals_async._structuring.converter import PhygitalsConverter, build_converter
    from phygitals_async.client import PhygitalsClient
    from phygitals_async.config import Environment
    from phygitals_async.errors import (
        AddressRejected,
        AmountOutOfRange,
        AuthenticationError,
        BadRequest,
        CardNotFound,
        CertificateRefused,
        ClientClosed,
        ConfigurationError,
        ConnectError,
        ConnectionLost,
        CountryNotSupported,
        DeadlineExceeded,
        DecodeError,
        InvalidArgumentError,
        ItemAlreadyShipped,
        ItemExpired,
        ItemNotFound,
        MissingField,
        NotAttempted,
        NotFound,
        NothingShippable,
        NotOwned,
        OrderNotFound,
        OutcomeUnknown,
        OutOfStock,
        PackNotFound,
        PermissionDenied,
        PhygitalsError,
        ProtocolError,
        PurchasePending,
        QuoteExpired,
        RateLimited,
        RedirectRefused,
        ResponseTooLarge,
        SellbackInProgress,
        Sent,
        ServerError,
        ShippingRequestFailed,
        StatusError,
        StoreBusy,
        StoreCorrupt,
        StoreError,
        StoreFull,
        StoreTooNew,
        StoreUnavailable,
        TransactionFailed,
        TransportError,
        UserNotFound,
    )
    from phygitals_async.inventory_diff import InventoryDiff, Repriced, diff_inventories
    from phygitals_async.models import (
        Attribute,
        Card,
        ChaseCard,
        Content,
        Destination,
        Inventory,
        Item,
        ItemSource,
        Links,
        Metadata,
        OrderItem,
        OrderStatus,
        Pack,
        Pull,
        Purchase,
        PurchasedItem,
        RarityTier,
        Rows,
        Sellback,
        ShippingOrder,
        ShippingQuote,
        ShippingQuotes,
        ShippingRequest,
        StartedPurchase,
        Unreadable,
    )
    from phygitals_async.observer import Attempt, Call, Observer
    from phygitals_async.progress import Progress
    from phygitals_async.sandbox import Sandbox
    from phygitals_async.transport import Request, Response, Transport

    __version__: str

__all__ = [
    "AddressRejected",
    "AmountOutOfRange",
    "Answer",
    "Attempt",
    "Attribute",
    "AuthenticationError",
    "BadRequest",
    "Batch",
    "Call",
    "Card",
    "CardNotFound",
    "CertificateRefused",
    "ChaseCard",
    "ClientClosed",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLost",
    "Content",
    "CountryNotSupported",
    "DeadlineExceeded",
    "DecodeError",
    "Destination",
    "Environment",
    "Failed",
    "FanOut",
    "Found",
    "InvalidArgumentError",
    "Inventory",
    "InventoryDiff",
    "Item",
    "ItemAlreadyShipped",
    "ItemExpired",
    "ItemNotFound",
    "ItemSource",
    "Links",
    "Metadata",
    "MissingField",
    "NotAttempted",
    "NotFound",
    "NotOwned",
    "NothingShippable",
    "Observer",
    "OrderItem",
    "OrderNotFound",
    "OrderStatus",
    "OutOfStock",
    "Outcome",
    "OutcomeUnknown",
    "Pack",
    "PackNotFound",
    "PermissionDenied",
    "PhygitalsClient",
    "PhygitalsConverter",
    "PhygitalsError",
    "Progress",
    "ProtocolError",
    "Pull",
    "Purchase",
    "PurchasePending",
    "PurchasedItem",
    "QuoteExpired",
    "RarityTier",
    "RateLimited",
    "RedirectRefused",
    "Repriced",
    "Request",
    "Response",
    "ResponseTooLarge",
    "RetryPolicy",
    "Rows",
    "Sandbox",
    "Sellback",
    "SellbackInProgress",
    "Sent",
    "ServerError",
    "ShippingOrder",
    "ShippingQuote",
    "ShippingQuotes",
    "ShippingRequest",
    "ShippingRequestFailed",
    "StartedPurchase",
    "StatusError",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreTooNew",
    "StoreUnavailable",
    "TransactionFailed",
    "Transport",
    "TransportError",
    "Unreadable",
    "UserNotFound",
    "build_converter",
    "diff_inventories",
    "fan_out",
    "fan_out_all",
]

# Each public name is loaded when it is first asked for, from the first of these that has it: an application that only
# handles errors needs no converter, and one in production no sandbox. It is the only late import but for transports.
_MODULES: typing.Final = (
    "errors",
    "models",
    "config",
    "transport",
    "progress",
    "observer",
    "inventory_diff",
    "_bulk.outcomes",
    "_calls.retry",
    "_calls.answers",
    "_bulk.fan_out",
    "_structuring.converter",
    "client",
    "sandbox",
)


def _load(name: str) -> typing.Any:
    if name in __all__:
        modules = (importlib.import_module(f"{__name__}.{module}") for module in _MODULES)
        return globals().setdefault(name, next(getattr(module, name) for module in modules if hasattr(module, name)))
    if name == "__version__":
        return importlib.import_module(f"{__name__}.version").VERSION
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


if not typing.TYPE_CHECKING:
    # Type checkers would take every misspelt name for one that it has.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)

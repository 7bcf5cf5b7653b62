"""The job around a bulk refresh: keep what users own, go on after a crash, and say what changed.

Start with `refresh`. A `SqliteStore` keeps a file, a `PostgresStore` serves a team, a `MemoryStore` tests.
"""

import typing

from phygitals_async._late import late

if typing.TYPE_CHECKING:
    from phygitals_async.refresh._budget import Budget
    from phygitals_async.refresh._changes import Change, ChangeKind, read_changes
    from phygitals_async.refresh._export import ExportFormat, export
    from phygitals_async.refresh._memory import MemoryStore
    from phygitals_async.refresh._open import open_store
    from phygitals_async.refresh._postgres import PostgresStore
    from phygitals_async.refresh._refresh import refresh
    from phygitals_async.refresh._report import RefreshReport
    from phygitals_async.refresh._snapshots import read_inventories
    from phygitals_async.refresh._sqlite import SqliteStore
    from phygitals_async.refresh._store import Part, Run, Store, StoredChanges, StoredUser

__all__ = [
    "Budget",
    "Change",
    "ChangeKind",
    "ExportFormat",
    "MemoryStore",
    "Part",
    "PostgresStore",
    "RefreshReport",
    "Run",
    "SqliteStore",
    "Store",
    "StoredChanges",
    "StoredUser",
    "export",
    "open_store",
    "read_changes",
    "read_inventories",
    "refresh",
]

if not typing.TYPE_CHECKING:
    # As in the package above: a name is loaded when it is first asked for, and a store's database with it.
    __getattr__, __dir__ = late(
        __name__,
        {
            "Budget": "_budget",
            "Change": "_changes",
            "ChangeKind": "_changes",
            "ExportFormat": "_export",
            "MemoryStore": "_memory",
            "Part": "_store",
            "PostgresStore": "_postgres",
            "RefreshReport": "_report",
            "Run": "_store",
            "SqliteStore": "_sqlite",
            "Store": "_store",
            "StoredChanges": "_store",
            "StoredUser": "_store",
            "export": "_export",
            "open_store": "_open",
            "read_changes": "_changes",
            "read_inventories": "_snapshots",
            "refresh": "_refresh",
        },
    )

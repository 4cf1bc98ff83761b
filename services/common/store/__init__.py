"""The one place that talks to etcd: a watch cache to read from and grouped transactions to write with.

It knows keys and bytes, and messages only through its caller's key table: no rule of the domain is here.
"""

from services.common.store.entries import Change, Entry
from services.common.store.errors import (
    Compacted,
    Conflict,
    NotLeader,
    Refused,
    StoreError,
    StoreFull,
    StoreStale,
    StoreUnavailable,
    ValueTooLarge,
)
from services.common.store.keys import KeyRow, KeyTable, key, prefix, split_key
from services.common.store.leadership import Leadership
from services.common.store.settings import ProcessInfo, StoreSettings
from services.common.store.store import Store
from services.common.store.tail import RawEvent, Step
from services.common.store.txn import Txn

__all__ = [
    "Change", "Compacted", "Conflict", "Entry", "KeyRow", "KeyTable", "Leadership", "NotLeader", "ProcessInfo",
    "RawEvent", "Refused", "Step", "Store", "StoreError", "StoreFull", "StoreSettings", "StoreStale",
    "StoreUnavailable", "Txn", "ValueTooLarge", "key", "prefix", "split_key",
]  # fmt: skip

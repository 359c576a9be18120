"""Keeps events and answers questions about them. `load` opens the store a URL names; all keep the `Store` promise."""

from store.alerts import AlertGroup, AlertPage, alerts, each
from store.protocol import MAX_LIMIT, Options, Outcome, Page, Query, Store, StoreStatus, Written
from store.registry import load, names

__all__ = [
    "MAX_LIMIT",
    "AlertGroup",
    "AlertPage",
    "Options",
    "Outcome",
    "Page",
    "Query",
    "Store",
    "StoreStatus",
    "Written",
    "alerts",
    "each",
    "load",
    "names",
]

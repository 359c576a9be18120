"""Keeps events and answers questions about them. `load` opens the store a URL names; all keep the `Store` promise."""

from store.protocol import MAX_LIMIT, Options, Outcome, Page, Query, Store, StoreStatus, Written
from store.registry import load, names

__all__ = ["MAX_LIMIT", "Options", "Outcome", "Page", "Query", "Store", "StoreStatus", "Written", "load", "names"]

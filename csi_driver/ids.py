"""Ids: made from names, so that a retry finds its own; taken from callers only in the very form that we write."""

from __future__ import annotations

import re
import uuid

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_id(scope: str, kind: str, name: str) -> str:
    """Return the id of an object: the same for the same name, so that a retry after a crash finds its own.

    `scope` is the cluster id and the driver's name, joined by `/`.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{scope}/{kind}/{name}"))


def is_id(text: str) -> bool:
    """Return whether a caller's text is an id as we write them; nothing else may be made part of a path."""
    return _ID.fullmatch(text) is not None

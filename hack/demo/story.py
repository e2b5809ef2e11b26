"""What the demo shows of volumes before it measures limits: a snapshot, a clone, and how fast they are."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hack.demo.client import Client

SAMPLE = 4 << 20
"""Bytes of a file that are compared between a volume and its clone."""


def copies(
    client: Client, volume_id: str, source: Path, parameters: Mapping[str, str], folders: tuple[Path, Path]
) -> dict[str, Any]:
    """Cut a published volume, make a volume of the cut, compare the two, and delete both; return what it took.

    `source` is a file in the volume, `folders` are a staging and a target path for the clone. Raises RuntimeError when
    the clone doesn't hold what its source did.
    """
    staged, target = folders
    snapshot, cutting = _timed(lambda: client.snapshot("demo-snapshot", volume_id))
    clone, restoring = _timed(lambda: client.create("demo-clone", client.size(volume_id), parameters, snapshot))
    client.stage(clone, staged)
    client.publish(clone, staged, target)
    same = _digest(target / source.name) == _digest(source)
    client.unpublish(clone, target)
    client.unstage(clone, staged)
    client.delete(clone)
    client.delete_snapshot(snapshot)
    if not same:
        raise RuntimeError(f"the clone of {volume_id} doesn't hold what its source did")
    return {"snapshot_seconds": cutting, "clone_seconds": restoring}


def _timed(call: Callable[[], str]) -> tuple[str, float]:
    began = time.monotonic()
    answer = call()
    return answer, time.monotonic() - began


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.sha256(opened.read(SAMPLE)).hexdigest()

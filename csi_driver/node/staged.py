"""What is staged on this node, by the kernel's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from csi_driver.errors import Busy, Invalid, Lost, NotFound, StorageError
from csi_driver.node.uses import place
from csi_driver.records import Volume
from csi_driver.store.base import Stale, change_status

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.host.block import Device
    from csi_driver.host.mounts import Mount
    from csi_driver.pools import ServedPool, ServedPools
    from csi_driver.stack import Stack
    from csi_driver.store.base import Store

log = structlog.get_logger(__name__)


class Staged:
    """Find volumes, their devices and their mounts."""

    def __init__(self, store: Store, pools: ServedPools, stack: Stack) -> None:
        self._store = store
        self._pools = pools
        self._stack = stack

    def volume(self, volume_id: str) -> tuple[Volume, ServedPool]:
        """Return a whole volume and its pool, both fit for use. Raises NotFound, Lost, Unready."""
        record = self.record(volume_id)
        if record is None or not record.status.history.made or record.status.history.condemned:
            raise NotFound(f"volume_id: there is no volume {volume_id}")
        accepted = record.status.history.accepted
        pool = self._pools.get(accepted.pool) if accepted else None
        if pool is None:
            where = accepted.node if accepted else "none"
            raise NotFound(f"volume_id: volume {volume_id} is on node {where}, in a pool that this one doesn't serve")
        pool.check()
        found = pool.backend.find(volume_id)
        if found is None:
            lost = f"LOST: its bytes are not in pool {pool.spec.name} any more; restore the file, or delete the volume"
            self.observe(volume_id, abnormal=lost)
            raise Lost(f"volume {volume_id} is {lost}")
        if found.size < record.status.history.size:
            raise Busy(f"volume {volume_id} is being grown to {record.status.history.size} bytes; ask again")
        return record, pool

    def record(self, volume_id: str) -> Volume | None:
        """Return the volume's record, None when there is none."""
        return self._store.get(Volume, volume_id)

    def device(self, volume_id: str) -> Device | None:
        """Return the device of a staged volume, None when it isn't staged."""
        for pool in self._pools:
            if (device := self._stack.device(pool.backend, volume_id)) is not None:
                return device
        return None

    def size(self, device: Device) -> int:
        """Return the bytes that a device has."""
        return self._stack.size(device)

    def mounts(self, device: Device) -> tuple[Mount, ...]:
        """Return where a device is shown."""
        return self._stack.mounts(device)

    def at(self, volume_id: str, path: Path) -> tuple[Device, Mount]:
        """Return the device and the mount of a volume at a path. Raises NotFound, naming the field."""
        device = self.device(volume_id)
        if device is None:
            raise NotFound(f"volume_id: volume {volume_id} is not staged on this node")
        try:
            real = place(path, "volume_path")
        except Invalid as error:
            raise NotFound(str(error)) from error
        for mount in self._stack.mounts(device):
            if mount.target == real:
                return device, mount
        raise NotFound(f"volume_path: volume {volume_id} is not at {path}")

    def observe(self, volume_id: str, **seen: Any) -> None:  # noqa: ANN401 - dataclasses.replace is typed so
        """Note what a node call did. It can be seen again, so a Store that is away is no reason to fail."""
        try:
            change_status(self._store, Volume, volume_id, lambda now: now.status.with_seen(**seen), durable=False)
        except Stale:
            log.info("no record to note this in", volume=volume_id)
        except StorageError as error:
            log.warning("not noted in the record", volume=volume_id, reason=str(error))

"""The one place that decides on mkfs: never on what might hold data.

History says `format_begun` before mkfs starts and `format_done` before NodeStage answers. Begun without done: no pod
ever saw it, mkfs again, unless it was handed out as a block device since. Neither: mkfs only when not one byte was ever
written, by the allocator's own word, and the superblock areas are readable and zero. Done: never again.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from csi_driver.errors import Foreign
from csi_driver.records import Volume
from csi_driver.store.base import change_status

if TYPE_CHECKING:
    from csi_driver.backends.base import Backend
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from csi_driver.host.filesystem import Filesystems
    from csi_driver.limiting import Limiting
    from csi_driver.store.base import Store


class Formatting:
    """Format volumes that are surely empty, and check the file systems of those that aren't."""

    def __init__(self, store: Store, filesystems: Filesystems, limiting: Limiting) -> None:
        self._store = store
        self._filesystems = filesystems
        self._limiting = limiting

    def prepare(self, record: Volume, backend: Backend, device: Device, fs_type: str, deadline: Deadline) -> bool:
        """Leave a sound file system of this type on the device, and return whether it is new, and so fills the device.

        Raises Foreign rather than overwrite anything.
        """
        history = record.status.history
        prefix = self._limiting.helper_prefix
        if history.format_done:
            if history.format_done != fs_type:
                raise Foreign(
                    f"volume {record.id} holds {history.format_done}, the capability asks for {fs_type}: "
                    f"it is never formatted again; ask for {history.format_done}"
                )
            self._filesystems.check(device.path, fs_type, deadline=deadline, prefix=prefix)
            return False
        if history.format_begun:
            self._filesystems.check_alone(device.path)
        blank = history.raw or not history.format_begun
        if blank:
            self._check_empty(record, backend, device)
        self._mark(record, format_begun=fs_type)
        backend.take(record.id)
        self._filesystems.make(
            device.path,
            fs_type,
            options=record.spec.file_system.mkfs_options if fs_type == record.spec.file_system.type else (),
            sector_size=history.sector_size,
            blank=blank,
            deadline=deadline,
            prefix=prefix,
        )
        self._mark_done(record, backend, fs_type)
        return True

    def hand_out_raw(self, record: Volume, backend: Backend) -> None:
        """Note, before a pod gets the bare device, that from now on its bytes are the pod's."""
        if not record.status.history.raw:
            change_status(self._store, Volume, record.id, lambda now: now.status.with_history(raw=True), durable=True)
        backend.take(record.id)

    def _mark_done(self, record: Volume, backend: Backend, fs_type: str) -> None:
        """Note that an mkfs ended: in the record, and on the bytes, so that `adopt` never has one done again."""
        if not backend.amends_at_once:
            self._mark(record, format_done=fs_type)  # the agent sees to the passport
            return
        found = backend.find(record.id)
        if found is None or found.passport is None:
            raise Foreign(f"volume {record.id} has no passport that can be read")
        backend.amend(record.id, dataclasses.replace(found.passport, format_done=fs_type))
        change_status(
            self._store,
            Volume,
            record.id,
            lambda now: now.status.with_history(format_done=fs_type).with_seen(marked=fs_type),
            durable=True,
        )

    def _check_empty(self, record: Volume, backend: Backend, device: Device) -> None:
        blank = backend.never_written(record.id)
        # What the allocator calls blank can hold nothing but zeros; a short look proves that it can be read.
        holds = self._filesystems.kind(device.path, brief=blank)
        if holds is None and not blank:
            holds = "data of no known form"
        if holds is not None:
            raise Foreign(
                f"volume {record.id} holds {holds}, which this driver did not write: it is not formatted; "
                "use it as a raw block volume, or make a new one"
            )

    def _mark(self, record: Volume, **marks: str) -> None:
        change_status(self._store, Volume, record.id, lambda now: now.status.with_history(**marks), durable=True)

"""A machine that serves volumes from a thin pool, which is all of the data disk."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernel.node import Node
from tests.thinpool import ThinPool, lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

RATIO = 10


class ThinNode(Node):
    """A node like the others, but for what its pool is."""

    def __init__(
        self,
        *flags: str,
        qos: str = "enforce",
        folder: Path | None = None,
        chunk: str = "64k",
        thin: ThinPool | None = None,
    ) -> None:
        self.thin = thin or ThinPool(chunk=chunk)
        super().__init__(*flags, qos=qos, folder=folder, pool=f"{self.thin.words},ratio={RATIO}")

    def format(self) -> None:
        """Make the pool."""
        self.thin.make()

    def mount(self) -> None:
        """Make the folder of state and mounts."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def images(self) -> list[str]:
        """Return the logical volumes in the pool: volumes and snapshots."""
        names = lvm("lvs", "--noheadings", "-o", "lv_name", self.thin.vg).split()
        return sorted(name for name in names if name.startswith("sluice-"))

    def tags(self, record_id: str) -> list[str]:
        """Return the tags of a volume or snapshot."""
        return lvm("lvs", "--noheadings", "-o", "lv_tags", f"{self.thin.vg}/sluice-{record_id}").strip().split(",")

    def image(self, record_id: str) -> Path:
        """Return the device of a volume or snapshot; of a snapshot it is made for this."""
        name = f"{self.thin.vg}/sluice-{record_id}"
        lvm("lvchange", "-ay", "-K", name)
        return Path("/dev") / name

    @contextlib.contextmanager
    def copied(self, volume: Volume) -> Iterator[Path]:
        """Give a copy of a volume's bytes as they lie there now, cut by a command that freezes nothing."""
        name = f"{self.thin.vg}/bare"
        lvm("lvcreate", "-y", "-s", "-kn", "-ay", "-n", "bare", f"{self.thin.vg}/sluice-{volume.id}")
        try:
            yield Path("/dev") / name
        finally:
            lvm("lvremove", "-f", name)

    def clear(self) -> None:
        """Take everything down, and then the pool."""
        super().clear()
        self.thin.remove()

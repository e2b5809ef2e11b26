"""A node whose pool, state and mounts are on a disk that outlives the machine, and what stands in its pool."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.images import digest
from tests.kernel.node import Node, run
from tests.kernel.thin_node import ThinNode
from tests.thinpool import lvm, rows

FOLDER = Path("/var/tmp/kept")
PREFIX = "sluice-"


class KeptImages(Node):
    """A node with image files on an XFS."""

    def ids(self) -> set[str]:
        """Return the ids of images."""
        return {Path(name).stem for name in self.images()}

    def half_made(self) -> list[str]:
        """Return the images that aren't whole."""
        return [path.name for path in (self.pool / "new").iterdir()]

    def digest_of(self, record_id: str, size: int) -> str:
        """Return the digest of an image."""
        image = self.image(record_id)
        return digest(image) if image.exists() and image.stat().st_size == size else ""

    def sound(self) -> bool:
        """Return that nothing has to be repaired: a mount replays the log, or fails."""
        return True

    def release(self) -> None:
        """Let the disk go."""
        run("umount", self.folder)


class KeptThin(ThinNode):
    """A node with a thin pool. State and mounts are on an ordinary logical volume beside it, which isn't ours."""

    def __init__(self) -> None:
        super().__init__(folder=FOLDER)
        self._state = f"{self.thin.vg}/state"

    def format(self) -> None:
        """Make the pool, and the volume of the state in what is left."""
        super().format()
        lvm("lvcreate", "-y", "-l", "100%FREE", "-n", "state", self.thin.vg)
        run("mkfs.ext4", "-q", f"/dev/{self._state}")

    def mount(self) -> None:
        """Mount the state. Nothing of the group is active after a boot."""
        super().mount()
        lvm("lvchange", "-ay", self._state)
        run("mount", f"/dev/{self._state}", FOLDER)

    def ids(self) -> set[str]:
        """Return the ids of logical volumes."""
        return {name.removeprefix(PREFIX) for name in self.images()}

    def half_made(self) -> list[str]:
        """Return what is neither ours, nor the pool, nor the state."""
        names = {row["lv_name"].strip("[]") for row in rows("lvs", "-a", "-o", "lv_name", self.thin.vg)}
        return sorted(name for name in names - self.thin.parts - {"state"} if not name.startswith(PREFIX))

    def digest_of(self, record_id: str, size: int) -> str:
        """Return the digest of a logical volume, which is active meanwhile; a snapshot is not, else."""
        lv = f"{self.thin.vg}/{PREFIX}{record_id}"
        found = rows("lvs", "-o", "lv_size,lv_active", "-S", f"lv_name={PREFIX}{record_id}", self.thin.vg)
        if [int(row["lv_size"]) for row in found] != [size]:
            return ""
        lvm("lvchange", "-ay", "-K", lv)
        try:
            return digest(Path(f"/dev/{lv}"))
        finally:
            if not found[0]["lv_active"]:
                lvm("lvchange", "-an", lv)

    def sound(self) -> bool:
        """Return that nothing has to be repaired, by thin_check's word, or fail."""
        self.thin.check()
        return True

    def release(self) -> None:
        """Let the disk go."""
        run("umount", FOLDER)
        self.thin.check()


def kept(backend: str) -> KeptImages | KeptThin:
    """Return the node of a backend."""
    return KeptThin() if backend == "lvm" else KeptImages(folder=FOLDER)

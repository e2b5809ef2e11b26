"""What is below volumes on a stand that serves: what a pool holds, and the devices that it gives."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from csi_driver.backends import lvmtags
from csi_driver.backends.lvmgroup import dm_name
from csi_driver.host import loopinfo, pvlabel
from csi_driver.stack import PREFIX
from qos.limits import DevNo
from tests.thinpool import rows

if TYPE_CHECKING:
    from tests.serving import Server
    from tests.thinpool import ThinPool

SYS = Path("/sys/block")


class Below(Protocol):
    """Look at a pool, whose mounts of its own are `own`."""

    own: set[Path]

    def images(self) -> set[str]:
        """Return the ids of what stands in the pool."""

    def temporary(self) -> set[str]:
        """Return what stands there half made."""

    def attached(self) -> dict[str, DevNo]:
        """Return the devices by record id, where a volume has one only while it is used."""

    def strays(self) -> set[str]:
        """Return devices that belong to nothing in the pool."""

    def suspended(self) -> set[str]:
        """Return devices of the pool that hold all I/O back."""


class Images:
    """A pool of image files and loop devices."""

    def __init__(self, server: Server) -> None:
        self._root = server.folder
        own_image = server.pool / "pool.xfs"
        self._folder = server.pool / "pool" if own_image.exists() else server.pool
        self.own = {own_image, self._folder}

    def images(self) -> set[str]:
        """Return the ids of images."""
        return {path.stem for path in (self._folder / "images").iterdir()}

    def temporary(self) -> set[str]:
        """Return the names of images that aren't whole."""
        return {path.name for path in (self._folder / "new").iterdir()}

    def attached(self) -> dict[str, DevNo]:
        """Return the loop devices of images."""
        return {path.stem: dev for dev, path in _loops().items() if path.parent == self._folder / "images"}

    def strays(self) -> set[str]:
        """Return loop devices of other files below the folder; one that was removed is called so by the kernel."""
        known = {*self.own, self._folder / "images"}
        found = [path for path in _loops().values() if self._root in path.parents]
        return {
            f"loop device of {path}"
            for path in found
            if path not in known and (path.parent not in known or path.suffix != ".img")
        }

    def suspended(self) -> set[str]:
        """Return nothing: loop devices can't be."""
        return set()


class Logical:
    """A thin pool of logical volumes, which are active from their making on; snapshots never are."""

    def __init__(self, thin: ThinPool) -> None:
        self._thin = thin
        self._known: tuple[bytes, dict[str, dict[str, str]]] = (b"", {})
        self.own: set[Path] = set()

    def images(self) -> set[str]:
        """Return the ids of logical volumes."""
        return {name.removeprefix(PREFIX) for name in self._lvs() if name.startswith(PREFIX)}

    def sizes(self) -> dict[str, int]:
        """Return the sizes of logical volumes in bytes, by record id."""
        lvs = self._lvs().items()
        return {name.removeprefix(PREFIX): int(row["lv_size"]) for name, row in lvs if name.startswith(PREFIX)}

    def temporary(self) -> set[str]:
        """Return logical volumes without a passport, and those whose device isn't there or has another size."""
        found, devices = set(), self._devices()
        for name, row in self._lvs().items():
            if not name.startswith(PREFIX):
                found |= {name} - self._thin.parts
                continue
            passport = lvmtags.read(row["lv_tags"].split(","))
            size = devices.get(dm_name(self._thin.vg, name), (None, 0))[1]
            if passport is None or passport.id != name.removeprefix(PREFIX):
                found.add(f"{name}: {passport}")
            elif size != (int(row["lv_size"]) if passport.kind == "volume" else 0):
                found.add(f"{name}, a {passport.kind} of {row['lv_size']} bytes: its device has {size}")
        return found

    def attached(self) -> dict[str, DevNo]:
        """Return nothing: volumes have their devices at all times."""
        return {}

    def strays(self) -> set[str]:
        """Return devices of logical volumes that aren't there."""
        known = {dm_name(self._thin.vg, name) for name in self._lvs()}
        return {name for name in self._devices() if dm_name(self._thin.vg, PREFIX) in name and name not in known}

    def suspended(self) -> set[str]:
        """Return devices of the group that are suspended."""
        return {name for name, (path, _) in self._devices().items() if (path / "dm/suspended").read_text() == "1\n"}

    def _devices(self) -> dict[str, tuple[Path, int]]:
        """Return the group's devices by name, with their size in bytes."""
        found = {}
        for path in SYS.glob("dm-*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                name = (path / "dm/name").read_text().strip()
                if name.startswith(f"{self._thin.vg}-"):
                    found[name] = (path, int((path / "size").read_text()) * 512)
        return found

    def _lvs(self) -> dict[str, dict[str, str]]:
        """Return a report of all that is in the group, as long as that is so."""
        state = pvlabel.state(Path(self._thin.disk))
        if self._known[0] != state:
            report = rows("lvs", "-a", "-o", "lv_name,lv_size,lv_tags", self._thin.vg)
            self._known = state, {row["lv_name"].strip("[]"): row for row in report}
        return self._known[1]


def _loops() -> dict[DevNo, Path]:
    """Return the loop devices of the machine, with their files."""
    files = {}
    for name, image in loopinfo.bound():
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            files[DevNo.parse((SYS / name / "dev").read_text().strip())] = image
    return files

"""The world of the test machine: the same server on a thin pool, with device-mapper and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.records import Snapshot, Volume
from csi_driver.stack import PREFIX
from qos.cgroup import Cgroup
from qos.limits import UNLIMITED, DevNo
from tests.killpoints.below import Logical
from tests.killpoints.served import SLICE
from tests.states.native import SYS, NativeDriver

if TYPE_CHECKING:
    from pathlib import Path

    from qos.limits import Limits
    from tests.killpoints.killable import Killable
    from tests.thinpool import ThinPool

EXTENT = 4 << 20


class ThinDriver(NativeDriver):
    """Be one server of one thin pool. A volume's device is the mapped one on its logical volume."""

    enforces = True

    def __init__(self, server: Killable, thin: ThinPool) -> None:
        self._logical = Logical(thin)
        super().__init__(server)

    def _bytes(self) -> tuple[dict[str, int], dict[str, Path], list[str]]:
        """Return what is in the volume group and is mapped. Logical volumes are whole extents: their records' sizes."""
        sizes = self._logical.sizes()
        for record in (*self.store.all(Volume), *self.store.all(Snapshot)):
            if sizes.get(record.id) == -(-record.status.history.size // EXTENT) * EXTENT:
                sizes[record.id] = record.status.history.size
        return sizes, _mapped(), [*self._logical.temporary(), *self._logical.strays(), *self._logical.suspended()]

    def _limits(self, devices: dict[str, Path]) -> dict[str, Limits]:
        """Return the limits in force."""
        there = Cgroup(SLICE).read_limits()
        return {name: there.get(_number(path), UNLIMITED) for name, path in devices.items()}


def _mapped() -> dict[str, Path]:
    """Return our mapped devices by record id."""
    names = {path.parent.parent: path.read_text().strip() for path in SYS.glob("dm-*/dm/name")}
    return {name.removeprefix(PREFIX): path for path, name in names.items() if name.startswith(PREFIX)}


def _number(path: Path) -> DevNo:
    return DevNo.parse((path / "dev").read_text().strip())

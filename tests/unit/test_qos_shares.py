"""Floors, kept in a folder of files that take what the kernel takes and show what it shows."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import qos.cgroup
from qos.cgroup import Cgroup, RootCgroup
from qos.enforce import Enforcer
from qos.errors import DeviceGone, Unenforceable, refused
from qos.iocost import Cost, Floor, Measured, Speed
from qos.limits import DevNo
from qos.shares import Held

if TYPE_CHECKING:
    from pathlib import Path

DISK, MAPPED = DevNo(254, 16), DevNo(253, 0)
UID = "0a1b-2c3d"
speed = Speed.rated(1000, 50 << 20)
COST = Cost.of(Measured(speed, speed), 256 << 10)
HELD = Held(Floor(iops=450), {DISK: COST}, frozenset({UID}))


class Kernel:
    """Stand in for cgroupfs and sysfs: one line a device and file, EOPNOTSUPP where io.cost can't be or is off."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.queue = folder / "block" / str(DISK) / "queue"
        self.queue.mkdir(parents=True)
        (self.queue / "max_sectors_kb").write_text("1280\n")
        self.writes: list[str] = []
        self.lines: dict[Path, dict[str, str]] = {}
        self.ancestor = self.root / "kubepods.slice"
        self.burstable = self.ancestor / "kubepods-burstable.slice"
        self.pod = self.burstable / "kubepods-burstable-pod0a1b_2c3d.slice"
        for path in (self.pod, self.ancestor / "podstatic", self.root / "system.slice"):
            self.add(path)
        for name in ("io.cost.model", "io.cost.qos"):
            (self.root / name).write_text("")

    def add(self, path: Path) -> None:
        """Make a cgroup and those above it."""
        path.mkdir(parents=True)
        for at in (path, *path.parents):
            if at == self.root.parent:
                break
            (at / "cgroup.subtree_control").touch()
            (at / "io.max").touch()
            if at != self.root and not (at / "io.weight").exists():
                (at / "io.weight").write_text("default 100\n")

    def write(self, path: Path, text: str) -> None:
        """Take a write, as the module's own would hand it over."""
        self.writes.append(f"{path.name} {text.strip()}")
        first, _, rest = text.strip().partition(" ")
        if path.name == "io.weight" and not self.on(first):
            raise refused(str(path), OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)))
        if path.name.startswith("io.cost") and first != str(DISK):
            raise refused(str(path), OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)))
        if path.name.startswith("io."):
            lines = self.lines.setdefault(path, {})
            lines[first] = rest
            default = "default 100\n" if path.name == "io.weight" else ""
            path.write_text(default + "".join(f"{dev} {line}\n" for dev, line in lines.items()))
        else:
            path.write_text(text.replace("+", ""))

    def on(self, dev: str) -> bool:
        return "enable=1" in self.lines.get(self.root / "io.cost.qos", {}).get(dev, "")

    def weight(self, path: Path) -> int:
        return Cgroup(path).read_weights().get(DISK, 100)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(qos.cgroup, "_write", kernel.write)
    return kernel


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def enforcer(kernel: Kernel, said: list[str]) -> Enforcer:
    root = RootCgroup(kernel.root, block=kernel.queue.parent.parent)
    return Enforcer(Cgroup(kernel.ancestor), log=said.append, root=root)


def attained(kernel: Kernel) -> float:
    """Return the pod's part of the disk when everybody wants all."""
    part = kernel.weight(kernel.ancestor) / (
        kernel.weight(kernel.ancestor) + kernel.weight(kernel.root / "system.slice")
    )
    beside = kernel.weight(kernel.burstable) + kernel.weight(kernel.ancestor / "podstatic")
    in_slice = sum(kernel.weight(path) for path in Cgroup(kernel.burstable).children())
    return part * kernel.weight(kernel.burstable) / beside * kernel.weight(kernel.pod) / in_slice


def test_a_floor_is_written_in_the_order_that_the_kernel_wants(kernel: Kernel, enforcer: Enforcer) -> None:
    """Requests, model, rate, and then weights, which are refused before."""
    enforcer.hold("volume", HELD)

    disk = [write for write in kernel.writes if not write.startswith(("cgroup", "io.weight"))]
    assert [write.split()[0] for write in disk] == ["max_sectors_kb", "io.cost.model", "io.cost.qos"]
    assert disk[0] == "max_sectors_kb 256"
    assert "rbps=64512000 rseqiops=1000" in disk[1]
    assert "rlat=11111 wpct=0.00 wlat=11111 min=90.00 max=90.00" in disk[2]
    assert 0.5 <= attained(kernel) < 0.501
    assert kernel.weight(kernel.ancestor) == 10_000


def test_what_is_as_it_should_be_is_not_written_again(kernel: Kernel, enforcer: Enforcer, said: list[str]) -> None:
    """Each write of a model or a rate stops the disk for a moment."""
    enforcer.hold("volume", HELD)
    kernel.writes.clear()

    enforcer.hold("volume", HELD)
    assert enforcer.reconcile() == 0
    assert kernel.writes == []
    assert said == []


def test_a_new_pod_gets_its_line_and_takes_nothing_from_a_floor(kernel: Kernel, enforcer: Enforcer) -> None:
    """Without one it would weigh 100."""
    enforcer.hold("volume", HELD)
    new = kernel.burstable / "kubepods-burstable-podffff.slice"
    kernel.add(new)

    repaired = enforcer.reconcile()

    assert repaired == 0
    assert kernel.weight(new) == kernel.weight(kernel.ancestor / "podstatic")
    assert 0.5 <= attained(kernel) < 0.501


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("io.cost.model", "ctrl=auto model=linear rbps=1 rseqiops=1 rrandiops=1 wbps=1 wseqiops=1 wrandiops=1"),
        ("io.cost.qos", "enable=0 ctrl=user rpct=0.00 rlat=11111 wpct=0.00 wlat=11111 min=90.00 max=90.00"),
        ("max_sectors_kb", ""),
        ("io.weight", "55"),
    ],
)
def test_what_somebody_changed_is_put_right_and_counted(
    kernel: Kernel, enforcer: Enforcer, said: list[str], file: str, line: str
) -> None:
    """A model, a rate that was turned off, the size of requests after the disk was re-plugged, a weight."""
    enforcer.hold("volume", HELD)
    before = attained(kernel)
    where = {"max_sectors_kb": kernel.queue, "io.weight": kernel.pod}.get(file, kernel.root)
    kernel.write(where / file, f"{DISK} {line}" if line else "1280\n")
    kernel.writes.clear()

    assert enforcer.reconcile() == 1
    assert [write.split()[0] for write in kernel.writes] == [file]
    assert len(said) == 1
    assert attained(kernel) == before
    assert enforcer.reconcile() == 0


def test_a_volume_of_two_pods_gives_each_a_half_and_a_pod_of_two_volumes_has_the_sum(
    kernel: Kernel, enforcer: Enforcer
) -> None:
    """What one of them doesn't use is lent to the other as to everybody."""
    other = kernel.burstable / "kubepods-burstable-podffff.slice"
    kernel.add(other)
    enforcer.hold("one", Held(Floor(iops=360), {DISK: COST}, frozenset({UID, "ffff"})))
    enforcer.hold("two", Held(Floor(iops=90), {DISK: COST}, frozenset({"ffff"})))

    assert 0.2 <= attained(kernel) < 0.202
    assert abs(kernel.weight(other) / kernel.weight(kernel.pod) - 1.5) < 0.01


def test_the_last_floor_leaves_the_disk_as_it_is_and_all_pods_alike(kernel: Kernel, enforcer: Enforcer) -> None:
    """Only an operator takes io.cost off; a change of the period would stop the disk for nothing."""
    enforcer.hold("volume", HELD)
    kernel.writes.clear()
    enforcer.release("volume")
    enforcer.reconcile()

    assert {write.split()[0] for write in kernel.writes} == {"io.weight"}
    assert kernel.weight(kernel.pod) == kernel.weight(kernel.ancestor / "podstatic")


def test_a_refusal_names_what_to_do_and_leaves_what_was_held(kernel: Kernel, enforcer: Enforcer) -> None:
    """A dm device has no io.cost, and a partition has no queue."""
    enforcer.hold("volume", HELD)
    enforcer.release("volume")
    with pytest.raises(DeviceGone, match=r"no .*253:0.*use the whole disk"):
        enforcer.hold("volume", Held(Floor(iops=450), {MAPPED: COST}))
    (kernel.queue.parent.parent / str(MAPPED) / "queue").mkdir(parents=True)
    (kernel.queue.parent.parent / str(MAPPED) / "queue/max_sectors_kb").write_text("128\n")
    with pytest.raises(Unenforceable, match="not on dm, md or an NVMe multipath head: use another disk"):
        enforcer.hold("volume", Held(Floor(iops=450), {MAPPED: COST}))

    assert enforcer.reconcile() == 0
    assert enforcer.failures == 0


def test_a_floor_on_disks_that_nobody_knows_any_more_is_refused(enforcer: Enforcer) -> None:
    """It was promised, and then their owner took the figures out of the configuration."""
    with pytest.raises(
        Unenforceable, match="the floor of volume, 450 IOPS: nobody knows what the disks below it can do"
    ):
        enforcer.hold("volume", Held(Floor(iops=450), {}, frozenset({UID})))


def test_a_floor_follows_its_volume_to_another_pod(kernel: Kernel, enforcer: Enforcer) -> None:
    """A volume that has none is nobody's business, and neither is a publish that is asked for again."""
    other = kernel.burstable / "kubepods-burstable-podffff.slice"
    kernel.add(other)
    enforcer.hold("volume", Held(Floor(iops=450), {DISK: COST}))
    enforcer.use("volume", frozenset({UID}))
    assert 0.5 <= attained(kernel) < 0.501
    enforcer.use("volume", frozenset({"ffff"}))
    kernel.writes.clear()
    enforcer.use("volume", frozenset({"ffff"}))
    enforcer.use("none", frozenset({UID}))

    assert kernel.weight(other) > kernel.weight(kernel.pod)
    assert kernel.writes == []


def test_a_floor_whose_pod_is_nowhere_is_said_once_until_it_is_there(
    kernel: Kernel, enforcer: Enforcer, said: list[str]
) -> None:
    """A workload in another cgroup than its volume's path says would have no floor, in silence."""
    enforcer.hold("volume", Held(Floor(iops=450), {DISK: COST}, frozenset({"late"})))
    enforcer.reconcile()
    assert [line.split(":")[0] for line in said] == ["the floor of volume is given to nobody"]
    kernel.add(kernel.ancestor / "late")
    enforcer.reconcile()

    assert len(said) == 1
    assert kernel.weight(kernel.ancestor / "late") > kernel.weight(kernel.pod)


def test_without_floors_nothing_is_written(kernel: Kernel, enforcer: Enforcer) -> None:
    """Nobody's disk is changed for limits alone."""
    enforcer.reconcile()

    assert kernel.writes == []

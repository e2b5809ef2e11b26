"""Floors, measured: two pods that both want all of a disk of 1,000 IOPS and 50 MiB/s, one of them with a floor."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from qos.cgroup import MOUNTPOINT, Cgroup, RootCgroup
from qos.iocost import Qos
from qos.weights import MOST
from tests.kernel import gauge
from tests.kernel.holding import FILLED, LARGE_WRITES, SMALL, filled
from tests.kernel.node import Node, number_of
from tests.kernel.pod import SLICE, Pod
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qos.limits import DevNo
    from tests.kernel.volume import Volume

pytestmark = [pytest.mark.kernel, pytest.mark.quiet, pytest.mark.boot(iops=1000, bps="50M")]

KNOWN = '[disks.sluice-data]\nreadIOPS = 1000\nwriteIOPS = 1000\nreadBPS = "50Mi"\nwriteBPS = "50Mi"\n'
SECONDS = 10.0
FLOOR = 450
HALF_PERIOD_US = 11_111
INFERENCE, TRAINING = "test-inference", "test-training"
"""Both a volume's name, which is in its target path, and that of its pod's cgroup."""


@pytest.fixture
def disk() -> Iterator[DevNo]:
    """Give the data disk, and put it back as it was found: the driver itself takes io.cost off from no disk."""
    found = number_of(Path(os.environ["SLUICE_DISK"]).resolve())
    queue = Path(f"/sys/dev/block/{found}/queue/max_sectors_kb")
    before = queue.read_text()
    yield found
    if found in RootCgroup().read_qos():
        for path in MOUNTPOINT.glob("*/io.weight"):
            path.write_text(f"{found} default\n")
        (MOUNTPOINT / "io.cost.qos").write_text(f"{found} enable=0\n")
    queue.write_text(before)


THIN = pytest.param(partial(ThinNode, chunk="256k"), id="thin")
ON_A_DISK = pick((THIN,), (THIN, pytest.param(Node, id="loop")))


@pytest.fixture(params=ON_A_DISK)
def server(request: pytest.FixtureRequest, tmp_path: Path, disk: DevNo) -> Iterator[Node]:
    """Give a node whose disk's owner says what it can do."""
    config = tmp_path / "sluice.toml"
    config.write_text(KNOWN)
    before = Leftovers.now()
    with request.param(f"--config={config}") as running:
        yield running

    assert Leftovers.now().since(before) == []


def rate(volume: Volume, pod: Pod) -> float:
    """Return the 4 KiB reads a second that a pod gets, by the kernel's count."""
    gauge.settle()
    return gauge.span(volume.number, "riops", SECONDS, pod.path).rate


def weight(disk: DevNo, pod: Pod) -> int:
    return Cgroup(pod.path).read_weights().get(disk, 100)


def test_a_floor_is_met_whatever_another_pod_writes_and_outlives_the_driver(server: Node, disk: DevNo) -> None:
    """Half of the disk as its owner sees it; without, a quarter of that or less. A new pod takes nothing from it."""
    inference = filled(server.create(INFERENCE, FILLED, block=True))
    training = filled(server.create(TRAINING, FILLED, block=True))
    root = RootCgroup()
    with Pod("inference") as pod, Pod("training") as other:
        loads = [pod.fio(SMALL, inference.file), other.fio(LARGE_WRITES, training.file)]
        wait_for("it writes", lambda: gauge.count(training.number, "wbps", other.path) > FILLED, Deadline(60.0))
        unprotected = rate(inference, pod)
        nothing = root.read_qos()
        inference.modify(minIOPS=str(FLOOR))
        protected = rate(inference, pod)
        print(f"floor {FLOOR}: nothing set {unprotected:.1f}, with it {protected:.1f} a second")  # noqa: T201

        assert nothing == {}
        assert root.read_qos() == {disk: Qos(HALF_PERIOD_US)}
        assert unprotected < 0.8 * FLOOR
        assert protected >= 0.99 * FLOOR

        (pod.path / "io.weight").write_text(f"{disk} 1\n")
        with Pod("third") as third:
            wait_for(
                "the weights are put right",
                lambda: weight(disk, pod) > weight(disk, other) == weight(disk, third) > 100,
                Deadline(15.0),
            )
        wait_for("the third is forgotten", lambda: weight(disk, pod) + weight(disk, other) == MOST, Deadline(15.0))
        server.stop()
        alone = rate(inference, pod)
        print(f"floor {FLOOR}: without a driver {alone:.1f} a second")  # noqa: T201
        assert alone >= 0.99 * FLOOR
        server.start()
        assert root.read_qos() == {disk: Qos(HALF_PERIOD_US)}
        for load in loads:
            load.end()

    assert Cgroup(SLICE).read_weights() == {disk: MOST}

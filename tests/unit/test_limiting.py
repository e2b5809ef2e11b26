"""What a refusal of the kernel's means for a volume: its tier decides."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from csi_driver.errors import Unready
from csi_driver.limiting import Limiting
from csi_driver.records import History, Qos, Status, Volume, VolumeSpec
from csi_driver.stack import users_at
from qos.enforce import Off
from qos.errors import Unenforceable
from qos.iocost import NO_FLOOR, Cost, Floor, Measured, Speed
from qos.limits import DevNo
from qos.shares import Held

speed = Speed.rated(1000, 50 << 20)
COSTS = {DevNo(8, 0): Cost.of(Measured(speed, speed), 256 << 10)}
FLOOR = Floor(iops=450)


class Enforcement(Off):
    """Remember floors, or refuse them."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.refusing = False

    def hold(self, name: str, held: Held) -> None:
        """Take it, unless told otherwise."""
        if self.refusing:
            raise Unenforceable("io.cost is missing")
        self.held[name] = held

    def use(self, name: str, users: frozenset[str]) -> None:
        """Likewise."""
        self.hold(name, dataclasses.replace(self.held[name], users=users))

    def release(self, name: str) -> None:
        """Forget it."""
        self.held.pop(name, None)


def volume(floor: Floor, *, required: bool) -> Volume:
    status = Status(History(floor=floor))
    return Volume("v", VolumeSpec("v", 1, qos=Qos(tier="mine", required=required, floor=Floor(iops=9))), status)


def test_what_was_promised_is_held_for_those_who_use_it_and_forgotten_with_it() -> None:
    """What is merely wanted is not."""
    enforcement = Enforcement()
    limiting = Limiting(enforcement)
    limiting.hold(volume(FLOOR, required=True), COSTS, lambda: frozenset({"a"}))
    first = dict(enforcement.held)
    limiting.use("v", frozenset({"b"}))
    second = dict(enforcement.held)
    limiting.hold(volume(NO_FLOOR, required=True), COSTS, lambda: frozenset({"b"}))

    assert first == {"v": Held(FLOOR, COSTS, frozenset({"a"}))}
    assert second == {"v": Held(FLOOR, COSTS, frozenset({"b"}))}
    assert enforcement.held == {}


def test_only_a_tier_that_may_goes_without_its_floor() -> None:
    """The other isn't staged, and the message names the volume and its tier."""
    enforcement = Enforcement()
    enforcement.refusing = True
    limiting = Limiting(enforcement)
    limiting.hold(volume(FLOOR, required=False), COSTS, frozenset)
    with pytest.raises(Unready, match=r"volume v: tier mine must not run without its floor: io\.cost is missing"):
        limiting.hold(volume(FLOOR, required=True), COSTS, frozenset)

    assert enforcement.held == {}


@pytest.mark.parametrize(
    ("target", "user"),
    [
        ("/var/lib/kubelet/pods/0a1b-2c/volumes/kubernetes.io~csi/pvc-1/mount", "0a1b-2c"),
        ("/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/0a1b-2c", "0a1b-2c"),
        ("/var/lib/kubelet/plugins/kubernetes.io/csi/csi.sluice.dev/0f/globalmount", ""),
        ("/srv/pods/inference/models", "inference"),
        ("/srv/pods", ""),
    ],
)
def test_a_path_of_the_kubelets_says_whose_it_is(target: str, user: str) -> None:
    """Its own staging path is nobody's."""
    assert users_at([Path(target)]) == ({user} if user else set())

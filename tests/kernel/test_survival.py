"""What holds although somebody, or the end of the server, is against it: limits, mounts and the promise of LOST."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.kernel import gauge
from tests.kernel.node import Node, refusal, run
from tests.kernel.pod import SLICE, Load, Pod
from tests.leftovers import Leftovers

if TYPE_CHECKING:
    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

MIB = 1 << 20
REPAIR_SECONDS = 6.0
LINE = "rbps=max wbps=max riops=300 wiops=200"
READS = Load("randread", "4k")


@pytest.fixture
def volume(node: Node) -> Volume:
    """Give a published volume with limits and a file."""
    volume = node.create("data", readIOPS="300", writeIOPS="200")
    volume.up()
    volume.fill(32 * MIB)
    return volume


def test_a_limit_overwritten_behind_our_back_is_back_in_six_seconds_and_counted(node: Node, volume: Volume) -> None:
    """All of it, also the key that nobody touched."""
    before = node.metric("sluice_limits_repaired_total")
    (SLICE / "io.max").write_text(f"{volume.number} riops=max wiops=12345")

    gauge.until("the limit is back", REPAIR_SECONDS, volume.number, LINE)
    assert node.metric("sluice_limits_repaired_total") == before + 1


@pytest.mark.torture
def test_a_limit_removed_under_load_is_back_in_six_seconds(volume: Volume) -> None:
    """The load is held again too, and saw no error."""
    with Pod("a") as pod:
        load = pod.fio(READS, volume.file)
        gauge.settle()
        (SLICE / "io.max").write_text(f"{volume.number} rbps=max wbps=max riops=max wiops=max")
        gauge.until("the limit is back", REPAIR_SECONDS, volume.number, LINE)
        gauge.settle()
        gauge.rate_of(volume.number, "riops", 300, 0.02)
        load.end()


def test_limits_survive_systemd_reading_its_units_anew(node: Node, volume: Volume) -> None:
    """Neither systemd nor we have anything to repair."""
    before = node.metric("sluice_limits_repaired_total")
    run("systemctl", "daemon-reload")
    run("systemctl", "daemon-reexec")

    assert gauge.limit_line(volume.number) == LINE
    assert node.metric("sluice_limits_repaired_total") == before


def _in_force(node: Node, volume: Volume) -> list[str]:
    """Return all that a restart must not change: mounts, mappings, device numbers and limits."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(node.folder) in line]
    loops = sorted(thing for thing in Leftovers.now().things if thing.startswith("loop device"))
    return [*mounts, *loops, run("dmsetup", "table"), f"{volume.number}", (SLICE / "io.max").read_text()]


def test_a_server_that_is_killed_leaves_limits_and_mounts_in_force_and_its_restart_changes_nothing(
    node: Node, volume: Volume
) -> None:
    """The load goes on at the limit, without an error, through the kill, the time without a server, and the restart."""
    before = _in_force(node, volume)
    with Pod("a") as pod:
        load = pod.fio(READS, volume.file)
        gauge.settle()
        node.stop(signal.SIGKILL)
        gauge.rate_of(volume.number, "riops", 300, 0.02)
        without = _in_force(node, volume)
        node.start()
        gauge.rate_of(volume.number, "riops", 300, 0.02)
        after = _in_force(node, volume)
        load.end()

    assert without == before
    assert after == before
    assert node.listed() == {volume.id: ""}
    assert node.metric("sluice_limits_repaired_total") == 0
    volume.up()  # what a kubelet asks again after a restart changes nothing either
    assert _in_force(node, volume) == before


def test_a_server_that_was_killed_serves_what_it_served_before(node: Node, volume: Volume) -> None:
    """Limits are held and changed, volumes grow and are cut, as if nothing had been."""
    node.stop(signal.SIGKILL)
    node.start()
    (SLICE / "io.max").write_text(f"{volume.number} riops=max")
    gauge.until("the limit is back", REPAIR_SECONDS, volume.number, LINE)
    volume.modify(readIOPS="400")
    volume.expand(128 * MIB)
    volume.expand_on_node(128 * MIB)
    restored = node.create("restored", 128 * MIB, source=node.cut(volume, "cut")).up()

    assert gauge.limit_line(volume.number) == LINE.replace("300", "400")
    assert restored.file.read_bytes() == volume.file.read_bytes()


def test_a_wish_of_the_time_without_a_server_is_in_force_before_it_serves(node: Node, volume: Volume) -> None:
    """A limit that somebody took away meanwhile is back with the first answer."""
    node.stop(signal.SIGKILL)
    (SLICE / "io.max").write_text(f"{volume.number} riops=max")
    node.start()

    gauge.until("the limit is back", 1.0, volume.number, LINE)


def test_an_image_removed_behind_our_back_is_lost_and_never_made_again(node: Node) -> None:
    """The stage says so, the controller says so, a restart says so, and the pool stays empty."""
    volume = node.create("data")
    node.image(volume.id).unlink()

    code, said = refusal(volume.stage)
    assert (code, "LOST" in said) == (grpc.StatusCode.UNAVAILABLE, True), said
    assert "LOST" in volume.condition()
    assert "LOST" in node.listed()[volume.id]

    node.stop(signal.SIGKILL)
    node.start()
    code, said = refusal(volume.stage)

    assert (code, "LOST" in said) == (grpc.StatusCode.UNAVAILABLE, True), said
    assert "LOST" in volume.condition()
    assert node.images() == []


def test_an_image_removed_while_its_volume_is_in_use_is_lost_and_leaves_nothing(node: Node, volume: Volume) -> None:
    """Its pod keeps what it has; when that goes, so do the devices, and nothing can be staged again."""
    node.image(volume.id).unlink()
    volume.fill(8 * MIB)
    volume.down()
    devices = [thing for thing in Leftovers.now().things if volume.id in thing]

    code, said = refusal(volume.stage)
    assert (code, "LOST" in said) == (grpc.StatusCode.UNAVAILABLE, True), said
    assert devices == []
    assert node.images() == []

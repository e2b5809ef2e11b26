"""Latency per volume: the kernel's histograms beside fio's account, over restarts and growth, and in `sluice top`."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.host.dmstats import Statistics
from csi_driver.host.syscalls import Kernel
from qos.meter import quantile
from tests.kernel import gauge
from tests.kernel.node import MIB, run
from tests.kernel.pod import Load, Pod

if TYPE_CHECKING:
    from qos.meter import Counted
    from tests.kernel.node import Node
    from tests.kernel.volume import Volume

# A disk so slow that the latency is its own: fio's account has an emulated processor's milliseconds in it too.
pytestmark = [pytest.mark.kernel, pytest.mark.quiet, pytest.mark.boot(iops=300, bps="50M")]

SIZE = 64 * MIB
STEP = 1.25
JOB = ("--direct=1", "--lat_percentiles=1", "--percentile_list=50:95:99")
SECONDS, TRIES = 8, 3
LOOK_SECONDS = 30.0


@pytest.fixture
def volume(node: Node) -> Volume:
    """Give a published raw block volume that is allocated, and whose limits are far."""
    volume = node.create("data", SIZE, block=True, readIOPS="max", writeIOPS="max", readBPS="max", writeBPS="max").up()
    volume.fill(SIZE)
    return volume


def counted(volume: Volume) -> Counted:
    """Return what the kernel has counted until now."""
    return Statistics(Kernel()).read([volume.number])[volume.number]


def message(volume: Volume, text: str) -> list[str]:
    """Return the lines with which the kernel answers a message, by device-mapper's own tool."""
    return run("dmsetup", "message", f"sluice-{volume.id}", "0", text).splitlines()


def regions(volume: Volume) -> int:
    """Return how many histograms of ours a volume has."""
    return len([line for line in message(volume, "@stats_list sluice") if line])


@pytest.mark.parametrize(("pattern", "side", "depth"), [("randread", "read", 8), ("randwrite", "write", 32)])
def test_percentiles_are_fios_within_a_step(volume: Volume, pattern: str, side: str, depth: int) -> None:
    """And each I/O is counted, once, on its side.

    fio counts from further above: what an emulated processor lets it wait is in its account alone. So it is asked again
    where it says more, and may never say less.
    """
    load = Load(pattern, depth=depth, job=JOB)
    for _ in range(TRIES):
        steps = apart(volume, load, side)
        assert max(steps.values()) <= 1, steps
        if min(steps.values()) >= -1:
            break
    assert min(steps.values()) >= -1, steps


def apart(volume: Volume, load: Load, side: str) -> dict[float, float]:
    """Return by how many steps our percentiles are above fio's, of one load."""
    before = counted(volume)
    with Pod("a") as pod:
        running = pod.fio(load, volume.file)
        time.sleep(SECONDS)
        job = running.end()
    seen = counted(volume).since(before)
    assert job[side]["total_ios"] == {"read": seen.reads, "write": seen.writes}[side] == sum(seen.buckets)
    fio = {float(share): ns / 1e9 for share, ns in job[side]["lat_ns"]["percentile"].items()}
    ours = {share: quantile(seen.buckets, share / 100) or 0.0 for share in fio}
    steps = {share: round(math.log(ours[share] / fio[share], STEP), 2) for share in fio}
    print(f"{load.pattern} depth {load.depth}: fio {fio}, ours {ours}, steps {steps}")  # noqa: T201
    return steps


def test_a_histogram_outlives_the_server_and_is_not_doubled(node: Node, volume: Volume) -> None:
    """SIGKILL, restart, a stage that is asked for again: the same region goes on counting."""
    before = counted(volume)
    node.stop(signal.SIGKILL)
    node.start()
    volume.stage()
    volume.fill(4 * MIB)

    assert regions(volume) == 1
    assert counted(volume).wbytes == before.wbytes + 4 * MIB


def test_a_histogram_that_is_gone_is_made_again(node: Node, volume: Volume) -> None:
    """By the next start, and the same goes for volumes staged by a server that knew none."""
    message(volume, "@stats_delete 0")
    gone = regions(volume)
    node.stop()
    node.start()

    assert gone == 0
    wait_for("there is one again", lambda: regions(volume) == 1, Deadline(LOOK_SECONDS))


def test_what_a_volume_grew_by_is_counted(volume: Volume) -> None:
    """The table is another one then; the histogram is the same."""
    before = counted(volume)
    volume.expand(2 * SIZE)
    volume.expand_on_node(2 * SIZE)
    run("dd", "if=/dev/zero", f"of={volume.file}", "bs=1M", "count=4", f"seek={SIZE // MIB + 4}", "oflag=direct")

    assert regions(volume) == 1
    assert counted(volume).since(before).wbytes == 4 * MIB


def test_a_volume_at_its_limit_is_seen_in_top_and_in_the_metrics(node: Node, volume: Volume) -> None:
    """Its rate, its limit, that it is held back, for how long, and a latency below the limit: far from fio's."""
    volume.modify(readIOPS="50")
    with Pod("a") as pod:
        load = pod.fio(Load("randread", depth=32, job=JOB), volume.file)
        gauge.settle()
        (shown,) = top(node)
        time.sleep(12)
        seconds, buckets = (
            node.metric(f'{name}{{namespace="",persistentvolumeclaim="",volume="{volume.id}"}}')
            for name in ("sluice_volume_throttled_seconds_total", "sluice_volume_io_seconds_count")
        )
        job = load.end()
    (quiet,) = top(node)

    assert (shown["id"], shown["throttled"], shown["nearest"]["key"]) == (volume.id, True, "riops")
    assert shown["rates"]["riops"] == pytest.approx(50, rel=0.05)
    assert 0 < shown["seconds"]["p50"] < job["read"]["lat_ns"]["percentile"]["50.000000"] / 1e9 / 4
    assert seconds >= 5
    assert buckets > 50 * 10
    assert (quiet["rates"]["riops"], quiet["throttled"], quiet["seconds"]["p99"]) == (0, False, None)


def top(node: Node) -> list[dict[str, Any]]:
    """Return what `sluice top` prints for programs."""
    state = node.folder / "state"
    said = run(sys.executable, "-m", "csi_driver", "top", "--json", "--every=8", f"--state={state}")
    shown: list[dict[str, Any]] = json.loads(said)
    return shown

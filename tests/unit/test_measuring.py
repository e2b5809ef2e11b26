"""What the server notes and shows of volumes that do I/O."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from csi_driver.errors import Unready
from csi_driver.host.block import Device
from csi_driver.host.dmstats import Statistics
from csi_driver.limiting import Limiting
from csi_driver.measuring import Measuring
from csi_driver.records import Offer, Volume, VolumeSpec
from csi_driver.store.sqlite import SqliteStore
from csi_driver.volume_metrics import VolumeMetrics
from qos.enforce import Off
from qos.errors import Unenforceable
from qos.iofiles import IoStat
from qos.limits import DevNo, Limits
from qos.meter import BOUNDS_NS, Counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest


DEV, FREE = DevNo(253, 7), DevNo(253, 8)
SEEN = Counted(30, 10, 0, 0, 600_000_000, 400_000_000, 0, (0, 0, 0, 25, *[0] * (len(BOUNDS_NS) - 4), 15))


class Counting(Statistics):
    """Know two mapped volumes, of which one has a histogram."""

    def __init__(self) -> None:
        self.mapped = {"sluice-a": DEV, "sluice-b": FREE}
        self.refusing = False

    def devices(self, prefix: str = "sluice-") -> dict[str, DevNo]:  # noqa: ARG002
        if self.refusing:
            raise Unready("device-mapper is away")
        return self.mapped

    def ensure(self, dev: DevNo) -> bool:
        raise Unready(f"no memory for {dev}")

    def read(self, devices: Iterable[DevNo]) -> dict[DevNo, Counted]:
        return {dev: SEEN for dev in devices if dev == DEV}


class Using(Off):
    """Hold one volume to 100 reads a second, and count what pods do."""

    def __init__(self) -> None:
        self.io = {DEV: IoStat(), FREE: IoStat()}
        self.refusing = False

    def wanted(self) -> Mapping[DevNo, Limits]:
        return {DEV: Limits(riops=100)}

    def used(self) -> Mapping[DevNo, IoStat]:
        if self.refusing:
            raise Unenforceable("the cgroup is gone")
        return dict(self.io)


def test_the_time_at_a_limit_is_counted_and_nearness_shown() -> None:
    """At 98 % a limit holds back, at 97 % it doesn't; what no limit holds is never throttled."""
    enforcement = Using()
    measuring = Measuring(Counting(), enforcement)
    measuring.look(100.0)
    first = dict(measuring.throttled)
    enforcement.io = {DEV: IoStat(rios=490), FREE: IoStat(rios=9000)}
    measuring.look(105.0)
    second = (dict(measuring.throttled), measuring.near)
    enforcement.io = {DEV: IoStat(rios=490 + 485)}
    measuring.look(110.0)

    assert first == {"a": 0.0, "b": 0.0}
    assert second == ({"a": 5.0, "b": 0.0}, {"a": 0.98})
    assert (measuring.throttled, measuring.near) == ({"a": 5.0, "b": 0.0}, {"a": 0.97})


def test_a_volume_that_is_unstaged_is_forgotten() -> None:
    """Staged again, it begins at nothing."""
    statistics = Counting()
    measuring = Measuring(statistics, Using())
    measuring.look(100.0)
    statistics.mapped = {"sluice-b": FREE}
    measuring.look(105.0)

    assert measuring.throttled == {"b": 0.0}


def test_without_device_mapper_there_is_nothing_to_measure() -> None:
    """And no thread."""
    measuring = Measuring(None, Using())
    measuring.start()
    measuring.look(100.0)
    measuring.stop()

    assert (measuring.volumes(), measuring.counted({}), measuring.throttled) == ({}, {}, {})


def shown(measuring: Measuring, folder: Path) -> list[str]:
    """Return the lines of a scrape."""
    store = SqliteStore(folder / "sluice.db")
    registry = CollectorRegistry()
    if store.get(Volume, "a") is None:
        store.create(Volume("a", VolumeSpec("pvc-a", 4096, Offer(1, "n1", "p"), claim="team/model")))
    registry.register(VolumeMetrics(measuring, store))
    text = generate_latest(registry).decode()
    store.close()
    return text.splitlines()


def test_a_scrape_has_a_histogram_in_seconds_with_the_labels_of_kubernetes(tmp_path: Path) -> None:
    """The kernel's own counts; a volume without a record has no claim, one without a histogram no latencies."""
    enforcement = Using()
    enforcement.io[DEV] = IoStat(4096, 8192, 1, 2, 512, 3)
    measuring = Measuring(Counting(), enforcement)
    measuring.look(100.0)
    lines = shown(measuring, tmp_path)

    claim = 'namespace="team",persistentvolumeclaim="model"'
    read, write, discard = (claim.replace(",", f',op="{op}",') for op in ("read", "write", "discard"))
    buckets = [line for line in lines if line.startswith("sluice_volume_io_seconds_bucket")]
    assert len(buckets) == 45 // 3 + 5 + 1
    for line in (
        f'sluice_volume_io_seconds_bucket{{le="3.9062e-05",{claim},volume="a"}} 0.0',
        f'sluice_volume_io_seconds_bucket{{le="7.6294e-05",{claim},volume="a"}} 25.0',
        f'sluice_volume_io_seconds_bucket{{le="9.18355",{claim},volume="a"}} 25.0',
        f'sluice_volume_io_seconds_bucket{{le="+Inf",{claim},volume="a"}} 40.0',
        f'sluice_volume_io_seconds_count{{{claim},volume="a"}} 40.0',
        f'sluice_volume_io_seconds_sum{{{claim},volume="a"}} 1.0',
        f'sluice_volume_op_seconds_count{{{read},volume="a"}} 30.0',
        f'sluice_volume_op_seconds_sum{{{write},volume="a"}} 0.4',
        f'sluice_volume_ios_total{{{write},volume="a"}} 2.0',
        f'sluice_volume_bytes_total{{{discard},volume="a"}} 512.0',
        'sluice_volume_ios_total{namespace="",op="read",persistentvolumeclaim="",volume="b"} 0.0',
        f'sluice_volume_throttled_seconds_total{{{claim},volume="a"}} 0.0',
    ):
        assert line in lines


def test_a_scrape_of_what_cant_be_looked_at_has_no_series(tmp_path: Path) -> None:
    """The others of the server are not lost with it."""
    statistics, enforcement = Counting(), Using()
    measuring = Measuring(statistics, enforcement)
    statistics.refusing = True
    without_devices = shown(measuring, tmp_path)
    statistics.refusing, enforcement.refusing = False, True

    assert (without_devices, shown(measuring, tmp_path)) == ([], [])


def test_a_volume_whose_latency_cant_be_counted_is_limited_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """A histogram is no reason to fail a stage; it is said."""
    limiting = Limiting(Off(), Counting())
    limits = limiting.apply(Volume("a", VolumeSpec("a", 4096)), Device(Path("/dev/dm-7"), DEV), "")

    assert limits == Limits()
    assert "no memory for 253:7" in capsys.readouterr().out

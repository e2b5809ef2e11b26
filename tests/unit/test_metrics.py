"""What a scrape shows."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from csi_driver.agent.trimming import Trimming
from csi_driver.errors import Invalid, Unready
from csi_driver.ids import new_id
from csi_driver.measuring import Measuring
from csi_driver.metrics import Metrics
from csi_driver.records import Offer, Volume, VolumeSpec
from csi_driver.store.sqlite import SqliteStore
from qos.enforce import Off
from qos.limits import DevNo, Limits
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEV = DevNo(253, 7)


class Held(Off):
    """Enforcement that wants one limit, of which the kernel shows another."""

    drift_repaired = 3
    failures = 1

    def wanted(self) -> Mapping[DevNo, Limits]:
        return {DEV: Limits(rbps=1000)}

    def seen(self) -> Mapping[DevNo, Limits]:
        return {DEV: Limits(rbps=2000), DevNo(8, 0): Limits(rbps=5)}


def test_a_scrape_shows_calls_volumes_limits_and_the_server_itself(tmp_path: Path) -> None:
    """Each promised figure is there, with the value that was put in; other people's devices are not."""
    store = SqliteStore(tmp_path / "sluice.db")
    store.create(Volume(new_id("s", "volume", "a"), VolumeSpec("a", 4096, Offer(1, "n1", "p"))))
    metrics = Metrics()
    metrics.rpc("CreateVolume", "OK", 0.002)
    metrics.program("mkfs.ext4", 0.003)
    metrics.serve("", store, Held())
    shown = generate_latest(metrics.registry).decode()
    store.close()

    for line in (
        'sluice_rpc_seconds_count{code="OK",method="CreateVolume"} 1.0',
        'sluice_program_seconds_count{program="mkfs.ext4"} 1.0',
        'sluice_volumes{state="offered"} 1.0',
        'sluice_volumes{state="staged"} 0.0',
        'sluice_limit{device="253:7",key="rbps",side="wanted"} 1000.0',
        'sluice_limit{device="253:7",key="rbps",side="seen"} 2000.0',
        "sluice_limits_repaired_total 3.0",
        "sluice_limits_failures_total 1.0",
    ):
        assert line in shown.splitlines()
    for name in ("sluice_resident_bytes", "sluice_threads", "sluice_file_descriptors"):
        assert float(shown.split(f"\n{name} ")[1].split("\n")[0]) > 0
    assert 'device="8:0"' not in shown


def test_metrics_are_served_where_they_are_asked_for(tmp_path: Path) -> None:
    """A wrong or taken address is one clear line."""
    store = SqliteStore(tmp_path / "sluice.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unready, match=f"can't listen on {address}"):
            Metrics().serve(address, store, Off())
    with pytest.raises(Invalid, match="'here' is not HOST:PORT"):
        Metrics().serve("here", store, Off())
    ended = Metrics().serve(address, store, Off())
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        assert b"sluice_volumes" in answer.read()
    ended()
    store.close()


def test_a_scrape_shows_how_full_pools_are_and_what_trims_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One series a level, of which one is 1; a pool that can't be looked at has none."""
    world = World(SqliteStore(tmp_path / "sluice.db"), total=1000)
    side = world.agents["n1"]
    world.disks["n1"].others, world.disks["n1"].metadata_total = 910, 100
    trimming = Trimming(world.store, side.pools, side.staging._stack, side.staging._kernel, side.locks, every=0.0)
    trimming.trimmed["fast"], trimming.last["fast"] = 4096, 1.5e9
    metrics = Metrics()
    metrics.watch(side.pools, trimming, Measuring(None, Off()), world.store)
    shown = generate_latest(metrics.registry).decode().splitlines()
    monkeypatch.setattr(side.pool().backend, "_open", False)
    away = generate_latest(metrics.registry).decode()
    world.close()

    for line in (
        'sluice_pool_data_size_bytes{pool="fast"} 1000.0',
        'sluice_pool_data_used_bytes{pool="fast"} 910.0',
        'sluice_pool_metadata_size_bytes{pool="fast"} 100.0',
        'sluice_pool_metadata_used_bytes{pool="fast"} 0.0',
        'sluice_pool_promised_bytes{pool="fast"} 0.0',
        'sluice_pool_guard{level="ok",pool="fast"} 0.0',
        'sluice_pool_guard{level="no-new-volumes",pool="fast"} 1.0',
        'sluice_pool_guard_entered_total{level="no-new-volumes",pool="fast"} 1.0',
        'sluice_pool_guard_entered_total{level="emergency",pool="fast"} 0.0',
        'sluice_trimmed_bytes_total{pool="fast"} 4096.0',
        'sluice_trim_last_timestamp_seconds{pool="fast"} 1.5e+09',
    ):
        assert line in shown
    assert "sluice_pool_guard{" not in away
    assert "sluice_trimmed_bytes_total{" in away

"""Prometheus metrics, and where they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from csi_driver.errors import Invalid, StorageError, Unready
from csi_driver.guard import Level
from csi_driver.records import Volume
from csi_driver.states import STATES, state_of
from csi_driver.volume_metrics import VolumeMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from csi_driver.agent.trimming import Trimming
    from csi_driver.measuring import Measuring
    from csi_driver.pools import ServedPools
    from csi_driver.store.base import Store
    from qos.enforce import Enforcement

log = structlog.get_logger(__name__)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Count what the server does. One registry an object, so that tests don't meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rpcs = Histogram(
            "sluice_rpc_seconds",
            "Seconds that a CSI call took.",
            ("method", "code"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._programs = Histogram(
            "sluice_program_seconds",
            "Seconds that a program took.",
            ("program",),
            buckets=SECONDS,
            registry=self.registry,
        )

    def rpc(self, rpc: str, code: str, seconds: float) -> None:
        """Count a call that ended."""
        self._rpcs.labels(rpc, code).observe(seconds)

    def program(self, name: str, seconds: float) -> None:
        """Count a program that ended."""
        self._programs.labels(name).observe(seconds)

    def watch(self, pools: ServedPools, trimming: Trimming, measuring: Measuring, store: Store) -> None:
        """Show the fill of this node's pools, what trims gave back to them, and what its volumes do."""
        self.registry.register(Filled(pools, trimming))
        self.registry.register(VolumeMetrics(measuring, store))

    def serve(self, address: str, store: Store, enforcement: Enforcement) -> Callable[[], None]:
        """Serve at HOST:PORT in a thread, nowhere when the address is empty; return how to end it.

        Raises Invalid for what is no address, Unready when it is taken.
        """
        self.registry.register(Looked(store, enforcement))
        if not address:
            return lambda: None
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise Invalid(f"metrics: {address!r} is not HOST:PORT, such as 127.0.0.1:9809")
        try:
            server, thread = start_http_server(int(port), host or "127.0.0.1", registry=self.registry)
        except OSError as error:
            raise Unready(f"metrics: can't listen on {address}: {error.strerror}; give another --metrics") from error

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return end


class Looked(Collector):
    """Look, at each scrape, at what is true then."""

    def __init__(self, store: Store, enforcement: Enforcement) -> None:
        self._store = store
        self._enforcement = enforcement
        import psutil  # noqa: PLC0415 - 9 ms of every start, and nothing before the first scrape needs it

        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """Yield volumes by state, limits wanted and seen, drift, and the server's own size."""
        yield from self._volumes()
        yield from self._limits()
        yield gauge(
            "sluice_limits_repaired_total",
            "Limits that had changed and were put right.",
            self._enforcement.drift_repaired,
        )
        yield gauge("sluice_limits_failures_total", "Limits that could not be put right.", self._enforcement.failures)
        yield gauge("sluice_resident_bytes", "Resident memory of the server.", self._process.memory_info().rss)
        yield gauge("sluice_threads", "Threads of the server.", self._process.num_threads())
        yield gauge("sluice_file_descriptors", "Open file descriptors of the server.", self._process.num_fds())

    def _volumes(self) -> Iterator[Metric]:
        counts = dict.fromkeys(STATES, 0)
        try:
            for record in self._store.list(Volume):
                counts[state_of(record)] += 1
        except StorageError as error:
            log.warning("volumes are not counted", reason=str(error))
            return
        family = GaugeMetricFamily("sluice_volumes", "Volumes by state.", labels=("state",))
        for state, count in counts.items():
            family.add_metric((state,), count)
        yield family

    def _limits(self) -> Iterator[Metric]:
        shown = {"wanted": self._enforcement.wanted(), "seen": self._enforcement.seen()}
        family = GaugeMetricFamily(
            "sluice_limit",
            "Limits of staged volumes, per second: bytes for *bps, I/Os for *iops.",
            labels=("device", "key", "side"),
        )
        for side, limits in shown.items():
            for device in shown["wanted"]:
                for key, value in limits[device].items() if device in limits else ():
                    if value is not None:
                        family.add_metric((str(device), key, side), value)
        yield family


class Filled(Collector):
    """Look, at each scrape, how full the pools are. A pool that can't be looked at has no series then."""

    def __init__(self, pools: ServedPools, trimming: Trimming) -> None:
        self._pools = pools
        self._trimming = trimming

    def collect(self) -> Iterator[Metric]:
        """Yield sizes, the guard's level as one series a level, and how often it came to each; trims."""
        sizes = {name: GaugeMetricFamily(f"sluice_pool_{name}_bytes", text, labels=("pool",)) for name, text in SIZES}
        level = GaugeMetricFamily(
            "sluice_pool_guard", "1 for the level that a pool's fill is at.", labels=("pool", "level")
        )
        entered = CounterMetricFamily(
            "sluice_pool_guard_entered_total", "How often a pool's fill came to a level.", labels=("pool", "level")
        )
        for pool in self._pools:
            try:
                fill = pool.look()
            except StorageError as error:
                log.warning("a pool is not measured", pool=pool.spec.name, reason=str(error))
                continue
            values = (fill.total, fill.used, fill.metadata_total, fill.metadata_used, pool.ledger.promised())
            for family, value in zip(sizes.values(), values, strict=True):
                family.add_metric((pool.spec.name,), value)
            for each in Level:
                level.add_metric((pool.spec.name, each.label), each is pool.level)
                entered.add_metric((pool.spec.name, each.label), pool.entered[each])
        yield from (*sizes.values(), level, entered)
        yield from self._trims()

    def _trims(self) -> Iterator[Metric]:
        given = CounterMetricFamily("sluice_trimmed_bytes_total", "Bytes that trims gave back.", labels=("pool",))
        last = GaugeMetricFamily(
            "sluice_trim_last_timestamp_seconds", "When a volume of the pool was last trimmed.", labels=("pool",)
        )
        for pool, size in self._trimming.trimmed.copy().items():
            given.add_metric((pool,), size)
        for pool, at in self._trimming.last.copy().items():
            last.add_metric((pool,), at)
        yield from (given, last)


SIZES = (
    ("data_size", "What a pool can hold."),
    ("data_used", "What is allocated in a pool."),
    ("metadata_size", "What a pool's metadata can hold, 0 where it has none of its own."),
    ("metadata_used", "What is allocated of a pool's metadata."),
    ("promised", "What a pool has promised to volumes and snapshots."),
)


def gauge(name: str, documentation: str, value: float) -> Metric:
    """Return one number, as a counter when its name ends in `_total`."""
    if name.endswith("_total"):
        return CounterMetricFamily(name, documentation, value=value)
    return GaugeMetricFamily(name, documentation, value=value)

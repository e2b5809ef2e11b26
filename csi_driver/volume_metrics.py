"""What Prometheus is shown of each staged volume: latency, I/Os, bytes, and how far limits hold it back.

A volume's series have the labels by which Kubernetes' own are found, `namespace` and `persistentvolumeclaim`, so that
panels can join them. A third of the kernel's bounds is shown, which are steps of two: twenty buckets a volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from csi_driver.errors import StorageError
from csi_driver.records import Volume
from qos.errors import Unenforceable
from qos.iofiles import IoStat
from qos.meter import at_most

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from csi_driver.measuring import Measuring
    from csi_driver.store.base import Store
    from qos.meter import Counted

log = structlog.get_logger(__name__)

EVERY = 3
LABELS = ("volume", "namespace", "persistentvolumeclaim")
NANO = 1e9

Labels = tuple[str, str, str]


class VolumeMetrics(Collector):
    """Look, at each scrape, at what the kernel has counted of staged volumes."""

    def __init__(self, measuring: Measuring, store: Store) -> None:
        self._measuring = measuring
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield latencies by dm statistics, I/Os and bytes by io.stat, and the time that limits held volumes back."""
        try:
            volumes = self._measuring.volumes()
            counted = self._measuring.counted(volumes)
            used = self._measuring.used()
            labels = {volume: self._labels(volume) for volume in volumes}
        except (StorageError, Unenforceable) as error:
            log.warning("volumes are not measured", reason=str(error))
            return
        yield from _latencies({labels[volume]: seen for volume, seen in counted.items()})
        yield from _used({labels[volume]: used.get(dev, IoStat()) for volume, dev in volumes.items()})
        yield from self._limited(labels)

    def _limited(self, labels: Mapping[str, Labels]) -> Iterator[Metric]:
        seconds = CounterMetricFamily(
            "sluice_volume_throttled_seconds_total",
            "Seconds in which a volume ran at 98 % or more of one of its limits.",
            labels=LABELS,
        )
        near = GaugeMetricFamily(
            "sluice_volume_limit_ratio",
            "How near a volume is to the nearest of its limits, 1 for at it.",
            labels=LABELS,
        )
        for family, found in ((seconds, self._measuring.throttled), (near, self._measuring.near)):
            for volume, value in found.copy().items():
                if volume in labels:
                    family.add_metric(labels[volume], value)
        yield from (seconds, near)

    def _labels(self, volume: str) -> Labels:
        record = self._store.get(Volume, volume)
        namespace, _, claim = record.spec.claim.rpartition("/") if record else ("", "", "")
        return volume, namespace, claim


def _latencies(counted: Mapping[Labels, Counted]) -> Iterator[Metric]:
    every = HistogramMetricFamily(
        "sluice_volume_io_seconds",
        "Latency of a volume's I/Os, reads and writes, below its limits and above its pool; of this boot and staging.",
        labels=LABELS,
    )
    apart = SummaryMetricFamily(
        "sluice_volume_op_seconds", "The same, reads and writes apart: their number and sum.", labels=(*LABELS, "op")
    )
    for labels, seen in counted.items():
        buckets = [(f"{bound:g}", count) for bound, count in at_most(seen.buckets, EVERY)]
        total = sum(seen.buckets)
        every.add_metric(labels, [*buckets, ("+Inf", total)], (seen.reads_ns + seen.writes_ns) / NANO)
        apart.add_metric((*labels, "read"), seen.reads, seen.reads_ns / NANO)
        apart.add_metric((*labels, "write"), seen.writes, seen.writes_ns / NANO)
    yield from (every, apart)


def _used(used: Mapping[Labels, IoStat]) -> Iterator[Metric]:
    ios = CounterMetricFamily(
        "sluice_volume_ios_total", "I/Os that pods made on a volume, which limits count.", labels=(*LABELS, "op")
    )
    size = CounterMetricFamily("sluice_volume_bytes_total", "Bytes of these I/Os.", labels=(*LABELS, "op"))
    for labels, stat in used.items():
        for op, count, length in (
            ("read", stat.rios, stat.rbytes),
            ("write", stat.wios, stat.wbytes),
            ("discard", stat.dios, stat.dbytes),
        ):
            ios.add_metric((*labels, op), count)
            size.add_metric((*labels, op), length)
    yield from (ios, size)

"""Limits that are measured: loads, and what they get in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kernel import gauge
from tests.kernel.pod import Load, Pod

if TYPE_CHECKING:
    from tests.kernel.volume import Volume

MIB = 1 << 20
FILLED = 128 * MIB
OFF = {"readIOPS": "max", "writeIOPS": "max", "readBPS": "max", "writeBPS": "max"}
NAMES = {"riops": "readIOPS", "wiops": "writeIOPS", "rbps": "readBPS", "wbps": "writeBPS"}
# Several at a time: one by one, 2,000 a second are a whole emulated processor's work, and the load would fall short.
BATCHED = ("--direct=1", "--iodepth_batch=8", "--iodepth_batch_complete_max=32")
SMALL, LARGE = Load("randread", "4k", job=BATCHED), Load("read", "1m", depth=4)
SMALL_WRITES, LARGE_WRITES = Load("randwrite", "4k", job=BATCHED), Load("write", "1m", depth=4)


def filled(volume: Volume) -> Volume:
    """Publish a volume, and fill it, so that no later write allocates."""
    volume.up()
    volume.fill(FILLED)
    return volume


def hold(volume: Volume, key: str, limit: int, load: Load, within: float) -> None:
    """Set one limit, and measure what a load in a pod gets by the kernel's count."""
    volume.modify(**OFF | {NAMES[key]: str(limit)})
    with Pod("a") as pod:
        running = pod.fio(load, volume.file)
        gauge.settle()
        gauge.rate_of(volume.number, key, limit, within)
        running.end()


def two_pods_share(volume: Volume, limit: int) -> None:
    """Let two pods read a volume, and measure what they get in sum, within 3 %, and that none goes without."""
    volume.modify(**OFF | {"readIOPS": str(limit)})
    with Pod("a") as first, Pod("b") as second:
        loads = [pod.fio(SMALL, volume.file) for pod in (first, second)]
        gauge.settle()
        before = [gauge.count(volume.number, "riops", pod.path) for pod in (first, second)]
        gauge.rate_of(volume.number, "riops", limit, 0.03)
        done = [
            gauge.count(volume.number, "riops", pod.path) - count
            for pod, count in zip((first, second), before, strict=True)
        ]
        for load in loads:
            load.end()

    assert min(done) > max(done) / 10, done

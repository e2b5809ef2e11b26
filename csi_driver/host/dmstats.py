"""Latency histograms of mapped devices, which the kernel counts by itself: device-mapper's statistics, by ioctl.

Documentation/admin-guide/device-mapper/statistics.rst. A *region* is a part of a device with counters of its own; ours
is the whole device, also what it will be after it grew, in one piece. It stays when a table is loaded or our process
goes, and goes with the device. It is known by the program that it says it is of, and by the version of its bounds.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from csi_driver.errors import Unready
from csi_driver.host.block import SECTOR
from csi_driver.host.dm import control
from csi_driver.host.dmtable import list_buffer, message_buffer, names_of, text_of
from csi_driver.host.syscalls import DM_LIST_DEVICES, DM_TARGET_MSG, IOCTL_BUFFER
from qos.meter import BOUNDS_NS, Counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from csi_driver.host.syscalls import Kernel
    from qos.limits import DevNo

T = TypeVar("T")

PROGRAM, VERSION = "sluice", "v1"
WHOLE = 1 << 60
"""Sectors of a region: more than any device has, so that what a device grows by is counted too."""
_EXTENT = f"0+{WHOLE}"
_CREATE = (
    f"@stats_create {_EXTENT} /1 2 precise_timestamps histogram:{','.join(map(str, BOUNDS_NS))} {PROGRAM} {VERSION}"
)
_SMALL, _LARGE = 2048, 1 << 20
_COUNTERS = 13
"""Numbers of a line, between the extent and the histogram."""


class _Region(NamedTuple):
    number: int
    current: bool


class Statistics:
    """Make and read the histograms of mapped devices, which are named by their numbers."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._lock = threading.Lock()

    def devices(self, prefix: str = "sluice-") -> dict[str, DevNo]:
        """Return the mapped devices whose names begin with a prefix, by one look. Raises Unready."""
        try:
            with control() as fd:
                found = _fitting(lambda size: names_of(self._kernel.query_long(fd, DM_LIST_DEVICES, list_buffer(size))))
        except OSError as error:
            raise Unready(f"can't list the mapped devices: {error}") from error
        return {name: dev for name, dev in found.items() if name.startswith(prefix)}

    def ensure(self, dev: DevNo) -> bool:
        """See that a device has one histogram of ours, and return whether it had none. Raises Unready.

        To make one, the kernel waits for what is in flight. What somebody holds back by a suspend stays held back.
        """
        with self._lock:
            regions = self._regions(dev)
            kept = next((region.number for region in regions if region.current), None)
            for region in regions:
                if region.number != kept:
                    self._change(dev, f"@stats_delete {region.number}")
            if kept is None:
                self._change(dev, _CREATE)
            return kept is None

    def read(self, devices: Iterable[DevNo]) -> dict[DevNo, Counted]:
        """Return what devices have counted. One without a histogram of ours, or that is gone, has no entry."""
        found = {}
        try:
            with control() as fd:
                for dev in devices:
                    if (counted := self._read(fd, dev)) is not None:
                        found[dev] = counted
        except OSError as error:
            raise Unready(f"can't read the histograms of mapped devices: {error}") from error
        return found

    def _read(self, fd: int, dev: DevNo) -> Counted | None:
        """Try the first region, which is ours unless somebody else uses statistics too; then look for it."""
        counted = self._printed(fd, dev, 0)
        if counted is None:
            with contextlib.suppress(Unready):  # the device is gone, which is no trouble of the others'
                kept = next((region.number for region in self._regions(dev) if region.current), None)
                counted = None if kept is None else self._printed(fd, dev, kept)
        return counted

    def _printed(self, fd: int, dev: DevNo, number: int) -> Counted | None:
        """Return what a region has counted, None when it isn't ours, or is gone."""
        try:
            return parse(self._told(fd, dev, f"@stats_print {number}"))
        except OSError:
            return None

    def _regions(self, dev: DevNo) -> tuple[_Region, ...]:
        try:
            with control() as fd:
                text = self._told(fd, dev, f"@stats_list {PROGRAM}")
        except OSError as error:
            raise Unready(f"can't list the histograms of {dev}: {error}") from error
        return tuple(_region(line) for line in text.splitlines())

    def _told(self, fd: int, dev: DevNo, message: str) -> str:
        return _fitting(
            lambda size: text_of(self._kernel.query_long(fd, DM_TARGET_MSG, message_buffer(dev, message, size)))
        )

    def _change(self, dev: DevNo, message: str) -> None:
        try:
            with control() as fd:
                self._kernel.ioctl(fd, DM_TARGET_MSG, message_buffer(dev, message, IOCTL_BUFFER), path=dev)
        except OSError as error:
            raise Unready(f"device-mapper refuses {message.split(maxsplit=1)[0]} on {dev}: {error}") from error


def parse(text: str) -> Counted | None:
    """Return the counters of a region that was printed, None when it isn't ours."""
    words = text.split()
    if len(words) != _COUNTERS + 2 or words[0] != _EXTENT:
        return None
    buckets = tuple(map(int, words[-1].split(":")))
    if len(buckets) != len(BOUNDS_NS) + 1:
        return None
    reads, _, rsectors, reads_ns, writes, _, wsectors, writes_ns, _, busy_ns, *_ = map(int, words[1:-1])
    return Counted(reads, writes, rsectors * SECTOR, wsectors * SECTOR, reads_ns, writes_ns, busy_ns, buckets)


def _region(line: str) -> _Region:
    """Read a line of @stats_list: `0: 0+100 100 program aux precise_timestamps histogram:1,2`."""
    number, _, rest = line.partition(":")
    _, _, program, version, *_ = rest.split()
    return _Region(int(number), (program, version) == (PROGRAM, VERSION))


def _fitting(ask: Callable[[int], T | None]) -> T:
    """Return an answer that fits its buffer, however large that has to be."""
    size = _SMALL
    while (answer := ask(size)) is None:
        size *= 4
        if size > _LARGE:
            raise Unready(f"device-mapper has an answer of more than {_LARGE} bytes")
    return answer

"""Put a volume's limits in force and take them off, and have its latency counted from then on.

What it means when the kernel refuses is decided here alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from csi_driver.errors import StorageError, Unready
from qos.errors import Unenforceable
from qos.shares import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from csi_driver.host.block import Device
    from csi_driver.host.dmstats import Statistics
    from csi_driver.records import Volume
    from qos.enforce import Enforcement
    from qos.iocost import Cost
    from qos.limits import DevNo, Limits

log = structlog.get_logger(__name__)


def yielding(record: Volume, emergency: str) -> str:
    """Return what to say of a volume that is held to its least for its pool's sake, "" for one that isn't."""
    return f"its writes are held to its least rate: {emergency}" if record.spec.qos.least and emergency else ""


class Limiting:
    """Stand between records and the enforcement of limits."""

    def __init__(self, enforcement: Enforcement, statistics: Statistics | None = None) -> None:
        """Take what holds limits, and what makes histograms: None where volumes are no mapped devices."""
        self._enforcement = enforcement
        self._statistics = statistics

    @property
    def helper_prefix(self) -> tuple[str, ...]:
        """Return the words to put before the argv of mkfs, fsck and growfs."""
        return self._enforcement.helper_prefix

    def apply(self, record: Volume, device: Device, emergency: str) -> Limits | None:
        """Limit a volume's device and return what the kernel shows, None where it refuses a tier that may go without.

        `emergency` says what is wrong with the volume's pool, "" when nothing is: a tier that yields is held to its
        least then. Raises Unready for a tier that must not run without its limits.
        """
        self._count(record, device)
        qos = record.spec.qos
        try:
            return self._enforcement.apply(device.dev, qos.least if qos.least and emergency else qos.limits)
        except Unenforceable as error:
            if record.spec.qos.required:
                tier = record.spec.qos.tier
                raise Unready(f"volume {record.id}: tier {tier} must not run without its limits: {error}") from error
            log.warning("limits are not in force", volume=record.id, reason=str(error))
            return None

    def hold(self, record: Volume, costs: Mapping[DevNo, Cost], users: Callable[[], frozenset[str]]) -> None:
        """Keep a volume's floor on all disks below it, for those who use it; they are asked for where it has one.

        Raises Unready for a tier that must not run without.
        """
        floor = record.status.history.floor
        if not floor:
            self._enforcement.release(record.id)
            return
        try:
            self._enforcement.hold(record.id, Held(floor, costs, users()))
        except Unenforceable as error:
            if record.spec.qos.required:
                tier = record.spec.qos.tier
                raise Unready(f"volume {record.id}: tier {tier} must not run without its floor: {error}") from error
            log.warning("a floor is not in force", volume=record.id, reason=str(error))

    def use(self, record_id: str, users: frozenset[str]) -> None:
        """Give the floor of a staged volume, where it has one, to those who use it from now on. Raises Unready."""
        try:
            self._enforcement.use(record_id, users)
        except Unenforceable as error:
            raise Unready(f"volume {record_id}: its pod can't be given its floor: {error}") from error

    def lift(self, record_id: str, device: Device) -> None:
        """Take the limits off a device that is about to go; its line goes with it, so a refusal is only said."""
        self._enforcement.release(record_id)
        try:
            self._enforcement.lift(device.dev)
        except Unenforceable as error:
            log.warning("limits are not lifted", device=str(device.path), reason=str(error))

    def _count(self, record: Volume, device: Device) -> None:
        """See that the kernel counts latencies. A volume that isn't measured is no reason to have none."""
        if self._statistics is None:
            return
        try:
            self._statistics.ensure(device.dev)
        except StorageError as error:
            log.warning("latency is not counted", volume=record.id, reason=str(error))

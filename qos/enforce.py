"""See, plan, write, read back: on demand, and every few seconds against drift."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol

from qos.cgroup import RootCgroup
from qos.errors import DeviceGone, Unenforceable
from qos.limits import UNLIMITED, DevNo, Limits
from qos.plan import plan
from qos.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qos.cgroup import Cgroup, HelperCgroup
    from qos.iofiles import IoStat
    from qos.plan import Write
    from qos.shares import Held

PERIOD: Final = 5.0  # seconds: what a volume may run unlimited after somebody took its limit away
_STOP_SECONDS: Final = 10.0


class Enforcement(Protocol):
    """Say what the rest of the driver may ask for, whether limits are on (Enforcer) or off (Off)."""

    @property
    def helper_prefix(self) -> tuple[str, ...]:
        """Return the words to put before the argv of mkfs, fsck and growfs; none without a helper cgroup."""

    @property
    def drift_repaired(self) -> int:
        """Return how many lines were put right since the start: limits that somebody else had changed."""

    @property
    def failures(self) -> int:
        """Return how many times drift was seen, or looked for, and could not be put right."""

    def apply(self, dev: DevNo, limits: Limits) -> Limits:
        """Limit a device from now on, and return what the kernel shows. Raises Unenforceable."""

    def lift(self, dev: DevNo) -> None:
        """Take the limits off and forget the device. Call it before the device goes: its number is used again."""

    def forget(self, dev: DevNo) -> None:
        """Stop caring for a device, without a write."""

    def hold(self, name: str, held: Held) -> None:
        """Keep the floor of a volume in use, instead of what it had. Raises Unenforceable."""

    def use(self, name: str, users: frozenset[str]) -> None:
        """Give the floor of a volume, where it has one, to those who use it now. Raises Unenforceable."""

    def release(self, name: str) -> None:
        """Forget a volume's floor."""

    def wanted(self) -> Mapping[DevNo, Limits]:
        """Return the limits that are held, by device."""

    def seen(self) -> Mapping[DevNo, Limits]:
        """Return the limits that the kernel shows, by one read; other people's devices too."""

    def used(self) -> Mapping[DevNo, IoStat]:
        """Return what was done on each device below the ancestor, by one read; other people's devices too."""

    def reconcile(self) -> int:
        """Look for drift once, put it right, and return how many lines were."""

    def start(self) -> None:
        """Reconcile again and again in a thread, until `stop`."""

    def stop(self) -> None:
        """End the thread. Limits stay: a driver that restarts must not set its volumes free."""


class Enforcer:
    """Hold every wanted limit on the ancestor. Safe to call from many threads."""

    def __init__(
        self,
        ancestor: Cgroup,
        *,
        period: float = PERIOD,
        log: Callable[..., None] | None = None,
        helper: HelperCgroup | None = None,
        root: RootCgroup | None = None,
    ) -> None:
        """Take the ancestor, the seconds between looks, and where one-line warnings go (default: logger `qos`)."""
        self._ancestor = ancestor
        self._period = period
        self._log = log or logging.getLogger("qos").warning
        self._shares = Shares(ancestor, root or RootCgroup(), self._log)
        self._helper = helper
        # Held over a whole pass (look, plan, write), not only over the table: a plan made before an `apply` must not
        # be carried out after it.
        self._lock = threading.Lock()
        self._wanted: dict[DevNo, Limits] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.drift_repaired = 0
        self.failures = 0

    @property
    def helper_prefix(self) -> tuple[str, ...]:
        """Return the words to put before the argv of mkfs, fsck and growfs; none without a helper cgroup."""
        return () if self._helper is None else self._helper.prefix()

    def apply(self, dev: DevNo, limits: Limits) -> Limits:
        """Limit a device from now on, and return what the kernel shows.

        Whatever line stands under the number is replaced. Raises Unenforceable, and then holds the device to what was
        wanted of it before, if anything was.
        """
        with self._lock:
            shown = self._ancestor.write_limits(dev, limits)
            self._wanted[dev] = limits
            return shown

    def lift(self, dev: DevNo) -> None:
        """Take the limits off and forget the device; fine when it is gone already.

        Raises Unenforceable if the kernel refuses. The device is forgotten even then: its number will be another's.
        """
        with self._lock:
            self._wanted.pop(dev, None)
            self._ancestor.clear(dev)

    def forget(self, dev: DevNo) -> None:
        """Stop caring for a device, without a write."""
        with self._lock:
            self._wanted.pop(dev, None)

    def hold(self, name: str, held: Held) -> None:
        """Keep the floor of a volume in use, instead of what it had. Raises Unenforceable, and then keeps that."""
        with self._lock:
            self._shares.hold(name, held)

    def use(self, name: str, users: frozenset[str]) -> None:
        """Give the floor of a volume, where it has one, to those who use it now. Raises Unenforceable."""
        with self._lock:
            self._shares.use(name, users)

    def release(self, name: str) -> None:
        """Forget a volume's floor; its pods' weights are put right by the next look."""
        with self._lock:
            self._shares.release(name)

    def wanted(self) -> Mapping[DevNo, Limits]:
        """Return a copy of the limits that are held, by device."""
        with self._lock:
            return dict(self._wanted)

    def seen(self) -> Mapping[DevNo, Limits]:
        """Return the limits that the kernel shows, by one read; other people's devices too. Raises Unenforceable."""
        return self._ancestor.read_limits()

    def used(self) -> Mapping[DevNo, IoStat]:
        """Return what was done on each device below the ancestor, by one read. Raises Unenforceable."""
        return self._ancestor.io_stat()

    def reconcile(self) -> int:
        """Look for drift once, put it right, and return how many lines were.

        What can't be put right is counted in `failures` and logged; one device's trouble doesn't keep others from
        their limits. Never raises Unenforceable.
        """
        with self._lock:
            try:
                self._restore_io()
                writes = plan(self._wanted, self._ancestor.read_limits())
            except Unenforceable as error:
                self._fail(f"limits are not enforced on {len(self._wanted)} devices: {error}")
                return 0
            repaired = sum(self._repair(write) for write in writes) + self._keep_shares()
            self.drift_repaired += repaired
            return repaired

    def start(self) -> None:
        """Reconcile again and again in one daemon thread, until `stop`. A second start does nothing."""
        if self._thread is None:
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._ended,), name="qos-enforcer", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for a pass that runs. Limits stay: a restart must not set volumes free."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join(_STOP_SECONDS)
            self._thread = None

    def _run(self, ended: threading.Event) -> None:
        """Reconcile until the end, whatever happens in between: without this thread drift goes unseen."""
        while not ended.wait(self._period):
            try:
                self.reconcile()
            except Exception as error:  # noqa: BLE001 - a bug in a pass must not end the passes
                self._fail(f"reconcile limits: {type(error).__name__}: {error}: this is a bug, please report it")

    def _restore_io(self) -> None:
        """Bring io.max back where somebody took io from the ancestor; all limits went with it."""
        if not self._ancestor.has_io():
            self._log(f"io is missing from {self._ancestor}, and all limits with it: enabling it again")
            self._ancestor.repair()

    def _keep_shares(self) -> int:
        """Keep the floors of volumes, and return how many lines somebody had changed."""
        try:
            return self._shares.keep()
        except Unenforceable as error:
            self._fail(f"floors are not enforced: {error}")
            return 0

    def _repair(self, write: Write) -> bool:
        """Carry out one write of a plan, and return whether the kernel took it."""
        try:
            self._ancestor.write_limits(write.dev, write.limits)
        except DeviceGone as error:
            # Kept, the line would be put on whatever device gets the number next.
            del self._wanted[write.dev]
            self._fail(f"device {write.dev} went without its limits being lifted, forgetting it: {error}")
            return False
        except Unenforceable as error:
            self._fail(f"limits are not enforced on {write.dev}: {error}")
            return False
        self._log(f"limits of {write.dev} on {self._ancestor} had been changed: set back to {write.limits}")
        return True

    def _fail(self, message: str) -> None:
        """Count and say that something could not be put right."""
        self.failures += 1
        self._log(message)


class Off:
    """Apply nothing and hold nothing (`--qos off`)."""

    helper_prefix: tuple[str, ...] = ()
    drift_repaired = 0
    failures = 0

    def apply(self, dev: DevNo, limits: Limits) -> Limits:  # noqa: ARG002 - the surface is Enforcement's
        """Return that there is no limit."""
        return UNLIMITED

    def lift(self, dev: DevNo) -> None:
        """Do nothing."""

    def forget(self, dev: DevNo) -> None:
        """Do nothing."""

    def hold(self, name: str, held: Held) -> None:
        """Do nothing."""

    def use(self, name: str, users: frozenset[str]) -> None:
        """Do nothing."""

    def release(self, name: str) -> None:
        """Do nothing."""

    def wanted(self) -> Mapping[DevNo, Limits]:
        """Return nothing."""
        return {}

    def seen(self) -> Mapping[DevNo, Limits]:
        """Return nothing."""
        return {}

    def used(self) -> Mapping[DevNo, IoStat]:
        """Return nothing."""
        return {}

    def reconcile(self) -> int:
        """Return that nothing was repaired."""
        return 0

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

"""A sim pool of a fake machine: its devices have sizes, numbers that are used again, and holders."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from csi_driver.backends.sim import SimBackend
from csi_driver.errors import InUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.backends.base import Frozen, Passport
    from csi_driver.deadline import Deadline
    from csi_driver.host.block import Device
    from tests.fakes.life import Life
    from tests.fakes.machine import FakeMachine


class FakeBackend(SimBackend):
    """Serve a machine's pool for one life: every change is an effect of it."""

    def __init__(self, machine: FakeMachine, life: Life) -> None:
        super().__init__(machine.pool)
        self._machine = machine
        self._life = life

    def open(self, identity: str) -> None:
        """Claim or check."""
        with self._effect("claim the pool", not self._pool.marker and not identity):
            super().open(identity)

    def create(self, passport: Passport, size: int) -> bool:
        """Make."""
        with self._effect(f"make image {passport.id}", passport.id not in self._pool.images):
            return super().create(passport, size)

    def cut(self, source: str, passport: Passport, size: int, frozen: Frozen) -> bool:
        """Copy. Two effects: the copy while the source is still, and its name once the source is let go."""
        with self._effect(f"name image {passport.id}", passport.id not in self._pool.images):
            return super().cut(source, passport, size, self._copying(passport.id, frozen))

    def expand(self, record_id: str, size: int) -> bool:
        """Grow."""
        image = self._pool.images.get(record_id)
        with self._effect(f"grow image {record_id}", image is not None and image.size < size):
            return super().expand(record_id, size)

    def delete(self, record_id: str) -> bool:
        """Free."""
        if record_id in self._pool.devices:
            self._machine.faults.append(f"image {record_id} is deleted under its device")
        with self._effect(f"delete image {record_id}", record_id in self._pool.images):
            return super().delete(record_id)

    def amend(self, record_id: str, passport: Passport) -> None:
        """Write the passport."""
        with self._effect(f"amend passport of {record_id}", wanted=True):
            super().amend(record_id, passport)

    def attach(self, record_id: str, sector_size: int, deadline: Deadline) -> Device:  # noqa: ARG002 - the contract's
        """Attach, with the size that the image has now."""
        self._check()
        with self._machine.lock:
            size = self._image(record_id).size
            with self._effect(f"attach {record_id}", record_id not in self._pool.devices):
                if record_id not in self._pool.devices:
                    device = self._machine.new_loop()
                    self._pool.devices[record_id] = device
                    self._machine.sizes[device.dev] = size
                return self._pool.devices[record_id]

    def resize(self, record_id: str, deadline: Deadline) -> None:  # noqa: ARG002 - the contract's
        """Let the device see the image's size."""
        with self._machine.lock:
            device = self._pool.devices.get(record_id)
            if device is not None:
                size = self._image(record_id).size
                with self._effect(f"resize device of {record_id}", self._machine.sizes[device.dev] != size):
                    self._machine.sizes[device.dev] = size

    def detach(self, record_id: str, deadline: Deadline) -> bool:  # noqa: ARG002 - the contract's
        """Detach, unless a mapping or a mount holds the device."""
        with self._machine.lock:
            device = self._pool.devices.get(record_id)
            if device is None:
                self._life.check()
                return False
            held = any(one.below == device.dev for one in self._machine.mapped.values())
            if held or self._machine.mounted_from(device.dev) or self._machine.opened[device.dev]:
                raise InUse(f"can't detach {device.path}: it is mounted or mapped")
            with self._effect(f"detach {record_id}", wanted=True):
                del self._pool.devices[record_id]
                self._machine.gone(device)
            return True

    @contextlib.contextmanager
    def _copying(self, record_id: str, frozen: Frozen) -> Iterator[Deadline | None]:
        with frozen as by, self._effect(f"copy to {record_id}", wanted=True):
            yield by

    @contextlib.contextmanager
    def _effect(self, what: str, wanted: bool) -> Iterator[None]:
        """Count what changes something; look at all else."""
        self._life.check()
        if not wanted:
            yield
            return
        with self._life.effect(what):
            yield

"""What the state machine needs of a world: calls by CSI's messages, ends of processes, and a look at what is there."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from csi_driver.records import Snapshot, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from csi_driver.store.base import Store
    from qos.limits import Limits


def brief(value: object) -> str:
    """Return a dataclass in few words: its name, and the fields that aren't what they are by default."""
    told = [one for one in fields(value) if getattr(value, one.name) != one.default]  # type: ignore[arg-type]
    return f"{type(value).__name__}({', '.join(f'{one.name}={getattr(value, one.name)!r}' for one in told)})"


Code = grpc.StatusCode
CONTROLLER = "controller"
A = Volume | Snapshot


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what a call brought. `code` None: whom it was sent to died before it answered."""

    code: Code | None
    message: Any = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """Say who dies during the next call, and at which of its effects: `back` at once, or only when it is called back.

    `who` are nodes, or the controller alone; those that don't come to that effect live on.
    """

    who: tuple[str, ...]
    effects: int
    when: str
    back: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """Hold a mount of a volume. `raw`: the device itself is shown, not its file system."""

    path: str
    read_only: bool
    raw: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Up:
    """Hold a volume's device: its size in bytes, the limits that the kernel has, and where it is shown.

    Of half a stack, which a cut left, only the lower half is there, and its size is told as 0.
    """

    size: int
    limits: Limits | None
    shown: frozenset[Shown] = frozenset()

    def __repr__(self) -> str:
        shown = ", ".join(f"{one.path}{' ro' * one.read_only}{' raw' * one.raw}" for one in self.shown)
        return f"Up({self.size}, {self.limits}, {shown})"


@dataclass(frozen=True, slots=True)
class View:
    """Hold what a node's kernel and disk have, by record id; `strays` is all that belongs to no record."""

    images: Mapping[str, int]
    devices: Mapping[str, Up]
    strays: tuple[str, ...] = ()


class Driver(Protocol):
    """Be one of the worlds that the state machine is run against."""

    total: int
    """Bytes that each node's pool can promise."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of the nodes."""

    @property
    def scope(self) -> str:
        """Return what ids are made in."""

    @property
    def topology_key(self) -> str:
        """Return the key under which topologies name nodes."""

    @property
    def enforces(self) -> bool:
        """Return whether limits are applied at all."""

    @property
    def store(self) -> Store:
        """Return the records, to be read only."""

    def call(self, rpc: str, request: Any, node: str = "") -> Answer:  # noqa: ANN401 - any message
        """Send a message to the controller, or to a node. Whoever dies during it is buried, and maybe back, after."""

    def arm(self, cut: Cut) -> None:
        """Let somebody die during the next call."""

    def died(self) -> bool:
        """Return whether somebody died since this was asked last."""

    def unsure(self) -> bool:
        """Return whether, since this was asked last, somebody wrote a record and could not know whether it landed."""

    def up(self, node: str) -> bool:
        """Return whether a node's driver runs."""

    def kill(self, node: str) -> None:
        """End a node's driver at once."""

    def stop(self, node: str) -> None:
        """End a node's driver in good order."""

    def start(self, node: str) -> None:
        """Start a node's driver."""

    def restart_controller(self) -> None:
        """End the controller at once, and start another."""

    def reboot(self, node: str) -> None:
        """Take the power from a node, and start it again with its driver."""

    def settle(self) -> None:
        """Wait until all that runs has done what there is to do."""

    def view(self, node: str) -> View:
        """Look at a node's kernel and disk."""

    def folder(self, node: str) -> Path:
        """Return the folder in which kubelet's paths are."""

    def contents(self, node: str) -> Mapping[str, Mapping[int, bytes]] | None:
        """Return what pods wrote, by record id and block, None where only `read` tells."""

    def write(self, node: str, path: Path, block: int, data: bytes) -> None:
        """Write as a pod does."""

    def read(self, node: str, path: Path, block: int) -> bytes:
        """Read as a pod does; zeros are b""."""

    def faults(self) -> list[str]:
        """Return what was seen that no driver may do."""

    def left(self, node: str) -> int | None:
        """Return the bytes that a node's ledger can still promise, None where only GetCapacity tells."""

    def close(self) -> None:
        """Leave nothing behind."""

"""Records: what must be (spec), what happened (history) and what was last seen. Frozen values, no behaviour.

A controller writes `spec`; the one agent of the node that owns the bytes writes `status`. History is durable before the
step that follows it and never falls back; what was seen can always be seen again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping  # noqa: TC003 - the stores' codec reads the fields' types at run time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from csi_driver.disks import Disk  # noqa: TC001 - the same
from qos.iocost import NO_FLOOR, Floor
from qos.limits import UNLIMITED, Limits

GIB = 1 << 30
SIZE_STEP = 4096
"""Sizes are multiples of it, so that every sector size fits."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Name the pool that is asked to take a volume. A withdrawn offer's number is never used again."""

    number: int
    node: str
    pool: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Keep why something wanted is not so: the name of a class in `errors`, its message, and what it was about.

    `about` is the number of the refused offer, or the generation of the spec that could not be met.
    """

    about: int
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Source:
    """Name what a volume is made from: a `volume` or a `snapshot`."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Say how a volume is formatted and mounted where the CSI capability names nothing else."""

    type: str = "ext4"
    mount_options: tuple[str, ...] = ()
    mkfs_options: tuple[str, ...] = ()
    read_ahead_kib: int | None = None


@dataclass(frozen=True, slots=True)
class Qos:
    """Hold the I/O budget of a volume: the tier and overrides as asked for, and the limits and floor that follow.

    `least` are the limits while its pool is in an emergency, None for a tier that doesn't yield.
    """

    tier: str = "standard"
    overrides: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = UNLIMITED
    required: bool = False
    least: Limits | None = None
    floor: Floor = NO_FLOOR


@dataclass(frozen=True, slots=True)
class History:
    """Hold what happened to the bytes of a volume or snapshot. Each entry is durable before the next step.

    accepted     the offer that the agent took; the bytes may exist from here on
    refused      the offer that it did not take, and why
    size         bytes that the pool's ledger has admitted
    floor        what the disks' ledger has admitted; unlike all else it may shrink
    sector_size  of the device, for as long as the bytes live, and of every copy; in bytes
    made         when the bytes were complete (RFC 3339, UTC); a snapshot's cut
    gone         accepted, failed and undone: no bytes are left
    condemned    deletion has begun; when it ends, the record goes
    format_begun the file system type of an mkfs that was started
    format_done  the file system type of an mkfs that ended; the volume is never formatted again
    raw          handed out as a block device: what stands there may be a pod's, whatever mkfs had begun
    """

    accepted: Offer | None = None
    refused: Failure | None = None
    size: int = 0
    floor: Floor = NO_FLOOR
    sector_size: int = 0
    made: str = ""
    gone: Failure | None = None
    condemned: bool = False
    format_begun: str = ""
    format_done: str = ""
    raw: bool = False

    def falls_back_from(self, older: History) -> bool:
        """Return whether an entry of the older history is missing or another here. It must never be true.

        An mkfs that did not end may be begun again with another type, and a volume may grow.
        """
        kept = any(getattr(older, name) and getattr(self, name) != getattr(older, name) for name in _KEPT)
        return kept or self.size < older.size or bool(older.format_begun and not self.format_begun)


_KEPT = ("accepted", "sector_size", "made", "gone", "condemned", "format_done", "raw")


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what the agent saw last. All of it can be seen again, so none of it needs to survive a power cut.

    `generation` is that of the newest spec which the kernel is known to follow, `marked` the file system that the
    passport names.
    """

    generation: int = 0
    size: int = 0
    limits: Limits | None = None
    device: str = ""
    staged: str = ""
    marked: str = ""
    abnormal: str = ""
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Join the two parts of what an agent writes about a volume or snapshot."""

    history: History = History()
    seen: Seen = Seen()

    def with_history(self, **changes: Any) -> Status:  # noqa: ANN401 - dataclasses.replace is typed so
        """Return this status with other entries in its history."""
        return dataclasses.replace(self, history=dataclasses.replace(self.history, **changes))

    def with_seen(self, **changes: Any) -> Status:  # noqa: ANN401 - the same
        """Return this status with other observations."""
        return dataclasses.replace(self, seen=dataclasses.replace(self.seen, **changes))


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """Say what a volume must be. `size` in bytes; `parameters` as the CreateVolume call gave them.

    `sector_size` 0 leaves the choice to the pool. The bytes of a `thick` volume are its own from the start, and it
    can't be cut, whatever tier it is moved to. `absent` wishes it gone; that can be taken back until its agent has
    condemned it.
    """

    name: str
    size: int
    offer: Offer | None = None
    absent: bool = False
    sector_size: int = 0
    source: Source | None = None
    qos: Qos = Qos()
    file_system: FileSystem = FileSystem()
    parameters: Mapping[str, str] = field(default_factory=dict)
    claim: str = ""
    thick: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """Say what a snapshot must be: a cut of a volume, as large as that was then. `group`: its group's id, if any."""

    name: str
    size: int
    volume: str
    offer: Offer | None = None
    absent: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Say which pool a node has. `ratio`: how many bytes may be promised for each byte it can hold."""

    name: str
    node: str
    backend: str
    path: str
    size: int = 0
    ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """Hold a pool's identity and what is left of it, in bytes: a hint for placement, not the ledger.

    left, promised  bytes that can still be promised, and that were; `left_thick` is what a new thick volume can have
    total, used     bytes that the pool can hold, and that are allocated; of its metadata 0 where it has none of its own
    guard           the label of a level in `guard.py`, "" while the pool can't be looked at
    abnormal        what is wrong, in words; a pool that only warns takes volumes all the same
    """

    identity: str = ""
    left: int = 0
    left_thick: int = 0
    promised: int = 0
    total: int = 0
    used: int = 0
    metadata_total: int = 0
    metadata_used: int = 0
    sector_size: int = 4096
    clones: bool = False
    disks: tuple[Disk, ...] = ()
    guard: str = ""
    abnormal: str = ""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Say which node this is."""

    name: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Hold a node's sign of life: a number that it raises, so that no clock has to be right."""

    beat: int = 0
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """Hold what all records have. `version` is the Store's; a swap succeeds only on the version that was read."""

    KIND: ClassVar[str]

    id: str
    spec: Any
    status: Any
    version: str = ""
    generation: int = 0
    deleting: bool = False

    def with_spec(self, **changes: Any) -> Self:  # noqa: ANN401 - dataclasses.replace is typed so
        """Return this record with other wishes."""
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, **changes))


@dataclass(frozen=True, slots=True)
class Volume(Record):
    """Remember one volume."""

    KIND: ClassVar[str] = "volume"

    spec: VolumeSpec
    status: Status = Status()


@dataclass(frozen=True, slots=True)
class Snapshot(Record):
    """Remember one snapshot."""

    KIND: ClassVar[str] = "snapshot"

    spec: SnapshotSpec
    status: Status = Status()


@dataclass(frozen=True, slots=True)
class Pool(Record):
    """Remember one pool of one node."""

    KIND: ClassVar[str] = "pool"

    spec: PoolSpec
    status: PoolStatus = PoolStatus()


@dataclass(frozen=True, slots=True)
class Node(Record):
    """Remember one node."""

    KIND: ClassVar[str] = "node"

    spec: NodeSpec
    status: NodeStatus = NodeStatus()

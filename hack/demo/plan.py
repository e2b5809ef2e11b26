"""What the demo does: phases, sizes, limits. Made here, handed to the VM as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
BACKENDS = ("lvm", "loop")
DISK = "6G"
DISK_IOPS = 1000
DISK_MIB = 50
INFERENCE_IOPS = 200

PHASE_SECONDS = 16
SETTLE_SECONDS = 2
"""The first seconds of each phase are not counted: programs start, and the disk's bucket of 100 ms empties."""

CHECKPOINTS = 630 << 30
"""Three checkpoints of 70 billion parameters in BF16, 140 GB each, and half of that again: `sluice size` says so."""
RATIO = 250
"""Bytes promised for each byte of the disk, so that a volume of this size fits: what is written is what is taken."""

TRAINING_LIMIT = "37Mi"
"""Three quarters of the demo's disk. The tier's own ceiling, 64 MiB/s and more, is for disks of GiB/s."""
TRAINING_SHARE = "three quarters"
TRAINING_LATER = "20Mi"
CHANGE_AFTER = 7.0


@dataclass(frozen=True, slots=True)
class Change:
    """Change a volume's class parameters, as a VolumeAttributesClass would, `after` seconds into a phase."""

    volume: str
    parameters: Mapping[str, str]
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Phase:
    """Run inference, with or without training, for some seconds. Changes at 0 come before the load."""

    key: str
    title: str
    training: bool
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold all that the VM needs to know. Sizes in bytes."""

    classes: Mapping[str, Mapping[str, str]]
    phases: tuple[Phase, ...]
    seconds: int = PHASE_SECONDS
    backend: str = BACKENDS[0]
    buffered: bool = False
    inference_iops: int = INFERENCE_IOPS
    sizes: Mapping[str, int] = field(default_factory=lambda: {"inference": 1 << 30, "training": CHECKPOINTS})
    filled: Mapping[str, int] = field(default_factory=lambda: {"inference": 256 * MIB, "training": 320 * MIB})

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def phases() -> tuple[Phase, ...]:
    """Return the four phases."""
    return (
        Phase("alone", "Inference alone", training=False),
        Phase(
            "unlimited",
            "Both, no limits",
            training=True,
            changes=(Change("inference", {"tier": "standard"}), Change("training", {"tier": "standard"})),
        ),
        Phase(
            "limited",
            "Both, Sluice's limits",
            training=True,
            changes=(
                Change("inference", {"tier": "inference"}),
                Change("training", {"tier": "training", "writeBPS": TRAINING_LIMIT}),
            ),
        ),
        Phase(
            "live",
            "Limit changed live",
            training=True,
            changes=(Change("training", {"writeBPS": TRAINING_LATER}, after=CHANGE_AFTER),),
        ),
    )

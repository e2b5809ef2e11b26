"""What the callers of the state machine say: create requests, uses, and the messages that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csi_driver.rpc import csi_pb2 as csi
from tests.states.driver import CONTROLLER, brief

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB, GIB = 1 << 20, 1 << 30
Mode = csi.VolumeCapability.AccessMode


@dataclass(frozen=True, slots=True, repr=False)
class Use:
    """Say how a volume is used."""

    block: bool = False
    fs: str = ""
    flags: tuple[str, ...] = ()
    shared: bool = False

    def __repr__(self) -> str:
        return brief(self)

    def message(self) -> csi.VolumeCapability:
        """Return it as CSI says it."""
        mode = Mode.SINGLE_NODE_MULTI_WRITER if self.shared else Mode.SINGLE_NODE_WRITER
        capability = csi.VolumeCapability(access_mode=Mode(mode=mode))
        if self.block:
            capability.block.SetInParent()
        else:
            capability.mount.fs_type = self.fs
            capability.mount.mount_flags.extend(self.flags)
        return capability


@dataclass(frozen=True, slots=True, repr=False)
class Ask:
    """Say what a CreateVolume asks for. `source` is a kind and a name; sizes are bytes, 0 for none.

    Nodes are numbers, since the worlds have more or less of them.
    """

    required: int = GIB
    limit: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    mutable: Mapping[str, str] = field(default_factory=dict)
    source: tuple[str, str] | None = None
    use: Use = Use()
    nodes: tuple[int, ...] = ()
    preferred: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return brief(self)

    def where(self, nodes: tuple[str, ...]) -> frozenset[str]:
        """Return the names of the nodes asked for; a number that no node has becomes a name that none has."""
        return frozenset((*nodes, "nowhere")[min(number, len(nodes))] for number in self.nodes)

    def message(self, name: str, source_id: str, key: str, names: tuple[str, ...]) -> csi.CreateVolumeRequest:
        """Return it as CSI says it."""
        request = csi.CreateVolumeRequest(name=name, volume_capabilities=[self.use.message()])
        if self.required or self.limit:
            request.capacity_range.required_bytes = self.required
            request.capacity_range.limit_bytes = self.limit
        request.parameters.update(self.parameters)
        request.mutable_parameters.update(self.mutable)
        if self.source and self.source[0] == "snapshot":
            request.volume_content_source.snapshot.snapshot_id = source_id
        elif self.source:
            request.volume_content_source.volume.volume_id = source_id
        needs = request.accessibility_requirements
        for node in sorted(self.where(names)):
            needs.requisite.add(segments={key: node})
        for number in self.preferred:
            needs.preferred.add(segments={key: names[number % len(names)]})
        return request


ASKS = {
    "plain": Ask(),
    "training": Ask(parameters={"tier": "training"}),
    "inference": Ask(parameters={"tier": "inference"}),
    "2 GiB": Ask(required=2 * GIB),
    "a byte more": Ask(required=GIB + 1),
    "any size": Ask(required=0),
    "at most half a GiB": Ask(required=0, limit=GIB // 2),
    "1 GiB and no more": Ask(required=GIB, limit=GIB),
    "a device": Ask(use=Use(block=True)),
    "xfs": Ask(use=Use(fs="xfs")),
    "a class of training": Ask(mutable={"tier": "training"}),
    "on the first": Ask(nodes=(0,)),
    "on the second": Ask(nodes=(1,)),
    "on any, rather the second": Ask(nodes=(0, 1), preferred=(1, 0)),
    "too much": Ask(required=1000 * GIB),
    "no range": Ask(required=2 * GIB, limit=GIB),
    "no such tier": Ask(parameters={"tier": "none such"}),
    "nowhere": Ask(nodes=(9,)),
}
USES = {
    "mounted": Use(),
    "a device": Use(block=True),
    "ext4": Use(fs="ext4"),
    "xfs": Use(fs="xfs"),
    "noatime": Use(flags=("noatime",)),
    "read-only": Use(flags=("ro",)),
}
CLASSES = {
    "training": {"tier": "training"},
    "inference": {"tier": "inference"},
    "standard": {"tier": "standard"},
    "500 reads": {"readIOPS": "500"},
    "no such tier": {"tier": "none such"},
    "no such key": {"colour": "blue"},
}


@dataclass(frozen=True, slots=True)
class How:
    """Say how a call is made: once, twice, or with somebody dying in it."""

    twice: bool = False
    who: str = ""
    effects: int = 0
    when: str = ""
    back: bool = False


ONCE, TWICE = How(), How(twice=True)
CUTS = {
    f"{who} dies {when} its effect {effects}{' and comes back' * back}": How(False, who, effects, when, back)
    for who, most in (("agent", 12), (CONTROLLER, 3))
    for effects in range(most)
    for when in ("before", "after")
    for back in (True, False)
}
HOWS = {"once": ONCE, "twice": TWICE} | CUTS

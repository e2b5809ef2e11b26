"""What CSI's text and the driver's promises say that a call must answer, and what must be so afterwards.

The model is of a world at rest: every call finds all work done that can be done. What a call that somebody died in has
done is not foretold but looked at, and has to be between before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from csi_driver import parameters
from csi_driver.controller.offers import ERRORS
from csi_driver.controller.requests import DEFAULT_SIZE, SizeRange
from csi_driver.errors import Invalid, OutOfRange
from csi_driver.ids import new_id
from csi_driver.records import SIZE_STEP, Qos
from csi_driver.rpc.status import code_of
from tests.states.driver import Code
from tests.states.things import ACCEPTED, CONDEMNED, GONE, MADE, OFFERED, REFUSED, Thing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qos.limits import Limits
    from qos.tiers import Tier
    from tests.states.asking import Ask
    from tests.states.driver import Driver

Key = tuple[str, str]
"""Kind and CSI name."""
SAME = Thing("", "same", "")
"""What stands for: as it was before the call."""


@dataclass(frozen=True, slots=True, repr=False)
class Expect:
    """Say which codes are right, and what a thing is after OK and after any other of them; None: there is none.

    `in_use` is what it is after FAILED_PRECONDITION, where that is one of several.

    A thing without a node is on the one that the answer names, which must be one of `nodes`.
    """

    codes: frozenset[Code]
    after: Thing | None = SAME
    refused: Thing | None = SAME
    nodes: tuple[str, ...] = ()
    in_use: Thing | None = SAME

    def __repr__(self) -> str:
        codes = "/".join(code.name for code in self.codes)
        return f"{codes}, after={self.after}, refused={self.refused}"


def only(code: Code, after: Thing | None = SAME, refused: Thing | None = SAME) -> Expect:
    """Expect one code."""
    return Expect(frozenset({code}), after, refused)


WITHDRAWN = Expect(frozenset({Code.ABORTED, Code.RESOURCE_EXHAUSTED, Code.NOT_FOUND}), refused=None)
"""A withdrawal that was cut is ended by who comes next, whatever he says."""


@dataclass
class Model:
    """Hold what must be there: things by kind and name, and what was written into them by id and block.

    `cuts` has what the origins of unfinished copies held at times when these may have been made.
    """

    driver: Driver
    tiers: Mapping[str, Tier]
    things: dict[Key, Thing] = field(default_factory=dict)
    contents: dict[str, dict[int, bytes]] = field(default_factory=dict)
    cuts: dict[str, list[dict[int, bytes]]] = field(default_factory=dict)

    def id(self, kind: str, name: str) -> str:
        """Return the id that a thing of this name has, or would have."""
        return new_id(self.driver.scope, kind, name)

    def volume(self, name: str) -> Thing | None:
        """Return a volume, None when there is none."""
        return self.things.get(("volume", name))

    def snapshot(self, name: str) -> Thing | None:
        """Return a snapshot, None when there is none."""
        return self.things.get(("snapshot", name))

    def left(self, node: str) -> int:
        """Return what a node's pool can still promise."""
        return self.driver.total - sum(thing.promised for thing in self.things.values() if thing.node == node)

    # volumes

    def create(self, name: str, ask: Ask) -> Expect:
        """Foresee CreateVolume."""
        now = self.volume(name)
        if now is None:
            return self._new(name, ask)
        where = ask.where(self.driver.nodes)
        elsewhere = bool(where) and now.node not in where and now.phase in (ACCEPTED, MADE, CONDEMNED)
        if elsewhere or not self._same(now, ask):
            return only(Code.ALREADY_EXISTS)
        if now.phase in (OFFERED, REFUSED) and not now.absent:
            return self._again(now, ask)
        return _found(now)

    def _new(self, name: str, ask: Ask) -> Expect:
        source = self.things.get(ask.source) if ask.source else None
        if ask.source and (source is None or not source.listed):
            return only(Code.NOT_FOUND)
        try:
            wish = self.wish(name, ask, source)
        except Invalid:
            return only(Code.INVALID_ARGUMENT)
        except OutOfRange:
            return only(Code.OUT_OF_RANGE)
        node_of = source.node if source else ""
        roomy = self.roomy(wish.wish, ask.where(self.driver.nodes), node_of)
        if not roomy:
            return Expect(frozenset({Code.RESOURCE_EXHAUSTED}), _made(wish))
        return Expect(frozenset({Code.OK}), _made(wish), nodes=tuple(roomy))

    def _again(self, now: Thing, ask: Ask) -> Expect:
        """Foresee the retry of what no pool has taken yet: its node is away, or has refused."""
        source = next((one for one in self.things.values() if one.id == now.origin), None)
        if now.origin and (source is None or not source.listed):
            return only(Code.NOT_FOUND, refused=None)
        roomy = self.roomy(now.wish, ask.where(self.driver.nodes), source.node if source else "")
        if not roomy:
            return Expect(frozenset({Code.RESOURCE_EXHAUSTED}), _made(now), None)
        # The pool that has refused is not asked again by the same call, though it may have room by now.
        codes = {Code.OK, Code.RESOURCE_EXHAUSTED} if now.phase == REFUSED else {Code.OK}
        return Expect(frozenset(codes), _made(now), None, tuple(roomy))

    def wish(self, name: str, ask: Ask, source: Thing | None) -> Thing:
        """Return a volume as it is asked for. Raises Invalid, OutOfRange."""
        had = source.size if source else 0
        fs = ask.use.fs or (source.done if source else "")
        wanted = parameters.wanted(
            self.tiers, DEFAULT_SIZE, {**ask.parameters, **({"fsType": fs} if fs else {})}, ask.mutable
        )
        smallest = SIZE_STEP if ask.use.block else parameters.SMALLEST[wanted.file_system.type]
        if 0 < ask.required < had:
            raise OutOfRange("smaller than its source")
        size = SizeRange(ask.required, ask.limit).choose(max(smallest, had), default=had or DEFAULT_SIZE)
        return Thing(
            id=self.id("volume", name),
            phase=OFFERED,
            node="",
            wish=size,
            qos=parameters.modified(self.tiers, size, wanted.qos, {}),
            fs=wanted.file_system.type,
            parameters=tuple(sorted(ask.parameters.items())),
            origin=source.id if source else "",
            begun=_begun(source),
            done=source.done if source else "",
        )

    def roomy(self, size: int, nodes: frozenset[str], of_source: str) -> list[str]:
        """Return the nodes that run, suit, and have so many bytes left."""
        fit = [node for node in self.driver.nodes if (not nodes or node in nodes) and of_source in ("", node)]
        return [node for node in fit if self.driver.up(node) and self.left(node) >= size]

    def _same(self, now: Thing, ask: Ask) -> bool:
        return (
            SizeRange(ask.required, ask.limit).holds(now.wish)
            and now.parameters == tuple(sorted(ask.parameters.items()))
            and now.origin == (self.id(*ask.source) if ask.source else "")
            and (ask.use.block or ask.use.fs in {"", now.fs})
        )

    def delete(self, key: Key) -> Expect:
        """Foresee DeleteVolume and DeleteSnapshot."""
        now = self.things.get(key)
        if now is None or now.phase in (OFFERED, REFUSED, GONE):
            return only(Code.OK, None)
        if not self.driver.up(now.node):
            # The agent may have said that it is in use, before it went.
            codes = {Code.UNAVAILABLE, *((Code.FAILED_PRECONDITION,) if now.absent and now.up else ())}
            return Expect(frozenset(codes), None, replace(now, absent=True), in_use=replace(now, absent=False))
        if now.up and now.up.shown:
            return only(Code.FAILED_PRECONDITION, None, replace(now, absent=False))
        return only(Code.OK, None)

    def expand(self, name: str, required: int, limit: int) -> Expect:
        """Foresee ControllerExpandVolume."""
        now = self.volume(name)
        if now is None or not now.listed or now.absent:
            return only(Code.ABORTED if now and now.listed else Code.NOT_FOUND)
        try:
            new = max(now.wish, SizeRange(required, limit).choose(now.wish, default=now.wish))
        except Invalid:
            return only(Code.INVALID_ARGUMENT)
        except OutOfRange:
            return only(Code.OUT_OF_RANGE)
        qos = parameters.modified(self.tiers, new, now.qos, {})
        wished = replace(now, wish=new, qos=qos, full=now.full and new == now.wish)
        up = self.driver.up(now.node)
        if wished.full or (up and new > now.size and new - now.size > self.left(now.node)):
            old = replace(now, wish=now.size, full=False, qos=parameters.modified(self.tiers, now.size, qos, {}))
            return only(Code.OUT_OF_RANGE, wished, old)
        if not up:
            return self._left_alone(now, wished)
        return only(Code.OK, SAME if wished == now else self.grown(wished))

    def _left_alone(self, now: Thing, wished: Thing) -> Expect:
        """Foresee a wish whose node is away: it waits. Whether an old one was followed, the model doesn't know."""
        in_force = self.enforced(now) or not (now.up and now.up.shown)
        followed = wished == now and now.wish <= now.size and in_force
        return Expect(frozenset({Code.UNAVAILABLE, *((Code.OK,) if followed else ())}), refused=wished)

    def grown(self, thing: Thing) -> Thing:
        """Return a volume that its agent has given all that it wants."""
        size, up = max(thing.size, thing.wish), thing.up
        if up and up.size:
            up = replace(up, size=size, limits=self.limits(thing.qos))
        return replace(thing, size=size, image=size, up=up)

    def modify(self, name: str, mutable: Mapping[str, str]) -> Expect:
        """Foresee ControllerModifyVolume."""
        now = self.volume(name)
        if now is None or not now.listed or now.absent:
            return only(Code.ABORTED if now and now.listed else Code.NOT_FOUND)
        try:
            wish = now.size if now.full else now.wish
            qos = parameters.modified(self.tiers, wish, now.qos, mutable)
        except Invalid:
            return only(Code.INVALID_ARGUMENT)
        wished = replace(now, wish=wish, qos=qos, full=False)
        if not self.driver.up(now.node):
            return self._left_alone(now, wished)
        return only(Code.OK, SAME if wished == now else self.grown(wished))

    def enforced(self, thing: Thing) -> bool:
        """Return whether the kernel has a volume's limits, or needs none."""
        return thing.up is None or not thing.up.size or thing.up.limits == self.limits(thing.qos)

    def limits(self, qos: Qos) -> Limits | None:
        """Return what the kernel must show for a budget."""
        return qos.limits if self.driver.enforces else None

    # snapshots

    def cut(self, name: str, volume: str) -> Expect:
        """Foresee CreateSnapshot."""
        now, source = self.snapshot(name), self.volume(volume)
        if now is not None:
            if now.origin != self.id("volume", volume):
                return only(Code.ALREADY_EXISTS)
            waits = now.phase in (OFFERED, REFUSED) and not now.absent
            return only(Code.RESOURCE_EXHAUSTED, refused=None) if waits else _found(now)
        if source is None or not source.listed:
            return only(Code.NOT_FOUND)
        made = Thing(
            id=self.id("snapshot", name),
            phase=MADE,
            node=source.node,
            size=source.size,
            wish=source.size,
            image=source.size,
            origin=source.id,
            begun=_begun(source),
            done=source.done,
        )
        if not self.driver.up(source.node) or self.left(source.node) < source.size:
            return only(Code.RESOURCE_EXHAUSTED, made)
        return only(Code.OK, made)


def _found(now: Thing) -> Expect:
    """Foresee the repeated create of what a pool has taken, or what is on its way out."""
    if now.phase == GONE:
        return only(_code_of(now.gone), refused=None)
    if now.phase in (OFFERED, REFUSED):
        return WITHDRAWN
    if now.absent or now.phase == CONDEMNED:
        return only(Code.ABORTED)
    return only(Code.OK if now.phase == MADE else Code.UNAVAILABLE)


def _made(wish: Thing) -> Thing:
    """Return what a wish becomes, on a node that isn't known yet."""
    return replace(wish, phase=MADE, node="", size=wish.wish, image=wish.wish)


def _begun(source: Thing | None) -> str:
    """Return the mkfs that a copy takes over."""
    return source.begun if source and not source.raw else ""


def _code_of(error: str) -> Code:
    """Return the code of an error that an agent wrote into a record."""
    return code_of("CreateVolume", ERRORS[error](""))

"""The drill: cut an operation at a point, let another life go on in one of three ways, and find all in order."""

from __future__ import annotations

import contextlib
import random
import re
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Unknown
from tests.killpoints.fuse import WHENS, Point
from tests.killpoints.outcomes import CUT, GROUP, IOPS, OTHER_IOPS, PEER, VOLUME, VOLUMES

if TYPE_CHECKING:
    from tests.killpoints.fuse import When
    from tests.killpoints.operations import Operation
    from tests.killpoints.stand import Cut, Sight, Stand

THAW_SECONDS = 15.0
SOUND_SECONDS = 10.0
FEW = 5
LIMIT = re.compile(rf"\briops=({IOPS}|{OTHER_IOPS})\b")


class Way(Enum):
    """Say how it goes on after a cut."""

    RETRY = "the call is made again"
    NOTHING = "nobody asks, and only much later the call is made again"
    OPPOSITE = "the opposite is asked for"
    AGAIN = "the call is made again, and cut too, and then again"
    RECOVERY = "the next life is cut as it recovers, and the call is made to the one after"


THREE_WAYS = (Way.RETRY, Way.NOTHING, Way.OPPOSITE)


@dataclass
class Tally:
    """Count what was done."""

    effects: int = 0
    cuts: int = 0


class Drill:
    """Cut operations on one stand, which is empty between the cuts."""

    def __init__(self, on: Stand, seed: int, ways: tuple[Way, ...] = THREE_WAYS) -> None:
        self._on = on
        self._chosen = random.Random(seed)  # noqa: S311 - to be repeatable
        self._ways = ways
        self.passed: tuple[tuple[int, str, str], ...] = ()
        self._empty = on.look()
        assert self._empty.free > 0

    def all(self, operation: Operation) -> Tally:
        """Cut at every point there is, each continued in every way."""
        effects = self.count(operation)
        tally = Tally()
        for when in WHENS:
            number = 1
            while self._at(operation, number, when, effects, tally):
                number += 1
            # Two runs may differ by an effect, such as a write that another one came before.
            tally.effects = number - 1 if when == "before" else tally.effects
        return tally

    def some(self, operation: Operation, most: int | None = None) -> Tally:
        """Cut around every effect, continued in every way, at moments that the seed chooses; at most so many."""
        effects, chosen = self.count(operation), self._chosen
        points = [
            (Point(number, chosen.choice(_moments(effects[number - 1]))), way)
            for number in range(1, len(effects) + 1)
            for way in self._ways
        ]
        if most is not None:
            points = chosen.sample(points, min(most, len(points)))
        return Tally(len(effects), sum(self.once(operation, point, way) for point, way in points))

    def anywhen(self, operation: Operation, times: int) -> Tally:
        """Cut at any time, also in the middle of an effect, so many times; each is continued in some way."""
        operation.before(self._on)
        began = time.monotonic()
        operation.call(self._on)
        took = time.monotonic() - began
        self._clean()
        chosen = ((self._chosen.uniform(0.0001, 1.2 * took), self._chosen.choice(self._ways)) for _ in range(times))
        return Tally(cuts=sum(self.once(operation, Point(0, "before", "", after), way) for after, way in chosen))

    def one(self, operation: Operation, guess: int) -> Tally:
        """Cut once, somewhere in the operation, which has about so many effects, and go on in one way."""
        chosen = self._chosen
        way = chosen.choice(self._ways)
        if self.once(operation, Point(chosen.randint(1, guess), chosen.choice(("before", "after"))), way):
            return Tally(cuts=1)
        effects = self.count(operation)
        return Tally(len(effects), self.once(operation, Point(chosen.randint(1, len(effects)), "before"), way))

    def count(self, operation: Operation) -> list[str]:
        """Do the operation without a cut, and return its effects."""
        operation.before(self._on)
        cut = self._on.cut(lambda: operation.call(self._on), None)
        assert (cut.answered, cut.died) == (True, False)
        operation.done(self._on)
        self._clean()
        return [name for _, when, name in cut.effects if when == "before"]

    def once(self, operation: Operation, point: Point, way: Way) -> bool:
        """Cut once, go on, and look. Return whether the point was reached: operations differ by a few effects."""
        operation.before(self._on)
        cut = self._on.cut(lambda: operation.call(self._on), point)
        self.passed = cut.effects
        try:
            if cut.died:
                self._go_on(operation, way, cut)
            else:
                assert cut.answered
                operation.done(self._on)
            self._clean()
        except Exception as error:
            passed = "\n".join(f"{number} {when} {name}" for number, when, name in cut.effects)
            error.add_note(f"{operation}, cut {point}, then {way.value}; it had passed:\n{passed}")
            raise
        return cut.died

    def _at(self, operation: Operation, number: int, when: When, effects: list[str], tally: Tally) -> bool:
        """Cut at one point in every way; return whether it is reached. `inside` is only tried in programs."""
        if when == "inside" and number <= len(effects) and not effects[number - 1].startswith("run "):
            return True
        died = [self.once(operation, Point(number, when), way) for way in self._ways]
        tally.cuts += sum(died)
        return any(died)

    def _go_on(self, operation: Operation, way: Way, cut: Cut) -> None:
        on = self._on
        wait_for("nothing is frozen any more", lambda: not on.frozen(), Deadline(THAW_SECONDS))
        unlimited = [limit for limit in on.limits() if limit is not None and not LIMIT.search(limit)]
        assert unlimited == [], "what is staged must be limited, though no driver lives"
        operation.between(on)
        if way is Way.RECOVERY:
            on.recover(Point(self._chosen.randint(1, FEW), "after"))
        on.restart()
        if way is Way.OPPOSITE:
            on.patiently(lambda: operation.opposite(on))
            operation.undone(on)
            self._sound()
            return
        if way is Way.NOTHING:
            on.settle()
            self._sound()
        if way is Way.AGAIN:
            point = Point(self._chosen.randint(1, FEW), "after")
            if on.cut(lambda: on.patiently(lambda: operation.call(on)), point).died:
                on.restart()
        if way is not Way.NOTHING or not cut.answered:
            on.patiently(lambda: operation.call(on))
        operation.done(on)
        self._sound()

    def _sound(self) -> None:
        """See that all is sound, now or soon: what nobody waits for is done behind the answers."""
        faults: list[str] = []

        def found() -> bool:
            faults[:] = unsound(self._on.look(), self._empty)
            return not faults

        with contextlib.suppress(Unknown):
            wait_for("all is sound", found, Deadline(SOUND_SECONDS))
        assert (faults, self._on.frozen()) == ([], set())

    def _clean(self) -> None:
        """Take everything down, and find nothing left."""
        on = self._on
        on.patiently(lambda: on.delete_group(GROUP, VOLUME, PEER))
        for name in VOLUMES:
            for call in (on.unpublish, on.unstage, on.delete):
                on.patiently(lambda call=call, name=name: call(name))  # type: ignore[misc]
        on.patiently(lambda: on.delete_snapshot(CUT))
        on.settle()
        assert on.look() == self._empty


def unsound(sight: Sight, empty: Sight) -> list[str]:
    """Return what doesn't hold of what must when nobody works: all that is there belongs to what is there."""
    made = sight.volumes.keys() | sight.snapshots
    known = made | sight.groups
    limited = {name: sight.wanted.get(name) for name in sight.staged}
    holds = {
        "what is listed has a record": sight.records == known,
        "what is listed has an image": sight.images == made,
        "nothing is half made": not sight.temporary,
        "nothing is a stray": not sight.strays,
        "devices are of volumes": sight.devices.keys() <= sight.volumes.keys(),
        "mounts have devices": sight.published <= sight.staged <= sight.up <= sight.devices.keys(),
        "records know what is up": sight.told == sight.up,
        "records know what is staged": sight.staged <= sight.noted <= sight.up,
        "limits are in force": all(sight.devices.get(name) in (None, limit) for name, limit in limited.items()),
        "the ledger is right": sight.free == empty.free - sight.promised,
    }
    return [f"not so: {what}: {sight}" for what, so in holds.items() if not so]


def _moments(effect: str) -> list[When]:
    return [when for when in WHENS if when != "inside" or effect.startswith("run ")]

"""The frame of every step: foresee, call, compare, and check everything once all is at rest."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from qos.tiers import load
from tests.states.asking import HOWS
from tests.states.checks import Checks, look, records
from tests.states.driver import CONTROLLER, Answer, Code, Cut, Driver
from tests.states.model import SAME, Expect, Key, Model
from tests.states.node_model import NodeModel
from tests.states.things import CONDEMNED, MADE, PENDING, Thing

if TYPE_CHECKING:
    from collections.abc import Callable

TIERS = load()
WAITS = frozenset({None, Code.ABORTED, Code.UNAVAILABLE})
"""What a call may answer, beside what it should, when somebody died in it: nothing, or that it is to be repeated.

Also when a write in it may have landed or not.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """Hold a call, the thing that it is about, and how to foresee what comes of it."""

    rpc: str
    key: Key
    foresee: Callable[[], Expect]
    request: Any
    node: str = ""


class Frame(RuleBasedStateMachine):
    """Drive a world, and compare it with the model. Subclasses have the rules, and open the world."""

    figures: ClassVar[dict[str, int]] = {}

    @initialize(seed=st.integers(0, (1 << 16) - 1))
    def begin(self, seed: int) -> None:
        """Open a world. Its seed is drawn as all else is, so that an example that is run again has the same world."""
        self.driver = self.open(seed)
        self.model = Model(self.driver, TIERS)
        self.node_model = NodeModel(self.model)
        self.checks = Checks(self.driver, self.model)
        self.last: Call | None = None
        self.steps = 0
        self.trail: list[str] = [f"a world of seed {seed}"]
        self.driver.settle()

    def open(self, seed: int) -> Driver:
        """Open a new world. What is random in it comes from the seed alone."""
        raise NotImplementedError

    def take_down(self) -> None:
        """Take everything down by calls."""
        raise NotImplementedError

    # calls

    def run(self, call: Call, how: str = "once") -> Answer:
        """Make a call, compare its answer with what was foreseen, and all that is there with the model."""
        self.last, way = call, HOWS[how]
        if call.node and not self.driver.up(call.node):
            return Answer(None)
        before = self.model.things.get(call.key)
        if way.who:
            names = (before.node,) if before else self.driver.nodes
            self.driver.arm(Cut((CONTROLLER,) if way.who == CONTROLLER else names, way.effects, way.when, way.back))
        expect = call.foresee()
        self.driver.unsure()  # what agents did since the last call is looked at
        answer = self._ask(call)
        died, unsure = self.driver.died(), self.driver.unsure()
        self.trail.append(
            f"{call.rpc} {call.key[1]} at {call.node or 'the controller'}, {how}: {answer.code}"
            f"{', died' * died}{', unsure' * unsure}"
        )
        if died or unsure:
            self.count("deaths in a call" if died else "calls with a write that may have landed")
            self._judge(call.key, expect, before, answer)
        else:
            assert answer.code in expect.codes, (call.rpc, answer.code, answer.said, expect, before)
            self._set(call.key, self._outcome(expect, before, answer))
        self.check()
        if way.twice and answer.code is Code.OK:
            self._changes_nothing(call)
        return answer

    def _ask(self, call: Call) -> Answer:
        self.count(call.rpc)
        self.steps += 1
        return self.driver.call(call.rpc, call.request, call.node)

    def count(self, what: str) -> None:
        """Count what was done, over all worlds."""
        self.figures[what] = self.figures.get(what, 0) + 1

    def _outcome(self, expect: Expect, before: Thing | None, answer: Answer) -> Thing | None:
        """Return what a thing must be after an answer that was foreseen."""
        after = expect.after if answer.code is Code.OK else expect.refused
        if answer.code is Code.FAILED_PRECONDITION and expect.in_use is not SAME:
            after = expect.in_use
        if after is SAME:
            return before
        if after is not None and not after.node:
            (topology,) = answer.message.volume.accessible_topology
            node = topology.segments[self.driver.topology_key]
            assert node in expect.nodes, (node, expect.nodes)
            assert answer.message.volume.capacity_bytes == after.size, after
            return replace(after, node=node)
        return after

    def _judge(self, key: Key, expect: Expect, before: Thing | None, answer: Answer) -> None:
        """Compare what is there after a call in which somebody died: it is as before, as after, or on the way.

        What was answered holds all the same: after OK it is there, and after a final code it isn't, and never comes.
        """
        creates = before is None or before.phase in PENDING
        allowed = expect.codes | WAITS | ({Code.RESOURCE_EXHAUSTED} if creates else set())
        assert answer.code in allowed, (key, answer.code, answer.said, expect, before)
        self.driver.settle()
        actual = look(self.driver)[0].get(key)
        if answer.code in expect.codes and answer.code not in WAITS:
            wanted = self._outcome(expect, before, answer)
            if actual != wanted:
                self._has_moved(key, wanted, actual)
        elif answer.code is Code.RESOURCE_EXHAUSTED:
            assert actual is None, (key, answer.said, actual)
        else:
            _between([before, *(end for end in (expect.after, expect.refused) if end is not SAME)], actual)
        self._set(key, actual)

    def _set(self, key: Key, thing: Thing | None) -> None:
        """Take over what a thing is now; a copy has what its origin had."""
        if thing is None:
            if (old := self.model.things.pop(key, None)) is not None:
                self.model.contents.pop(old.id, None)
                self.model.cuts.pop(old.id, None)
            return
        self.model.things[key] = thing
        if thing.id in self.model.contents:
            return
        seen = self.model.cuts.setdefault(thing.id, [])
        seen.append(dict(self.model.contents.get(thing.origin, {})))
        if thing.phase not in PENDING:
            # Of a copy that was cut on the way, nobody knows when it was made.
            found = (self.driver.contents(thing.node) or {}).get(thing.id)
            self.model.contents[thing.id] = dict(found) if found in seen else seen[-1]
            del self.model.cuts[thing.id]

    def _changes_nothing(self, call: Call) -> None:
        """Make a call again: it is answered as it was, and changes no record and no kernel."""
        before, expect = (look(self.driver), records(self.driver)), call.foresee()
        answer = self._ask(call)
        codes = expect.codes | (WAITS if self.driver.unsure() else set())
        assert answer.code in codes, ("again", call.rpc, answer.code, answer.said)
        self.driver.settle()
        assert (look(self.driver), records(self.driver)) == before
        self.count("repeated calls that changed nothing")

    # checks

    def check(self) -> None:
        """Let the world come to rest, take over what agents did by themselves, and check everything."""
        self.driver.settle()
        actual, views = look(self.driver)
        for key in sorted({*actual, *self.model.things}):
            mine, found = self.model.things.get(key), actual.get(key)
            if mine == found and found is not None:
                self.model.things[key] = found
                continue
            self._has_moved(key, mine, found)
            self._set(key, found)
        self.checks.all(actual, views, self.steps % 4)

    def _has_moved(self, key: Key, thing: Thing | None, found: Thing | None) -> None:
        """Assert that what was found is what the agent of a thing that is not at its end has made of it by itself."""
        assert thing is not None, (key, found)
        moves = not thing.steady or not self.model.enforced(thing) or (thing.up and thing.up.size != thing.size)
        assert moves, f"{key} is {found}, not {thing}"
        assert self.driver.up(thing.node), f"{key} is {found}, not {thing}"
        _between([thing, *self._ends(thing)], found)

    def _ends(self, thing: Thing) -> list[Thing | None]:
        """Return what an agent makes of a thing that it is not done with."""
        size = max(thing.size, thing.wish)
        made = replace(thing, phase=MADE, size=size, image=size)
        if origin := next((one for one in self.model.things.values() if one.id == thing.origin), None):
            made = replace(made, begun=made.begun or origin.begun, done=made.done or origin.done)
            size = max(size, origin.size, origin.wish)
        larger = replace(made, size=size, image=size)
        return [made, larger, None] if thing.absent or thing.phase == CONDEMNED else [made, larger]

    def teardown(self) -> None:
        """Bring all back, take everything down, and see nothing left; after a failure say what went before."""
        if not hasattr(self, "driver"):
            return  # Hypothesis has drawn enough before the world was opened
        try:
            # Hypothesis ends a world by an exception of its own when it has drawn enough.
            if (error := sys.exception()) is None or type(error).__module__.startswith("hypothesis"):
                self._leave_nothing()
        finally:
            if (error := sys.exception()) and not type(error).__module__.startswith("hypothesis"):
                # Threads run otherwise each time: this may be the only trace.
                sys.stdout.write("\n".join(("", *self.trail, "")))
            self.driver.close()

    def _leave_nothing(self) -> None:
        for node in self.driver.nodes:
            if not self.driver.up(node):
                self.driver.start(node)
        self.check()
        self.take_down()
        things, views = look(self.driver)
        assert things == {}
        assert all((view.images, view.devices, view.strays) == ({}, {}, ()) for view in views.values())


def _between(ends: list[Thing | None], actual: Thing | None) -> None:
    """Assert that a thing is on the way from one of these states to another."""
    if actual is None:
        assert None in ends or any(end and end.phase in PENDING for end in ends), (ends, actual)
        return
    there = [end for end in ends if end is not None]
    assert there, (ends, actual)
    for name in ("id", "wish", "qos", "fs", "parameters", "origin"):
        assert getattr(actual, name) in [getattr(end, name) for end in there], (name, ends, actual)
    for name in ("begun", "done", "raw"):
        assert getattr(actual, name) in [False, "", *(getattr(end, name) for end in there)], (name, ends, actual)
    sizes = {0, *(end.size for end in there), *(end.image for end in there)}
    assert {actual.size, actual.image} <= sizes, (ends, actual)
    if actual.up is not None:
        shown = {one for end in there if end.up for one in end.up.shown}
        assert actual.up.shown <= shown, (ends, actual)

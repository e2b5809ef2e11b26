"""The rules of the state machine: anything at any time, with any arguments, and anybody dying in it.

What a rule draws never depends on what is there, so that an example is the same example when threads run otherwise.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.states.asking import ASKS, CLASSES, CUTS, GIB, USES, Ask
from tests.states.calls import NOTHING, PUBLISHED, SNAPSHOTS, STAGED, THERE, VOLUMES, Calls

hows = st.sampled_from(["once"] * len(CUTS) + ["twice"] * (len(CUTS) // 2) + list(CUTS))
volumes, snapshots, nodes = st.sampled_from(VOLUMES), st.sampled_from(SNAPSHOTS), st.sampled_from((0, 1))
sources = st.sampled_from([*(("volume", name) for name in VOLUMES), *(("snapshot", name) for name in SNAPSHOTS)])
asks = st.sampled_from(["plain"] * 12 + list(ASKS))
uses = st.sampled_from(["mounted"] * 4 + ["a device"] * 2 + list(USES))
classes = st.sampled_from(list(CLASSES))
flags = st.sampled_from((False, False, True))
places = st.sampled_from((0, 0, 0, 0, 1))


def brought(level: int) -> st.SearchStrategy[int]:
    """Return how far a volume is brought before: most times as far as the call needs."""
    return st.sampled_from((level, level, level, NOTHING))


class Machine(Calls):
    """Make calls, let drivers go and come back, and be pods."""

    @rule(name=volumes, ask=asks, how=hows)
    def create(self, name: str, ask: str, how: str) -> None:
        """Create a volume."""
        self.make(name, ASKS[ask], how)

    @rule(name=volumes, source=sources, required=st.sampled_from((0, GIB, 3 * GIB)), ready=brought(THERE), how=hows)
    def clone(self, name: str, source: tuple[str, str], required: int, ready: int, how: str) -> None:
        """Create a volume from a volume or a snapshot."""
        if source[0] == "volume":
            self.bring(source[1], ready)
        self.make(name, Ask(source=source, required=required), how)

    @rule(name=volumes, ready=brought(THERE), how=hows)
    def delete(self, name: str, ready: int, how: str) -> None:
        """Delete a volume."""
        self.bring(name, ready)
        self.free(name, how)

    @rule(
        name=volumes,
        size=st.sampled_from(((GIB, 0), (2 * GIB, 0), (3 * GIB - 1, 0), (1000 * GIB, 0), (0, GIB), (GIB, GIB))),
        ready=brought(THERE),
        how=hows,
    )
    def expand(self, name: str, size: tuple[int, int], ready: int, how: str) -> None:
        """Grow a volume."""
        self.bring(name, ready)
        self.enlarge(name, *size, how)

    @rule(name=volumes, mutable=classes, ready=brought(STAGED), how=hows)
    def modify(self, name: str, mutable: str, ready: int, how: str) -> None:
        """Change a volume's budget."""
        self.bring(name, ready)
        self.reclass(name, mutable, how)

    @rule(name=snapshots, volume=volumes, ready=brought(PUBLISHED), how=hows)
    def snapshot(self, name: str, volume: str, ready: int, how: str) -> None:
        """Cut a volume."""
        self.bring(volume, ready)
        self.copy(name, volume, how)

    @rule(name=snapshots, how=hows)
    def delete_snapshot(self, name: str, how: str) -> None:
        """Delete a snapshot."""
        self.drop(name, how)

    @rule(name=volumes, use=uses, number=places, elsewhere=places, ready=brought(THERE), how=hows)
    def stage(self, name: str, use: str, number: int, elsewhere: int, ready: int, how: str) -> None:
        """Stage a volume, as a file system or raw, where it is or on another node."""
        self.bring(name, ready)
        self.mount(name, use, number, elsewhere, how)

    @rule(name=volumes, number=places, elsewhere=places, ready=brought(STAGED), how=hows)
    def unstage(self, name: str, number: int, elsewhere: int, ready: int, how: str) -> None:
        """Unstage a volume."""
        self.bring(name, ready)
        self.unmount(name, number, elsewhere, how)

    @rule(
        name=volumes,
        use=uses,
        numbers=st.tuples(places, places),
        read_only=flags,
        shared=flags,
        ready=brought(STAGED),
        how=hows,
    )
    def publish(
        self, name: str, use: str, numbers: tuple[int, int], read_only: bool, shared: bool, ready: int, how: str
    ) -> None:
        """Publish a volume, once or at a second path."""
        self.bring(name, ready)
        self.show(name, replace(USES[use], shared=shared), numbers, how, ro=read_only)

    @rule(
        name=volumes,
        of=volumes,
        own=st.sampled_from((True, True, False)),
        number=places,
        ready=brought(PUBLISHED),
        how=hows,
    )
    def unpublish(self, name: str, of: str, own: bool, number: int, ready: int, how: str) -> None:
        """Unpublish a volume, or try it with another volume's path."""
        self.bring(name, ready)
        self.hide(name, number, name if own else of, how)

    @rule(
        name=volumes,
        kind=st.sampled_from(("pods", "staging")),
        number=places,
        required=st.sampled_from((0, GIB, 2 * GIB)),
    )
    def grow(self, name: str, kind: str, number: int, required: int) -> None:
        """Grow a file system, and ask how full it is."""
        self.grow_and_measure(name, kind, number, required)

    @rule(name=volumes, block=st.integers(0, 3), data=st.binary(min_size=1, max_size=4), ready=brought(PUBLISHED))
    def write(self, name: str, block: int, data: bytes, ready: int) -> None:
        """Write as a pod does."""
        self.bring(name, ready)
        self.fill(name, block, data)

    @rule(name=volumes, first=uses, then=uses, how=hows)
    def turn(self, name: str, first: str, then: str, how: str) -> None:
        """Use a volume in one form, take it down, and stage it in another."""
        self.bring(name, THERE)
        self.mount(name, first)
        self.bring(name, PUBLISHED)
        self.fill(name, 1, b"turned")
        self.unused(name)
        self.mount(name, then, how=how)

    @rule(name=volumes, how=hows)
    def misuse(self, name: str, how: str) -> None:
        """Let a stage be cut, try to have what that left as a device, write there, and stage it again."""
        self.bring(name, THERE)
        self.unused(name)
        self.mount(name, how=how)
        self.show(name, USES["a device"])
        self.fill(name, 2, b"misused")
        self.unused(name)
        self.mount(name)

    @rule(name=volumes, use=uses, ask=asks, how=hows)
    def go_on(self, name: str, use: str, ask: str, how: str) -> None:
        """Do what comes next in the life of a volume."""
        self.further(name, ask, use, how)

    @rule(name=volumes, how=hows)
    def go_back(self, name: str, how: str) -> None:
        """Do what comes next in the end of a volume."""
        self.back(name, how)

    @rule(how=hows)
    def retry(self, how: str) -> None:
        """Make the last call again."""
        if self.last:
            self.run(self.last, how)

    @rule(node=nodes, killed=st.booleans())
    def leave(self, node: int, killed: bool) -> None:
        """Let a node's driver go, killed or stopped."""
        name = self.driver.nodes[node % len(self.driver.nodes)]
        if self.driver.up(name):
            self.trail.append(f"{name} {'is killed' if killed else 'stops'}")
            (self.driver.kill if killed else self.driver.stop)(name)
            self.count("nodes that left")
        self.check()

    @rule(node=nodes)
    def come_back(self, node: int) -> None:
        """Start a node's driver, anew if it runs."""
        name = self.driver.nodes[node % len(self.driver.nodes)]
        if self.driver.up(name):
            self.driver.kill(name)
        self.trail.append(f"{name} starts")
        self.driver.start(name)
        self.check()

    @rule()
    def restart_controller(self) -> None:
        """Kill the controller and start another."""
        self.trail.append("the controller is killed and starts")
        self.driver.restart_controller()
        self.check()

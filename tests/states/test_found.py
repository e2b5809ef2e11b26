"""What the state machine has found, each as the few steps that showed it. The model checks every one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from csi_driver.records import Volume
from tests.states.asking import ASKS, GIB, USES
from tests.states.calls import PUBLISHED, STAGED, THERE
from tests.states.test_sim import SimMachine
from tests.states.things import ACCEPTED, GONE, OFFERED

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(quick: None) -> Iterator[SimMachine]:
    """Give a world; at its end everything is taken down, and nothing may be left."""
    made = SimMachine()
    made.begin(seed=1)
    yield made
    made.teardown()


def bring_back(world: SimMachine, *nodes: str) -> None:
    """Start nodes, and check that all is as it should be."""
    for node in nodes:
        world.driver.start(node)
    world.check()


def test_a_device_in_a_pods_hands_is_never_mounted(world: SimMachine) -> None:
    """What stands on a raw volume is its pod's: staging it as a file system would have the kernel parse it."""
    world.bring("v0", THERE)
    world.mount("v0", "a device")
    world.show("v0", USES["a device"])
    world.mount("v0", "mounted")


def test_what_a_pod_wrote_on_a_device_is_never_formatted(world: SimMachine) -> None:
    """A raw volume that was written, and a copy of it, are refused as file systems, and keep what they hold."""
    world.bring("v0", THERE)
    world.mount("v0", "a device")
    world.bring("v0", PUBLISHED)
    world.fill("v0", 0, b"precious")
    world.hide("v0")
    world.unmount("v0")
    world.make("v1", replace(ASKS["plain"], source=("volume", "v0")))
    for name in ("v0", "v1"):
        world.mount(name, "mounted")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("effects", range(12))
def test_what_a_cut_stage_left_is_not_handed_out_as_a_device(world: SimMachine, effects: int, when: str) -> None:
    """A pod could write there, and the next stage would make the mkfs again that the cut one had begun."""
    world.bring("v0", THERE)
    world.mount("v0", how=f"agent dies {when} its effect {effects} and comes back")
    world.show("v0", USES["a device"])
    world.fill("v0", 0, b"precious")
    world.hide("v0")
    world.mount("v0")


def test_a_mounted_volume_is_not_handed_out_as_a_device(world: SimMachine) -> None:
    """Neither a stage nor a publish shows the device under a file system."""
    world.bring("v0", STAGED)
    world.mount("v0", "a device")
    world.show("v0", USES["a device"])


def test_what_is_staged_to_be_read_is_published_twice_alike(world: SimMachine) -> None:
    """A repeated publish of a volume that was staged read-only is no conflict, and the volume is not called ill."""
    world.bring("v0", THERE)
    world.mount("v0", "read-only")
    world.show("v0", how="twice")
    world.grow_and_measure("v0", "pods", 0, 0)
    world.show("v0", ro=True)


def test_a_volume_is_staged_at_one_path(world: SimMachine) -> None:
    """Of two staging paths, neither could be unstaged for the other's sake."""
    world.bring("v0", STAGED)
    world.mount("v0", number=1)
    world.unmount("v0")


def test_a_final_answer_to_a_retry_takes_the_offer_back(world: SimMachine) -> None:
    """The topology changes between retries, and nothing suits any more: the node that comes back makes nothing."""
    for node in world.driver.nodes:
        world.driver.stop(node)
    world.make("v0", ASKS["plain"], "controller dies after its effect 0")
    offered = world.model.volume("v0")
    world.make("v0", ASKS["nowhere"])
    bring_back(world, *world.driver.nodes)

    assert offered is not None
    assert offered.phase == OFFERED
    assert world.model.things == {}


def test_a_withdrawal_that_was_cut_is_ended(world: SimMachine) -> None:
    """A record that is marked and not gone belongs to nobody; its retry, or its agent, ends it."""
    world.bring("v0", THERE)
    node = world.node_of("v0")
    world.driver.stop(node)
    world.copy("s0", "v0", "controller dies before its effect 2")
    marked = world.model.snapshot("s0")
    bring_back(world, node)

    assert marked is not None
    assert marked.absent
    assert world.model.snapshot("s0") is None


def test_a_copy_is_as_large_as_its_source_when_it_is_made(world: SimMachine) -> None:
    """A volume that grows between the offer and the cut makes a larger snapshot, which its pool has promised."""
    world.bring("v0", THERE)
    node = world.node_of("v0")
    world.driver.stop(node)
    world.enlarge("v0", 2 * GIB, 0)
    world.copy("s0", "v0", "controller dies after its effect 0")
    bring_back(world, node)
    made = world.model.snapshot("s0")

    assert made is None or made.size == made.image


def test_what_was_admitted_is_grown_though_more_is_refused(world: SimMachine) -> None:
    """A growth that was cut after its record is ended, also when a wish that came later can't be met."""
    world.bring("v0", STAGED)
    world.enlarge("v0", 2 * GIB, 0, "agent dies after its effect 0")
    node = world.node_of("v0")
    world.enlarge("v0", 1000 * GIB, 0)
    bring_back(world, node)


def test_limits_hold_on_what_can_not_grow_and_on_what_is_to_go(world: SimMachine) -> None:
    """A budget that changed while the node was away is in force at its start, whatever else the record waits for."""
    world.bring("v0", PUBLISHED)
    world.bring("v1", PUBLISHED)
    for name in ("v0", "v1"):
        node = world.node_of(name)
        if world.driver.up(node):
            world.driver.stop(node)
        world.reclass(name, "500 reads")
    world.enlarge("v0", 1000 * GIB, 0)
    world.free("v1")
    bring_back(world, *(node for node in world.driver.nodes if not world.driver.up(node)))
    seen = [world.driver.store.get(Volume, world.model.id("volume", name)) for name in ("v0", "v1")]

    assert [one.status.seen.limits.riops for one in seen if one and one.status.seen.limits] == [500, 500]
    world.reclass("v0", "standard")
    world.free("v1")


def test_a_source_that_went_ends_what_was_offered_from_it(world: SimMachine) -> None:
    """A clone that no pool had taken is answered NOT_FOUND for good, and doesn't come when its node does."""
    world.bring("v0", THERE)
    node = world.node_of("v0")
    world.driver.stop(node)
    clone = replace(ASKS["plain"], source=("volume", "v0"))
    world.make("v1", clone, "controller dies after its effect 0")
    world.free("v0")
    bring_back(world, node)
    world.make("v1", clone)

    assert (thing := world.model.volume("v1")) is None or thing.phase not in (OFFERED, ACCEPTED, GONE)

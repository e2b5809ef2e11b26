"""Weights down a tree of cgroups: what each pod attains when everything wants all of the disk."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from qos.iocost import PROMISABLE, WHOLE
from qos.weights import LEAST, MOST, Group, Level, weights

ROOT = Path("/sys/fs/cgroup")
PODS = ROOT / "kubepods.slice"
SYSTEM = ROOT / "system.slice"
BURSTABLE, BEST_EFFORT = PODS / "kubepods-burstable.slice", PODS / "kubepods-besteffort.slice"
ABOVE = [Level(PODS, (SYSTEM,))]


def branch(path: Path, *children: Group) -> Group:
    return Group(path, branch=True, children=children)


def attained(path: Path, given_: dict[Path, int], unused: frozenset[Path] = frozenset()) -> float:
    """Return the part of the disk that a cgroup gets while all siblings of it and of its parents want more."""
    part = 1.0
    for at in itertools.takewhile(lambda one: one != ROOT, (path, *path.parents)):
        siblings = sum(weight for one, weight in given_.items() if one.parent == at.parent and one not in unused)
        part *= given_[at] / siblings
    return part


def test_a_pod_below_a_qos_slice_gets_its_share_though_everybody_wants_all() -> None:
    """The tree in which weights of pods alone had no effect: 450 of 720 IOPS."""
    inference, training = BURSTABLE / "a", BEST_EFFORT / "b"
    tree = branch(
        PODS, branch(BURSTABLE, Group(inference)), branch(BEST_EFFORT, Group(training)), Group(PODS / "static")
    )

    found = weights(ABOVE, tree, {inference: 700_000})

    assert found[PODS] == MOST
    assert 0.7 <= attained(inference, found) < 0.701
    assert 0.0999 <= attained(SYSTEM, found) <= 0.1
    assert abs(attained(training, found) - attained(PODS / "static", found)) < 0.001
    assert found[BURSTABLE] == found[inference]


def test_slices_have_the_sum_of_their_pods() -> None:
    """Else a third pod in a slice would take from the first."""
    pods = [BURSTABLE / name for name in "abc"]
    tree = branch(PODS, branch(BURSTABLE, *map(Group, pods)), branch(BEST_EFFORT))

    found = weights(ABOVE, tree, {pods[0]: 300_000, pods[1]: 100_000})

    assert found[BURSTABLE] == sum(found[pod] for pod in pods)
    assert found[BEST_EFFORT] == LEAST
    assert all(attained(pod, found) >= share for pod, share in zip(pods, (0.3, 0.1), strict=False))


def test_without_floors_all_pods_weigh_the_same() -> None:
    """Also when their slices hold different numbers of them."""
    pods = [BURSTABLE / "a", BURSTABLE / "b", BEST_EFFORT / "c"]
    tree = branch(PODS, branch(BURSTABLE, *map(Group, pods[:2])), branch(BEST_EFFORT, Group(pods[2])))

    found = weights(ABOVE, tree, {})

    assert len({round(attained(pod, found), 6) for pod in pods}) == 1


def test_promises_that_a_slower_disk_cant_keep_shrink_in_proportion() -> None:
    """A disk may turn out slower than it was; who was promised twice as much still gets twice as much."""
    pods = [PODS / "a", PODS / "b"]

    found = weights(ABOVE, branch(PODS, *map(Group, pods), Group(PODS / "c")), {pods[0]: WHOLE, pods[1]: 2 * WHOLE})

    assert abs(attained(pods[1], found) / attained(pods[0], found) - 2) < 0.001
    assert found[PODS / "c"] >= LEAST


def test_cgroups_beside_the_pods_share_a_tenth_however_many_there_are() -> None:
    """The root has a slice for users, one for the system, and ours for helpers; a level further down has nothing."""
    beside = tuple(ROOT / f"other-{number}" for number in range(7))
    deeper = PODS / "kubelet"
    pod = deeper / "a"

    found = weights([Level(PODS, beside), Level(deeper, (PODS / "x",))], branch(deeper, Group(pod)), {pod: PROMISABLE})

    assert 0.09 <= sum(attained(one, found) for one in beside) <= 0.1
    assert attained(pod, found) >= 0.8


@st.composite
def trees(draw: st.DrawFn) -> tuple[Group, dict[Path, int]]:
    """Give a tree with up to 120 pods, of which some were promised shares of up to 80 % together."""
    slices: dict[Path, list[Path]] = {PODS: [], BURSTABLE: [], BEST_EFFORT: []}
    for number in range(draw(st.integers(1, 120))):
        above = draw(st.sampled_from(list(slices)))
        slices[above].append(above / f"pod{number}")
    pods = [pod for each in slices.values() for pod in each]
    promised: dict[Path, int] = {}
    for pod in draw(st.lists(st.sampled_from(pods), unique=True, max_size=12)):
        promised[pod] = draw(st.integers(1, max(1, PROMISABLE - sum(promised.values()))))
        if sum(promised.values()) > PROMISABLE:
            del promised[pod]
    inner = [branch(path, *map(Group, slices[path])) for path in (BURSTABLE, BEST_EFFORT)]
    return branch(PODS, *inner, *map(Group, slices[PODS])), promised


def test_slices_without_a_pod_take_nothing_from_the_smallest_floor() -> None:
    """Their least counts too, if they count: a weight of one among 10,000 is all that this floor has."""
    pods = [PODS / "a", PODS / "b"]

    found = weights(ABOVE, branch(PODS, branch(BURSTABLE), branch(BEST_EFFORT), *map(Group, pods)), {pods[0]: 90})

    assert attained(pods[0], found) >= 90 / WHOLE


@given(trees(), st.integers(0, 9))
def test_every_floor_is_attained_and_every_weight_is_one_that_the_kernel_takes(
    found: tuple[Group, dict[Path, int]], beside: int
) -> None:
    """Down the whole tree, with everything saturating."""
    tree, promised = found
    given_ = weights([Level(PODS, tuple(ROOT / f"other-{number}" for number in range(beside)))], tree, promised)

    assert all(LEAST <= weight <= MOST for weight in given_.values())
    for pod, share in promised.items():
        assert attained(pod, given_) >= share / WHOLE
    assert {pod.path for pod in tree.pods()} <= set(given_)


@given(trees(), st.integers(0, PROMISABLE))
def test_a_larger_share_never_gives_less(found: tuple[Group, dict[Path, int]], more: int) -> None:
    """As long as all shares fit. What had none may have had more than a small share is: a floor is the least."""
    tree, promised = found
    assume(promised and sum(promised.values()) + more <= PROMISABLE)
    pod = next(iter(promised))
    before, after = weights(ABOVE, tree, promised), weights(ABOVE, tree, {**promised, pod: promised[pod] + more})

    assert after[pod] >= before[pod]
    assert attained(pod, after) >= attained(pod, before) * 0.999

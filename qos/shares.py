"""Keep the floors of volumes in use: io.cost on the disks below them, and weights on the cgroups that use them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qos.cgroup import Cgroup
from qos.errors import Unenforceable
from qos.iocost import Qos
from qos.weights import Group, Level, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qos.cgroup import RootCgroup
    from qos.iocost import Cost, Floor, Model
    from qos.limits import DevNo

_BRANCHES: Final = ("burstable", "besteffort")
"""The kubelet's slices that hold pods; guaranteed pods stand beside them."""


@dataclass(frozen=True, slots=True)
class Held:
    """Say which floor a volume in use has, on which disks, and who uses it: pods by their uid, others by their cgroup.

    It counts in full on each disk, since nobody knows where on them the next request goes.
    """

    floor: Floor
    disks: Mapping[DevNo, Cost] = field(default_factory=dict)
    users: frozenset[str] = frozenset()


class Shares:
    """Hold floors by the name of their volume. Not locked: the Enforcer calls one method at a time.

    Written on change only, in this order: requests no larger than was measured, model, rate, weights. Nothing is taken
    back: a disk keeps io.cost when its last floor goes.
    """

    def __init__(self, ancestor: Cgroup, root: RootCgroup, log: Callable[..., None]) -> None:
        """Take the cgroup above all pods, the root, and where one-line warnings go."""
        self._ancestor = ancestor
        self._root = root
        self._log = log
        self._held: dict[str, Held] = {}
        self._costs: dict[DevNo, Cost] = {}
        self._missed: dict[str, frozenset[str]] = {}
        self._told: dict[DevNo, tuple[Cost, Qos]] = {}
        self._written: dict[tuple[Path, DevNo], int] = {}

    def hold(self, name: str, held: Held) -> None:
        """Keep a volume's floor from now on, instead of what it had. Raises Unenforceable; then it has what it had."""
        if not held.disks:
            raise Unenforceable(
                f"the floor of {name}, {held.floor}: nobody knows what the disks below it can do any more; write "
                "[disks.NAME] into the server's configuration again"
            )
        had, costs = self._held.get(name), dict(self._costs)
        self._held[name] = held
        self._costs |= held.disks
        try:
            self.keep()
        except Unenforceable:
            self._costs = costs
            self._held.pop(name)
            if had is not None:
                self._held[name] = had
            raise

    def use(self, name: str, users: frozenset[str]) -> None:
        """Give the floor of a volume, where it has one, to those who use it now. Raises Unenforceable."""
        held = self._held.get(name)
        if held is not None and held.users != users:
            self.hold(name, dataclasses.replace(held, users=users))

    def release(self, name: str) -> None:
        """Forget a volume's floor. What that changes is written when all are kept next."""
        self._held.pop(name, None)

    def keep(self) -> int:
        """Bring the kernel to what is held, and return how many lines somebody else had changed. Raises Unenforceable.

        Pods come and go, so that what is wanted changes without anybody's asking.
        """
        if not self._costs:
            return 0
        drift = sum(self._keep_cost(self._root.read_models(), self._root.read_qos()))
        tree, above = self._tree(), self._above()
        self._say_missing([pod.path.name for pod in tree.pods()])
        return drift + sum(self._weigh(disk, weights(above, tree, self._shares(disk, tree))) for disk in self._costs)

    def _keep_cost(self, models: Mapping[DevNo, Model], rates: Mapping[DevNo, Qos]) -> Iterator[bool]:
        """Tell the kernel what is new to it of each disk; yield whether somebody else had changed what it knew."""
        for disk, cost in sorted(self._costs.items()):
            wanted = self._rate(disk, cost) or rates.get(disk, Qos())
            differs = False
            if self._root.read_largest(disk) > cost.largest:
                self._root.write_largest(disk, cost.largest)
                differs = True
            if models.get(disk) != cost.model:
                self._root.write_model(disk, cost.model)
                differs = True
            if rates.get(disk) != wanted:
                self._root.write_qos(disk, wanted)
                differs = True
            drifted = differs and self._told.get(disk) == (cost, wanted)
            if drifted:
                self._log(f"io.cost of disk {disk} had been changed: set back")
            self._told[disk] = (cost, wanted)
            yield drifted

    def _rate(self, disk: DevNo, cost: Cost) -> Qos | None:
        """Return what the disk's smallest floor wants, None where it has none now: then what is there stays."""
        shares = [cost.share(held.floor) for held in self._held.values() if disk in held.disks]
        return Qos.of(cost.iops_of(min(shares))) if shares else None

    def _above(self) -> list[Level]:
        """Return the ancestor and its parents, the one below the root first, each with those beside it."""
        way = [path for path in reversed(self._ancestor.path.parents) if self._root.path in path.parents]
        return [
            Level(path, tuple(one for one in Cgroup(path.parent).children() if one != path))
            for path in (*way, self._ancestor.path)
        ]

    def _tree(self) -> Group:
        """Return the ancestor with its pods, io on for all of them."""
        children = []
        for path in self._open(self._ancestor):
            if any(path.name == name or path.name.endswith(f"-{name}.slice") for name in _BRANCHES):
                children.append(Group(path, branch=True, children=tuple(map(Group, self._open(Cgroup(path))))))
            else:
                children.append(Group(path))
        return Group(self._ancestor.path, branch=True, children=tuple(children))

    def _open(self, branch: Cgroup) -> list[Path]:
        """Return the cgroups in one, after seeing to it that each of them can have a weight."""
        found = branch.children()
        if found:
            branch.enable_for_children("io")
        return found

    def _shares(self, disk: DevNo, tree: Group) -> dict[Path, int]:
        """Return what each pod is promised of a disk. A volume that several pods use is divided equally."""
        found: dict[Path, int] = {}
        pods = [pod.path for pod in tree.pods()]
        for held in self._held.values():
            if disk in held.disks:
                users = [path for path in pods if any(_is_of(path.name, user) for user in held.users)]
                for path in users:
                    found[path] = found.get(path, 0) + self._costs[disk].share(held.floor) // len(users)
        return found

    def _say_missing(self, pods: Sequence[str]) -> None:
        """Say once of each floor that those who use its volume are nowhere to be found: it protects nobody then."""
        missed = {
            name: users
            for name, held in self._held.items()
            if (users := frozenset(user for user in held.users if not any(_is_of(pod, user) for pod in pods)))
        }
        for name, users in missed.items():
            if self._missed.get(name) != users:
                self._log(
                    f"the floor of {name} is given to nobody: no cgroup of {', '.join(sorted(users))} is right below "
                    f"{self._ancestor} or a QoS slice there; run the workload in one of that name"
                )
        self._missed = missed

    def _weigh(self, disk: DevNo, wanted: Mapping[Path, int]) -> int:
        """Write the weights that differ, and return how many of them were as wanted before."""
        drift = 0
        for path, weight in wanted.items():
            cgroup = Cgroup(path)
            try:
                if not cgroup.has_weights() or cgroup.read_weights().get(disk) == weight:
                    continue
                cgroup.write_weight(disk, weight)
            except Unenforceable:
                if path.exists():
                    raise
                continue
            if self._written.get((path, disk)) == weight:
                self._log(f"weight of {path} on disk {disk} had been changed: set back to {weight}")
                drift += 1
            self._written[path, disk] = weight
        # What is gone is forgotten: a cgroup that gets its name later has no line, and nobody has changed it.
        self._written = {key: value for key, value in self._written.items() if key[1] != disk or key[0] in wanted}
        return drift


def _is_of(cgroup: str, user: str) -> bool:
    """Return whether a cgroup is called so, or is that of a pod with this uid as either driver of the kubelet names it.

    systemd's names take no "-" within a word, so the kubelet writes "_".
    """
    return cgroup in {user, f"pod{user}"} or cgroup.endswith(f"-pod{user.replace('-', '_')}.slice")

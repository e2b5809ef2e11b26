"""What tests of a filling pool share: how it fills, which levels are shown, and what volumes are held to then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline, wait_for
from tests.kernel import gauge
from tests.kernel.pod import SLICE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.node import Node
    from tests.kernel.volume import Volume

MIB = 1 << 20
SEEN_SECONDS = 30.0
LEVELS = ("ok", "warning", "no-new-volumes", "no-new-snapshots", "emergency")
CEILING = "500Mi"
FULL_RATE, LEAST_RATE = f"wbps={500 * MIB}", f"wbps={50 * MIB}"
RISE = {82: "warning", 91: "no-new-volumes", 96: "no-new-snapshots", 98: "emergency"}
FALL = {94: "emergency", 92: "no-new-snapshots", 88: "no-new-volumes", 80: "warning", 50: "ok"}


def comes_to(node: Node, level: str) -> None:
    """Wait until this is the level that is shown, and the only one."""
    name = 'sluice_pool_guard{{level="{}",pool="fast"}}'

    def shown() -> list[str]:
        return [each for each in LEVELS if node.metric(name.format(each))]

    wait_for(f"the pool is at {level}, it is at {shown()}", lambda: shown() == [level], Deadline(SEEN_SECONDS))


def line(volume: Volume) -> str:
    """Return what the kernel limits a volume to."""
    return gauge.limit_line(volume.number, SLICE)


def is_limited(volume: Volume, words: str) -> None:
    """Wait until a volume's line has these words."""
    wait_for(f"{words} in {line(volume)}", lambda: words in line(volume).split(), Deadline(SEEN_SECONDS))


def walk(node: Node, fill: Callable[[int], None], levels: dict[int, str], training: Volume, other: Volume) -> set[str]:
    """Fill a pool to one percent after the other, see level and training's limits; return the other's."""
    seen = set()
    for percent, level in levels.items():
        fill(percent)
        comes_to(node, level)
        is_limited(training, LEAST_RATE if level == "emergency" else FULL_RATE)
        seen.add(line(other))
    return seen

"""What tests of a filling pool share, whatever it is made of: its levels, who yields, and what trims give back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc

from csi_driver.deadline import Deadline, wait_for
from tests.kernel import gauge
from tests.kernel.node import refusal
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


def only_training_yields(node: Node, fill: Callable[[int], None]) -> list[str]:
    """Bring a pool to all its levels and back, and see who is held to what; return what was refused in the emergency.

    Training's line is its least then, also after somebody has changed it; inference has its own throughout.
    """
    training = node.up("training", tier="training", writeBPS=CEILING)
    inference = node.up("inference", tier="inference")
    kept = line(inference)
    seen = walk(node, fill, RISE, training, inference)
    late = refusal(lambda: node.create("late"))
    cut = refusal(lambda: node.cut(training, "late"))
    (SLICE / "io.max").write_text(f"{training.number} wbps=max\n")
    is_limited(training, LEAST_RATE)
    told = training.condition_on_node()
    seen |= walk(node, fill, FALL, training, inference)
    wait_for("the volume is well", lambda: not training.condition_on_node(), Deadline(SEEN_SECONDS))

    assert seen == {kept}
    assert [code for code, _ in (late, cut)] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    assert "its writes are held to its least rate: pool fast is nearly full" in told
    return [said for _, said in (late, cut)]


def is_trimmed(volume: Volume, used: Callable[[], float]) -> None:
    """See that what a pod deleted is free for others soon after, and that what it kept is the same."""
    kept = volume.target / "kept"
    kept.write_bytes(os.urandom(4 * MIB))
    volume.fill(60 * MIB)
    os.sync()
    full, was = used(), kept.read_bytes()
    volume.file.unlink()
    os.sync()
    wait_for("it is given back", lambda: used() < full - 50 * MIB, Deadline(SEEN_SECONDS))
    volume.down()
    volume.up()

    assert kept.read_bytes() == was

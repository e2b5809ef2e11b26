"""The operations that are cut: what comes before each, its opposite, and what must hold when it or that is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.killpoints import outcomes
from tests.killpoints.outcomes import COPY, CUT, GROUP, IOPS, MORE, OTHER_IOPS, PEER, VOLUME, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.killpoints.stand import Stand

    Step = Callable[[Stand], None]


@dataclass(frozen=True, slots=True)
class Operation:
    """Describe one operation.

    before    brings about what it works on
    call      the operation, as a sidecar or the kubelet asks for it, and asks again
    opposite  what they ask for when it is no longer wanted
    done      asserts that it is so, once, with the right data
    undone    asserts that the opposite is so
    between   what pods do while no driver lives
    """

    name: str
    before: Step
    call: Step
    opposite: Step
    done: Step
    undone: Step
    between: Step = lambda _: None

    def __str__(self) -> str:
        return self.name

    def taken_back(self, name: str, before: Step, undone: Step | None = None) -> Operation:
        """Return the operation that is this one's opposite, and has it for its own."""
        return replace(
            self,
            name=name,
            before=before,
            call=self.opposite,
            opposite=self.call,
            done=self.undone,
            undone=undone or self.done,
        )


def create(on: Stand) -> None:
    """Create a volume."""
    on.create(VOLUME)


def stage(on: Stand) -> None:
    """Stage it."""
    on.stage(VOLUME)


def staged(on: Stand) -> None:
    """Bring a volume up."""
    create(on)
    stage(on)


def written(on: Stand) -> None:
    """Bring about a published volume with data."""
    staged(on)
    on.publish(VOLUME)
    on.write(VOLUME, WRITTEN)


def shelved(on: Stand) -> None:
    """Bring about a volume with data that nobody uses."""
    written(on)
    put_away(on)


def put_away(on: Stand) -> None:
    """Unpublish and unstage it."""
    on.unpublish(VOLUME)
    on.unstage(VOLUME)


def unpublished(on: Stand) -> None:
    """Bring about a staged volume with data."""
    written(on)
    on.unpublish(VOLUME)


def snapped(on: Stand) -> None:
    """Bring about a published volume with data, a snapshot of these, and more data since."""
    written(on)
    on.snapshot(CUT, VOLUME)
    on.write(VOLUME, MORE)


def paired(on: Stand) -> None:
    """Bring about two published volumes with data."""
    written(on)
    on.create(PEER)
    on.stage(PEER)
    on.publish(PEER)
    on.write(PEER, WRITTEN)


def grouped(on: Stand) -> None:
    """Bring about two published volumes with data, and a group snapshot of both."""
    paired(on)
    on.group(GROUP, VOLUME, PEER)


def write_more(on: Stand) -> None:
    """Write to both, one after the other."""
    for name in (VOLUME, PEER):
        on.write(name, MORE)


def expand(on: Stand) -> None:
    """Grow the volume, then its file system, as the resizer and the kubelet do."""
    on.expand(VOLUME, 2 * on.size)
    on.expand_on_node(VOLUME, 2 * on.size)


def nothing(_: Stand) -> None:
    """Do nothing."""


CREATE = Operation(
    "create",
    before=nothing,
    call=create,
    opposite=lambda on: on.delete(VOLUME),
    done=outcomes.is_there_and_blank,
    undone=outcomes.is_gone,
)
STAGE = Operation(
    "stage",
    before=create,
    call=stage,
    opposite=lambda on: on.unstage(VOLUME),
    done=outcomes.is_staged,
    undone=outcomes.is_put_away_fit,
)
STAGE_WITH_DATA = replace(
    STAGE,
    name="stage with data",
    before=shelved,
    done=outcomes.is_staged_with_data,
    undone=outcomes.is_put_away_with_data,
)
PUBLISH = Operation(
    "publish",
    before=staged,
    call=lambda on: on.publish(VOLUME),
    opposite=lambda on: on.unpublish(VOLUME),
    done=outcomes.is_published,
    undone=outcomes.is_staged,
)
SNAPSHOT = Operation(
    "snapshot",
    before=written,
    call=lambda on: on.snapshot(CUT, VOLUME),
    opposite=lambda on: on.delete_snapshot(CUT),
    done=outcomes.is_cut,
    undone=outcomes.is_not_cut,
)
CLONE = Operation(
    "clone from volume",
    before=written,
    call=lambda on: on.create(COPY, VOLUME),
    opposite=lambda on: on.delete(COPY),
    done=outcomes.is_copied_from_volume,
    undone=outcomes.is_not_copied_from_volume,
)
GROUP_SNAPSHOT = Operation(
    "group snapshot",
    before=paired,
    call=lambda on: on.group(GROUP, VOLUME, PEER),
    opposite=lambda on: on.delete_group(GROUP, VOLUME, PEER),
    done=outcomes.is_group,
    undone=outcomes.is_no_group,
    between=write_more,
)

OPERATIONS = (
    CREATE,
    CREATE.taken_back("delete", shelved, undone=outcomes.is_there),
    STAGE,
    STAGE_WITH_DATA,
    STAGE_WITH_DATA.taken_back("unstage", unpublished),
    PUBLISH,
    replace(
        PUBLISH.taken_back("unpublish", written, undone=outcomes.is_published_with_data),
        done=outcomes.is_staged_with_data,
    ),
    SNAPSHOT,
    SNAPSHOT.taken_back("delete snapshot", snapped, undone=outcomes.is_cut_again),
    replace(
        CLONE,
        name="clone from snapshot",
        before=snapped,
        call=lambda on: on.create(COPY, CUT, snapshot=True),
        done=outcomes.is_copied_from_snapshot,
        undone=outcomes.is_not_copied_from_snapshot,
    ),
    CLONE,
    GROUP_SNAPSHOT,
    GROUP_SNAPSHOT.taken_back("delete group snapshot", grouped),
    Operation(
        "expand",
        before=written,
        call=expand,
        opposite=put_away,  # nothing makes a volume smaller: it is taken down in the middle of it
        done=outcomes.is_grown,
        undone=outcomes.is_put_away_of_either_size,
    ),
    Operation(
        "modify",
        before=written,
        call=lambda on: on.modify(VOLUME, OTHER_IOPS),
        opposite=lambda on: on.modify(VOLUME, IOPS),
        done=outcomes.is_modified,
        undone=outcomes.is_as_before,
    ),
)

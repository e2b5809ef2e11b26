"""What must hold when an operation is done, or its opposite is: assertions on what is seen, and on the data."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.killpoints.stand import Sight, Stand

MIB = 1 << 20
RAW = "raw"
"""In the place of a file system: the volume is handed out as a block device."""
SIZES = {"ext4": 64 * MIB, "xfs": 304 * MIB, RAW: 64 * MIB}
"""Of volumes, by file system; they grow to the double."""
IOPS, OTHER_IOPS = 300, 400
VOLUME, PEER, COPY, CUT, GROUP = "data", "peer", "copy", "cut", "group"
VOLUMES = (COPY, PEER, VOLUME)
WRITTEN = random.Random(4).randbytes(64 << 10)  # noqa: S311 - to be known again
MORE = random.Random(5).randbytes(16 << 10)  # noqa: S311


def same(found: bytes, expected: bytes) -> None:
    """Assert that data are what was written, without printing them."""
    assert hashlib.sha256(found).hexdigest() == hashlib.sha256(expected).hexdigest(), f"{len(found)} bytes are wrong"


def sizes(
    on: Stand, *names: str, snapshots: tuple[str, ...] = (), groups: tuple[str, ...] = (), size: int = 0
) -> Sight:
    """Assert that exactly these volumes, snapshots and groups are there, each once and whole. Return what was seen."""
    sight = on.look()
    volumes = {on.volume_id(name): size or on.size for name in names}
    cuts = {on.snapshot_id(name) for name in snapshots}
    whole = {on.group_id(name) for name in groups}
    assert (sight.volumes, sight.snapshots, sight.groups) == (volumes, cuts, whole)
    assert (sight.records, sight.images) == ({*volumes, *cuts, *whole}, {*volumes, *cuts})
    return sight


def is_there_and_blank(on: Stand) -> None:
    """Assert that there is one volume, that it can be used and shows nothing of others."""
    sizes(on, VOLUME)
    usable(on, VOLUME, b"")


def usable(on: Stand, name: str, data: bytes, size: int = 0) -> None:
    """Assert that a volume that nobody uses holds these data, and takes others."""
    on.stage(name)
    on.publish(name)
    same(on.read(name), data)
    assert (size or on.size) * 0.5 < on.room(name) <= (size or on.size)
    on.write(name, MORE)
    same(on.read(name), MORE)
    on.unpublish(name)
    on.unstage(name)


def is_gone(on: Stand) -> None:
    """Assert that nothing is there."""
    sizes(on)


def is_there(on: Stand) -> None:
    """Assert that there is one volume, with the old data or blank: it was not deleted, or was made anew."""
    sizes(on, VOLUME)
    on.stage(VOLUME)
    on.publish(VOLUME)
    data = on.read(VOLUME)
    on.unpublish(VOLUME)
    on.unstage(VOLUME)
    same(data, data and WRITTEN)


def limited(sight: Sight, volume_id: str, iops: int) -> None:
    """Assert that a limit is in force, where limits are."""
    limit = sight.devices[volume_id]
    assert limit is None or f"riops={iops}" in limit.split()


def is_staged(on: Stand) -> None:
    """Assert that it is staged, limited, and can be published."""
    sight = sizes(on, VOLUME)
    assert (sight.staged, sight.published) == ({on.volume_id(VOLUME)}, set())
    limited(sight, on.volume_id(VOLUME), IOPS)
    on.publish(VOLUME)
    on.write(VOLUME, MORE)
    same(on.read(VOLUME), MORE)
    on.unpublish(VOLUME)


def is_staged_with_data(on: Stand) -> None:
    """Assert that it is staged, limited, and holds what was written."""
    sight = sizes(on, VOLUME)
    assert (sight.staged, sight.published) == ({on.volume_id(VOLUME)}, set())
    limited(sight, on.volume_id(VOLUME), IOPS)
    on.publish(VOLUME)
    same(on.read(VOLUME), WRITTEN)
    on.unpublish(VOLUME)


def is_not_staged(on: Stand) -> None:
    """Assert that the volume is there, and nothing of it is up."""
    sight = sizes(on, VOLUME)
    assert (sight.staged, sight.published, sight.devices) == (set(), set(), {})


def is_put_away_with_data(on: Stand) -> None:
    """Assert that nothing is up, and that the data are there."""
    is_not_staged(on)
    usable(on, VOLUME, WRITTEN)


def is_put_away_fit(on: Stand) -> None:
    """Assert that nothing is up, and that the volume can be staged: a half-made file system is made anew."""
    is_not_staged(on)
    usable(on, VOLUME, b"")


def is_published(on: Stand, data: bytes = b"") -> None:
    """Assert that a pod sees it, limited, with these data, and can write."""
    sight = sizes(on, VOLUME)
    assert (sight.staged, sight.published) == ({on.volume_id(VOLUME)},) * 2
    limited(sight, on.volume_id(VOLUME), IOPS)
    same(on.read(VOLUME), data)
    on.write(VOLUME, MORE)
    same(on.read(VOLUME), MORE)


def is_published_with_data(on: Stand) -> None:
    """Assert that a pod sees it, with what was written."""
    is_published(on, WRITTEN)


def is_cut(on: Stand) -> None:
    """Assert that there is one snapshot, with the data of its moment, and that the volume goes on."""
    sizes(on, VOLUME, snapshots=(CUT,))
    on.write(VOLUME, MORE)
    on.create(COPY, CUT, snapshot=True)
    usable(on, COPY, WRITTEN)
    on.delete(COPY)
    same(on.read(VOLUME), MORE)


def is_not_cut(on: Stand) -> None:
    """Assert that there is no snapshot, and that the volume goes on."""
    sizes(on, VOLUME)
    on.write(VOLUME, MORE)
    same(on.read(VOLUME), MORE)


def is_cut_again(on: Stand) -> None:
    """Assert that there is one snapshot: the old one, or a new one of what the volume holds now."""
    sizes(on, VOLUME, snapshots=(CUT,))
    data = data_of(on, CUT)
    same(data, MORE if len(data) == len(MORE) else WRITTEN)


def data_of(on: Stand, snapshot: str) -> bytes:
    """Return what a snapshot holds, as a volume that is made from it shows it."""
    on.create(COPY, snapshot, snapshot=True)
    on.stage(COPY)
    on.publish(COPY)
    data = on.read(COPY)
    on.unpublish(COPY)
    on.unstage(COPY)
    on.delete(COPY)
    return data


def is_group(on: Stand) -> None:
    """Assert that there is one group with a member of each volume, of one instant, and that the volumes go on.

    Both volumes were written to while no driver lived, one after the other: a member of before and one of after that
    were of two instants.
    """
    members = tuple(on.member(GROUP, name) for name in (VOLUME, PEER))
    sizes(on, VOLUME, PEER, snapshots=members, groups=(GROUP,))
    first, second = (data_of(on, member) for member in members)
    same(first, second)
    same(first, MORE if len(first) == len(MORE) else WRITTEN)
    for name in (VOLUME, PEER):
        on.write(name, MORE)
        same(on.read(name), MORE)


def is_no_group(on: Stand) -> None:
    """Assert that there is no group and no member, and that the volumes go on."""
    sizes(on, VOLUME, PEER)
    for name in (VOLUME, PEER):
        on.write(name, MORE)
        same(on.read(name), MORE)


def is_copied_from_snapshot(on: Stand) -> None:
    """Assert that there is one copy, with the snapshot's data, and that the source is untouched."""
    sizes(on, VOLUME, COPY, snapshots=(CUT,))
    usable(on, COPY, WRITTEN)
    same(on.read(VOLUME), MORE)


def is_copied_from_volume(on: Stand) -> None:
    """Assert that there is one copy, with the volume's data, and that the source goes on."""
    sizes(on, VOLUME, COPY)
    usable(on, COPY, WRITTEN)
    same(on.read(VOLUME), WRITTEN)
    on.write(VOLUME, MORE)


def is_not_copied_from_snapshot(on: Stand) -> None:
    """Assert that there is no copy, and that its source is untouched."""
    sizes(on, VOLUME, snapshots=(CUT,))
    same(on.read(VOLUME), MORE)


def is_not_copied_from_volume(on: Stand) -> None:
    """Assert that there is no copy, and that its source goes on."""
    sizes(on, VOLUME)
    same(on.read(VOLUME), WRITTEN)
    on.write(VOLUME, MORE)


def is_grown(on: Stand) -> None:
    """Assert that bytes, device and file system are larger, and the data there."""
    sight = sizes(on, VOLUME, size=2 * on.size)
    limited(sight, on.volume_id(VOLUME), IOPS)
    same(on.read(VOLUME), WRITTEN)
    assert on.size < on.room(VOLUME) <= 2 * on.size


def is_put_away_of_either_size(on: Stand) -> None:
    """Assert that it is put away, of one of the two sizes, and that its file system fits and holds the data."""
    sight = on.look()
    assert (sight.staged, sight.published, sight.devices) == (set(), set(), {})
    size = sight.volumes[on.volume_id(VOLUME)]
    assert size in (on.size, 2 * on.size)
    usable(on, VOLUME, WRITTEN, size)


def is_modified(on: Stand, iops: int = OTHER_IOPS) -> None:
    """Assert that the other limit is in force, and the data there."""
    sight = sizes(on, VOLUME)
    assert f"riops={iops}" in sight.wanted[on.volume_id(VOLUME)].split()
    limited(sight, on.volume_id(VOLUME), iops)
    same(on.read(VOLUME), WRITTEN)


def is_as_before(on: Stand) -> None:
    """Assert that the first limit is in force."""
    is_modified(on, IOPS)

"""Thin pools as an administrator handles them: sizes, flaws, what lvm is asked for, and what is undone."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.cli import poolmaking
from csi_driver.cli.poolmaking import More
from csi_driver.errors import Foreign, Invalid, NoSpace, ToolFailed, Unready
from csi_driver.host import pvlabel, thinsize
from csi_driver.host.lvm import Lvm
from csi_driver.host.run import Runner
from csi_driver.host.soundness import flaws
from csi_driver.host.thinpool import Lv, NewPool, ThinPool, ThinPools
from csi_driver.host.thinsize import Sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_driver.deadline import Deadline

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
EXTENT = 4 * MIB
SOUND = ThinPool(
    vg="fast",
    name="thin",
    identity="v@p",
    devices=(Path("/dev/vdb"),),
    pv_uuids=("a-b",),
    size=TIB,
    metadata=2 * GIB,
    spare=2 * GIB,
    chunk=64 << 10,
    zeroes=True,
    when_full="error",
    discards="passdown",
    health="",
    autoactivation=False,
    extent=EXTENT,
    group_size=TIB + 60 * GIB,
    free=50 * GIB,
    area=64 * MIB,
    area_free=30 * MIB,
    lvs=(Lv("thin", TIB, "", private=True, tags=()),),
)
NEW = NewPool("fast", "fast", "thin", (Path("/dev/vdb"), Path("/dev/vdc")))


class Recorded(Lvm):
    """An lvm that remembers what it was to change, and fails at one command."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        super().__init__(Runner())
        self.commands: list[tuple[str, ...]] = []
        self._fails = fails

    def change(self, _: Sequence[Path], command: str, *args: str, deadline: Deadline | None = None) -> None:
        assert deadline is not None
        self.commands.append((command, *args))
        if command in self._fails:
            raise ToolFailed(command, 5, f"{command} does not work")

    def report(self, devices: Sequence[Path], command: str, *_: str) -> list[Mapping[str, str]]:
        ran = {name for name, *_ in self.commands}
        if command == "vgs":
            return [{"vg_free": str(100 * GIB), "vg_extent_size": str(EXTENT)}]
        group = "fast" if "vgcreate" in ran - set(self._fails) else ""
        return [{"pv_name": str(path), "vg_name": group} for path in devices] if "pvcreate" in ran else []


def silent(_: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@pytest.fixture(autouse=True)
def _no_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at no disk of the machine that runs the test."""
    monkeypatch.setattr(pvlabel, "physical_volumes", tuple)


@pytest.mark.parametrize(
    ("data", "chunk", "metadata"),
    [
        (TIB, 64 << 10, 2 * GIB),
        (TIB, 512 << 10, 256 * MIB),
        (GIB, 64 << 10, thinsize.LEAST_METADATA),
        (100 * TIB, 64 << 10, thinsize.MOST_METADATA),
    ],
)
def test_metadata_follow_from_the_number_of_chunks(data: int, chunk: int, metadata: int) -> None:
    """128 bytes each, between what is sensible and what the kernel uses."""
    assert thinsize.metadata_for(data, chunk, EXTENT) == metadata


def test_a_new_pool_leaves_a_reserve_and_has_room_for_the_spare() -> None:
    """All together is never more than the group has, and whole extents."""
    sizes = thinsize.new_pool(TIB, 64 << 10, 0.05, EXTENT)

    assert TIB * 0.94 < sizes.data + 2 * sizes.metadata <= TIB * 0.95
    assert sizes.data % EXTENT == sizes.metadata % EXTENT == 0
    with pytest.raises(NoSpace, match="100 MiB are too few for a thin pool"):
        thinsize.new_pool(100 * MIB, 64 << 10, 0.05, EXTENT)


def test_a_pool_that_grows_gets_its_metadata_first() -> None:
    """Twice the chunks want twice the metadata; a spare as large is counted."""
    grown = thinsize.grown(Sizes(TIB, 2 * GIB), TIB, 64 << 10, EXTENT)

    assert grown == Sizes(2 * TIB - 4 * GIB, 4 * GIB)
    with pytest.raises(NoSpace, match="make the pool no larger"):
        thinsize.grown(Sizes(TIB, GIB), GIB, 64 << 10, EXTENT)


@pytest.mark.parametrize(
    ("more", "sizes"),
    [
        (More((), 0, 5, 0), Sizes(TIB, 2 * GIB + EXTENT)),
        (More((), EXTENT + 1, 0, 0), Sizes(TIB + 2 * EXTENT, 2 * GIB + EXTENT)),
        (More((Path("/dev/vdd"),), GIB, 0, 0), Sizes(TIB + GIB, 2 * GIB + EXTENT)),
    ],
)
def test_what_is_asked_for_is_whole_extents_and_not_more(more: More, sizes: Sizes) -> None:
    """A size is what is asked for, also of a new disk."""
    assert poolmaking.larger(SOUND, more) == sizes


def test_a_new_disk_alone_is_taken_but_for_the_reserve() -> None:
    """5 % of it stay free, and all that was free before: thick volumes may be meant to have that."""
    pool = dataclasses.replace(SOUND, free=2 * TIB, group_size=3 * TIB)
    sizes = poolmaking.larger(pool, More((Path("/dev/vdd"),), 0, 0, 0), brought=TIB)

    taken = sizes.data - pool.size + 2 * (sizes.metadata - pool.metadata)
    assert TIB * 0.94 < taken <= TIB * 0.95


@pytest.mark.parametrize("more", [More((), 51 * GIB, 0, 0), More((), 0, 26 * GIB, 0)])
def test_more_than_is_free_is_refused_with_figures(more: More) -> None:
    """Before lvm is asked."""
    with pytest.raises(NoSpace, match=r"fast has 50 GiB free, this takes 5[12]"):
        poolmaking.larger(SOUND, more)


def test_a_sound_pool_has_no_flaws() -> None:
    """Nothing is said of it."""
    assert [*flaws(SOUND)] == []


@pytest.mark.parametrize(
    ("wrong", "about", "command"),
    [
        ({"zeroes": False}, "zeroing", ("lvchange", "-Z", "y", "fast/thin")),
        ({"when_full": "queue"}, "when full", ("lvchange", "--errorwhenfull", "y", "fast/thin")),
        ({"discards": "ignore"}, "discards", ("lvchange", "--discards", "passdown", "fast/thin")),
        ({"autoactivation": True}, "autoactivation", ("vgchange", "--setautoactivation", "n", "fast")),
        ({"metadata": 900 * MIB}, "metadata size", ()),
        ({"spare": 0}, "spare", ()),
        ({"chunk": 2 * MIB}, "chunk", ()),
        ({"health": "needs_check"}, "health", ()),
        ({"area_free": MIB}, "metadata area", ()),
        ({"twins": ("w",)}, "name", ()),
    ],
)
def test_a_flaw_has_words_and_what_mends_it(wrong: dict[str, object], about: str, command: tuple[str, ...]) -> None:
    """One that a command mends at no risk has its words."""
    (flaw,) = flaws(dataclasses.replace(SOUND, **wrong))  # type: ignore[arg-type]

    assert (flaw.about, flaw.command) == (about, command)
    assert flaw.remedy
    assert flaw.grave == (about in {"zeroing", "health"})


def test_a_group_with_volumes_of_others_keeps_their_activation() -> None:
    """They may be what the machine boots from. Thick volumes of ours are none of them."""
    thick = Lv("sluice-x", GIB, "", private=False, tags=("sluice:kind=volume",))
    ours = dataclasses.replace(SOUND, autoactivation=True, lvs=(*SOUND.lvs, thick))
    others = (*ours.lvs, Lv("root", GIB, "", private=False, tags=()))
    (flaw,) = flaws(dataclasses.replace(SOUND, autoactivation=True, lvs=others))

    assert (flaw.command, "root" in flaw.remedy, "sluice-x" in flaw.remedy) == ((), True, False)
    assert [each.command[0] for each in flaws(ours)] == ["vgchange"]


@pytest.mark.parametrize("fails", ["vgcreate", "lvcreate", "lvchange"])
def test_what_was_made_before_a_failure_is_removed(fails: str) -> None:
    """The disks are as empty as they were, and the error is the first one."""
    lvm = Recorded([fails])

    with pytest.raises(ToolFailed, match=f"{fails} does not work"):
        ThinPools(lvm).make(NEW, silent)

    undone = [command[0] for command in lvm.commands[[name for name, *_ in lvm.commands].index(fails) + 1 :]]
    assert undone == (["pvremove"] if fails == "vgcreate" else ["vgremove", "pvremove"])


def test_what_can_not_be_removed_is_told_with_the_command() -> None:
    """A person is left with words, not with a riddle."""
    with pytest.raises(Unready, match=r"lvcreate does not work.*vgremove fast; pvremove /dev/vdb /dev/vdc"):
        ThinPools(Recorded(["lvcreate", "vgremove"])).make(NEW, silent)


@pytest.mark.parametrize("text", ["10Gi", "+much"])
def test_what_is_added_begins_with_a_plus(text: str) -> None:
    """A size that is meant as the whole would be added."""
    with pytest.raises(Invalid, match="size: "):
        poolmaking.more("size", text)


@pytest.mark.parametrize("text", ["0", "65Ki", "2Gi", ""])
def test_a_chunk_that_the_kernel_does_not_take_is_refused(text: str) -> None:
    """A multiple of 64 KiB, up to 1 GiB."""
    with pytest.raises(Invalid, match="chunk: "):
        poolmaking.chunk_size(text)


def test_a_disk_that_is_named_twice_is_one(tmp_path: Path) -> None:
    """By two links, for instance."""
    disk = tmp_path / "vdb"
    disk.touch()
    (tmp_path / "link").symlink_to(disk)

    assert poolmaking.disks([tmp_path / "link", disk]) == (disk,)


class TwoGroups(Lvm):
    """An lvm that sees two groups of one name, each on a disk of its own."""

    def report(self, devices: Sequence[Path], command: str, *_: str) -> list[Mapping[str, str]]:
        if command == "pvs":
            same = {"pv_missing": "", "vg_name": "fast", "vg_size": "9", "vg_free": "1", "vg_extent_size": "1"}
            areas = {"vg_mda_size": "2", "vg_mda_free": "1"}
            return [{"pv_name": f"/dev/{group}", "pv_uuid": group, "vg_uuid": group, **same, **areas} for group in "vw"]
        assert devices == (Path("/dev/w"),)
        sizes = {"lv_size": "8", "lv_metadata_size": "1", "chunk_size": "1"}
        words = {"lv_layout": "thin,pool", "lv_role": "private", "lv_tags": "", "pool_lv": "", "zero": "zero"}
        more = {"lv_when_full": "error", "discards": "passdown", "lv_health_status": "", "vg_autoactivation": ""}
        return [{"lv_name": "thin", "lv_uuid": "p", **sizes, **words, **more}]


def test_of_two_groups_of_one_name_the_recorded_one_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a record nobody can say, and nothing is touched."""
    monkeypatch.setattr(pvlabel, "physical_volumes", lambda: (Path("/dev/v"), Path("/dev/w")))
    pools = ThinPools(TwoGroups(Runner()))
    found = pools.look("fast", "thin", "w@p")

    assert (found.identity, found.twins, found.devices) == ("w@p", ("v",), (Path("/dev/w"),))
    with pytest.raises(Foreign, match="two volume groups are called fast, v and w"):
        pools.look("fast", "thin")
    with pytest.raises(Foreign, match="vgrename"):
        pools.look("fast", "thin", "x@p")

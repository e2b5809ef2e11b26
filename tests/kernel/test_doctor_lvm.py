"""`sluice doctor` and `sluice pool create --fix` on thin pools that somebody else made, each with what is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.node import run
from tests.kernel.parted import clean, parts, sluice, sluice_json
from tests.leftovers import Leftovers
from tests.thinpool import lvm

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel

CONF = Path("/etc/lvm/lvmlocal.conf")
SETTINGS = """
devices { global_filter = [ "r|.*|" ] }
activation { thin_pool_autoextend_threshold = 70 }
"""
OWN = """
devices {
    global_filter = [ "r|/dev/mine|" ]
}
activation/thin_pool_autoextend_threshold = 70
"""
POOL = "name=fast,backend=lvm,vg=fast,thinpool=thin"
NAMELESS = "sluice-11111111-2222-4333-8444-555555555555"


@pytest.fixture
def disks() -> Iterator[tuple[str, ...]]:
    """Give the parts of the data disk, and see that nothing is left on them."""
    before = Leftovers.now()
    with parts() as made:
        yield made
        clean(*made)

    assert Leftovers.now().since(before) == []


@contextlib.contextmanager
def unsound_pool(disk: str) -> Iterator[None]:
    """Make a pool as lvm makes it by itself, with all that a careless hand adds."""
    lvm("pvcreate", "-q", "-y", disk)
    lvm("vgcreate", "-q", "fast", disk)
    lvm("lvcreate", "-q", "-y", "--type", "thin-pool", "-c", "2m", "-Zn", "-L", "400m", "-n", "thin", "fast")
    lvm("lvremove", "-q", "-y", "fast/lvol0_pmspare")
    lvm("lvcreate", "-q", "-y", "-V", "64m", "-T", "fast/thin", "-n", NAMELESS)
    try:
        yield
    finally:
        lvm("vgremove", "-q", "-ff", "-y", "fast")


@contextlib.contextmanager
def settings(text: str) -> Iterator[None]:
    before = CONF.read_text() if CONF.exists() else ""
    CONF.write_text(text)
    try:
        yield
    finally:
        CONF.write_text(before)


def doctor(state: Path, *, status: int) -> dict[str, dict[str, str]]:
    found = sluice_json("doctor", "--qos", "off", "--state", state, "--pool", POOL, status=status)["checks"]
    return {check["name"]: check for check in found}


def test_what_is_unsound_is_told_and_mended_on_the_operators_word(disks: tuple[str, ...], tmp_path: Path) -> None:
    """Each has words and a remedy; --fix does what is safe, and the rest is told again."""
    take = ("pool", "create", "--name", "fast", "--vg", "fast", "--thinpool", "thin", "--state", tmp_path / "state")
    with unsound_pool(disks[0]):
        with settings(SETTINGS):
            before = doctor(tmp_path, status=1)
        taken = sluice_json(*take, "--fix")
        listed = sluice_json("pool", "list", "--state", tmp_path / "state")
        after = doctor(tmp_path, status=0)
        lvm(*after["pool fast: spare"]["remedy"].split()[:4])
        spared = doctor(tmp_path, status=0)
        names = lvm("lvs", "--noheadings", "-o", "lv_name", "fast").split()

    unsound = {
        f"pool fast: {about}" for about in ("when full", "autoactivation", "spare", "chunk", "volumes", "filter")
    }
    assert before["pool fast: zeroing"]["state"] == "missing"
    assert {name for name in unsound if before[name]["state"] != "warning" or not before[name]["remedy"]} == set()
    assert NAMELESS in before["pool fast: volumes"]["found"]
    assert "70" in before["lvm autoextend"]["found"]
    assert {"lvm", "thin_check"} < {name for name, check in before.items() if check["state"] == "ok"}
    assert {flaw["about"] for flaw in taken["flaws"]} == {"spare", "chunk"}
    assert {name for name in after if name.startswith("pool fast: ")} == {
        f"pool fast: {about}" for about in ("spare", "chunk", "volumes", "disks")
    }
    assert "pool fast: spare" not in spared
    assert "lvm filter" in after
    assert [(pool["name"], pool["where"]) for pool in listed] == [("fast", "fast/thin")]
    assert sorted(names) == [NAMELESS, "thin"]


def test_what_doctor_wants_of_lvm_is_set_by_the_commands_that_it_names(disks: tuple[str, ...], tmp_path: Path) -> None:
    """Whoever has a filter of his own keeps it."""
    with unsound_pool(disks[0]), settings(OWN):
        asked = doctor(tmp_path, status=1)
        for name in ("lvm filter", "lvm autoextend"):
            run("sh", "-c", asked[name]["remedy"])
        made, filters = doctor(tmp_path, status=1), lvm("lvmconfig", "devices/global_filter")

    assert {"lvm filter", "lvm autoextend"} <= asked.keys()
    assert {"lvm filter", "lvm autoextend"}.isdisjoint(made)
    assert '"r|/dev/mine|"' in filters


def test_a_group_that_lacks_a_disk_and_two_of_one_name_are_told(disks: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is guessed: the pool is named as missing, with what to do."""
    first, second, third = disks
    nothing = doctor(tmp_path, status=1)["pool fast"]
    lvm("vgcreate", "-q", "-y", "fast", first, second)
    lvm("lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "200m", "-n", "thin", "fast", first)
    lvm("lvchange", "-q", "-an", "fast/thin")
    clean(second)
    partial = doctor(tmp_path, status=1)["pool fast"]
    lvm("vgcreate", "-q", "-y", "--devices", third, "fast", third)
    twice = doctor(tmp_path, status=1)["pool fast"]
    refused = sluice("pool", "create", "--name", "slow", "--vg", "fast", "--device", second, status=1)[1]

    assert "no disk of this machine has a volume group fast" in nothing["found"]
    assert "lacks the disk" in partial["found"]
    assert "two volume groups are called fast" in twice["found"]
    assert "vgrename" in twice["found"]
    assert "there is a volume group fast" in refused

"""A tenant's raw volume on a thin pool that looks like a disk of the host's: nothing on the host may act on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_driver.host import udev
from tests.kernel import signatures
from tests.kernel.node import run
from tests.kernel.thin_node import ThinNode
from tests.leftovers import Leftovers
from tests.thinpool import lvm
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.volume import Volume

pytestmark = pytest.mark.kernel

FILTER = 'devices { global_filter = [ "r|^/dev/mapper/sluice-|" ] }'
"""What `sluice doctor` and deploy/lvm.md advise."""
OTHER_RULES = "DM_UDEV_DISABLE_OTHER_RULES_FLAG"


@pytest.fixture(scope="module")
def thin() -> Iterator[ThinNode]:
    """Give a node that serves a thin pool, and see that nothing of it is left."""
    before = Leftovers.now()
    with ThinNode() as running:
        yield running

    assert Leftovers.now().since(before) == []


def logical(volume: Volume) -> str:
    """Return the device of the volume's logical volume."""
    name = f"/dev/mapper/fast-sluice--{volume.id.replace('-', '--')}"
    return str(Path(name).resolve())


@pytest.mark.parametrize("kind", pick(["linux_raid_member", "btrfs"], [*signatures.MAKERS]))
def test_the_host_does_not_act_on_what_a_tenant_writes(thin: ThinNode, tmp_path: Path, kind: str) -> None:
    """Neither on the volume's device nor on its logical volume, staged or not, also after the server started anew."""
    image = signatures.make(kind, tmp_path)
    volume = thin.create("data", signatures.SIZE, block=True).up()
    signatures.copy(image, volume.file)
    volume.down()
    below = logical(volume)
    unstaged = signatures.acted_on(below)
    thin.stop()
    lvm("lvchange", "-an", f"fast/sluice-{volume.id}")
    thin.start()
    volume.up()
    below = logical(volume)
    run("udevadm", "trigger", "--settle", below, str(volume.device))
    staged, above = signatures.acted_on(below), signatures.acted_on(str(volume.device))
    groups = [lvm("vgs", "--noheadings", "-o", "vg_name", *words).split() for words in ((), ("--config", FILTER))]
    mapped = run("dmsetup", "ls")
    thin.take_down()

    assert unstaged == set()
    assert staged == {f"held by sluice-{volume.id}"}
    assert above == set()
    assert signatures.GROUP not in mapped
    assert groups[1] == ["fast"]
    assert groups[0] == (["fast", signatures.GROUP] if kind == "LVM2_member" else ["fast"])


def test_both_files_of_the_rule_are_needed(thin: ThinNode) -> None:
    """Without them a link appears. Debian takes back a part of the early one, for a device that it knew before."""
    early, late = (Path("/run/udev/rules.d") / name for name in udev.NAMES)
    volume = thin.up("fs")
    volume.down()
    lv = f"fast/sluice-{volume.id}"
    texts = {early: early.read_text(), late: late.read_text()}
    seen, flags = [], []
    try:
        for there in ((), (early,), (early, late)):
            for rule, text in texts.items():
                rule.write_text(text if rule in there else "")
            run("udevadm", "control", "--reload")
            if not there:
                lvm("lvchange", "-an", lv)
                lvm("lvchange", "-ay", "-K", lv)
            run("udevadm", "trigger", "--settle", logical(volume))
            seen.append(bool(signatures.acted_on(logical(volume))))
            flags.append(f"{OTHER_RULES}=1" in run("udevadm", "info", "-q", "property", logical(volume)).splitlines())
    finally:
        for rule, text in texts.items():
            rule.write_text(text)
        run("udevadm", "control", "--reload")
    thin.take_down()

    assert seen == [True, False, False]
    assert flags == [False, False, True]

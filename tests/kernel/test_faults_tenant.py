"""A tenant's raw volume that looks like a disk of the host's: nothing on the host may act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver.deadline import Deadline, wait_for
from tests.kernel import signatures
from tests.kernel.node import run
from tests.torture import pick

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernel.node import Node

pytestmark = pytest.mark.kernel

SECONDS = 60.0


@pytest.mark.parametrize("kind", pick(["LVM2_member"], [*signatures.MAKERS]))
def test_the_host_does_not_act_on_what_a_tenant_writes(node: Node, tmp_path: Path, kind: str) -> None:
    """Neither on the mapped device nor on the loop device below; on a disk of its own with these bytes it does."""
    image = signatures.make(kind, tmp_path)
    expected = {f"ID_FS_TYPE={kind}", *(["held by tenant-lv"] if kind == "LVM2_member" else [])}
    with signatures.disk_of_the_host(image) as disk:
        wait_for(f"the host acts on {kind}", lambda: expected <= signatures.acted_on(disk), Deadline(SECONDS))

    volume = node.create("data", signatures.SIZE, block=True).up()
    signatures.copy(image, volume.file)
    volume.down()
    volume.up()
    loop = signatures.below(volume.device)
    run("udevadm", "trigger", "--settle", loop, volume.device)

    assert signatures.acted_on(str(loop)) == {f"held by sluice-{volume.id}"}
    assert signatures.acted_on(str(volume.device)) == set()
    assert signatures.GROUP not in run("dmsetup", "ls")

"""Volumes on a thin pool of a real LVM: their whole life, their cuts, and what lvm is asked to do for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.thin_node import ThinNode

pytestmark = pytest.mark.kernel

MIB = 1 << 20


def test_a_volume_lives_on_a_thin_pool(thin: ThinNode) -> None:
    """What a pod writes is there when the volume is staged again, and its logical volume says what it is."""
    volume = thin.up("a", tier="training", fs_type="xfs", size=400 * MIB)
    (volume.target / "file").write_text("a pod was here")
    volume.down()
    volume.up()

    assert (volume.target / "file").read_text() == "a pod was here"
    assert {"sluice:name=a", "sluice:tier=training", "sluice:kind=volume"} < set(thin.tags(volume.id))


def test_a_snapshot_keeps_what_was_written_before_it(thin: ThinNode) -> None:
    """A volume restored from it, and larger, has those bytes and no later ones; the source may go before."""
    volume = thin.up("b")
    (volume.target / "file").write_text("before")
    snapshot = thin.cut(volume, "moment")
    (volume.target / "file").write_text("after")
    volume.down()
    volume.delete()
    copy = thin.create("c", 128 * MIB, source=snapshot).up()

    assert (copy.target / "file").read_text() == "before"


def test_a_volume_grows_while_a_pod_writes(thin: ThinNode) -> None:
    """Its device and its file system grow under the mount."""
    volume = thin.up("d")
    assert volume.expand(256 * MIB)
    volume.expand_on_node(256 * MIB)
    (volume.target / "large").write_bytes(bytes(160 * MIB))

    assert (volume.target / "large").stat().st_size == 160 * MIB


def test_volumes_outlive_the_server(thin: ThinNode) -> None:
    """After a restart everything is found as it was."""
    volume = thin.up("e")
    (volume.target / "file").write_text("kept")
    thin.stop()
    thin.start()

    assert (volume.target / "file").read_text() == "kept"
    assert thin.listed() == {volume.id: ""}

"""A pool of loop images whose files can't be opened."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from csi_driver.assemble import Machine
from csi_driver.backends.loop import LoopBackend
from csi_driver.errors import Lost, Unready

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.native


def test_an_image_that_can_not_be_opened_is_not_said_to_be_absent(tmp_path: Path) -> None:
    """Absent means LOST, for good: only the kernel's ENOENT says so. Here it says ELOOP."""
    machine, record_id = Machine(), str(uuid.uuid4())
    pool = LoopBackend(tmp_path / "pool", machine.kernel, machine.loops, machine.filesystems, None)
    (tmp_path / "pool").mkdir()
    pool.open("")
    image = tmp_path / "pool/images" / f"{record_id}.img"

    assert pool.find(record_id) is None
    image.symlink_to(image)
    with pytest.raises(Unready, match=record_id) as caught:
        pool.find(record_id)
    assert not isinstance(caught.value, Lost)

"""Controller and agent over a Store: work that a pool does a piece at a time, and what callers hear of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver.backends.sim import SimBackend
from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy
from csi_driver.records import Volume
from tests.contract.sides.asking import ask, images, soon, with_pool

if TYPE_CHECKING:
    from csi_driver.backends.base import Passport
    from csi_driver.store.base import Store

PIECES = 12
MOMENT = 0.3


class Slow(SimBackend):
    """A pool that makes and deletes a volume in pieces, one a try."""

    left = 0

    def create(self, passport: Passport, size: int) -> bool:
        """Zero a piece."""
        self._piece("zeroed")
        return super().create(passport, size)

    def delete(self, record_id: str) -> bool:
        """Free a piece."""
        self._piece("emptied")
        return super().delete(record_id)

    def _piece(self, what: str) -> None:
        if Slow.left:
            Slow.left -= 1
            raise Busy(f"it is being {what}: {Slow.left} pieces are left; ask again")


def test_who_asks_for_what_is_done_in_pieces_hears_how_far_it_is_and_need_not_ask_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call waits until its deadline, and no error ends it before; the agent goes on by itself."""
    monkeypatch.setattr(Slow, "left", PIECES)
    with with_pool(store, Slow) as world:
        with pytest.raises(Busy, match=r"still waiting for node n1 to make .*being zeroed: \d+ pieces are left"):
            world.controller.volumes.create(ask("a"), Deadline(MOMENT))
        volume = world.controller.volumes.create(ask("a"), soon())
        Slow.left = PIECES
        with pytest.raises(Busy, match=r"still waiting for .* to be deleted .*being emptied: \d+ pieces are left"):
            world.controller.volumes.delete(volume.id, Deadline(MOMENT))
        half = world.store.get(Volume, volume.id)
        wait_for("it is gone", lambda: world.store.get(Volume, volume.id) is None, soon())

        assert half is not None
        assert (half.spec.absent, half.status.history.condemned) == (True, True)
        assert (Slow.left, images(world)) == (0, 0)

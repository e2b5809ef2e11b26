"""One lock a volume."""

from __future__ import annotations

import threading

import pytest

from csi_driver.errors import Busy
from csi_driver.locks import Locks


def test_a_second_call_is_told_who_holds_the_volume() -> None:
    """Busy names what the other call does; another volume is free; after the end it is free again."""
    locks = Locks()
    with locks.hold("a", "NodeStageVolume of"):
        with pytest.raises(Busy, match="NodeUnstageVolume of a: NodeStageVolume of holds it"):
            locks.hold("a", "NodeUnstageVolume of").__enter__()
        with locks.hold("b", "NodeStageVolume of"):
            pass
    with locks.hold("a", "NodeUnstageVolume of"):
        pass


def test_a_call_waits_for_background_work() -> None:
    """Nobody asked for the agent's look at a volume, so a call is not refused for it."""
    locks = Locks()
    held, done = threading.Event(), threading.Event()

    def look() -> None:
        with locks.hold("a", "the agent's work on", background=True):
            held.set()
            done.wait(5)

    thread = threading.Thread(target=look)
    thread.start()
    held.wait(5)
    with pytest.raises(Busy):
        locks.hold("a", "the agent's work on", background=True).__enter__()
    threading.Timer(0.05, done.set).start()

    with locks.hold("a", "NodeStageVolume of"):
        assert done.is_set()
    thread.join()

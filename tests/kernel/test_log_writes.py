"""The disk as a power cut at any moment would leave it, and a server started on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.assemble import Machine
from csi_driver.errors import StorageError
from tests.kernel.logged import Log, LoggedDisk
from tests.kernel.moments import Replay, moments
from tests.kernel.recorded import SEED, record
from tests.kernel.restarted import Look, Restarted
from tests.leftovers import Leftovers
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_driver.records import History

MOMENTS = pick(6, 1_000_000)
"""How many are looked at, at most: every flush, and each once more with a part of what followed it."""

pytestmark = [pytest.mark.kernel, *[pytest.mark.timeout(5 * 3600)] * TORTURE]


def test_whenever_the_power_is_cut_what_was_acknowledged_is_there_and_nothing_half_made(
    record_property: Callable[[str, object], None],
) -> None:
    """Records are whole, images and records match, data are those that were flushed; calls that were cut end well."""
    before = Leftovers.now()
    found: list[str] = []
    histories: dict[str, History] = {}
    with LoggedDisk() as disk:
        folder = record(disk)
        disk.stop()
        entries = Log(disk.log).entries()
        chosen, replay, machine = moments(entries, MOMENTS), Replay(disk, entries), Machine()
        for moment in chosen:
            copy, acknowledged = replay.at(moment)
            with Restarted(folder, copy, machine) as node:
                what = _look(Look(node, acknowledged, histories))
            found += [f"{moment}, {acknowledged}: {each}" for each in what]
    record_property("seed", SEED)
    record_property("writes in the log", len(entries))
    record_property("moments looked at", len(chosen))

    assert found == []
    assert Leftovers.now().since(before) == []


def _look(look: Look) -> list[str]:
    """Return all that is wrong; a call that is refused is wrong too."""
    found: list[str] = []
    try:
        for part in (look.records, look.started, look.again):
            found.extend(part())
    except (StorageError, grpc.RpcError) as error:
        found.append(f"{part.__name__}: {error!r}")
    return found

"""No room: for what pods write, and for what we remember. Who can't be served hears so, and nobody else notices."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest

from csi_driver.deadline import Deadline, wait_for
from csi_driver.ids import new_id
from csi_driver.records import Pool
from csi_driver.store.sqlite import SqliteStore
from tests.faults.rig import OnDisk, create, listed, refusal, stage
from tests.serving import Server
from tests.storm.plan import SCOPE, volume_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.native

MIB = 1 << 20
LOOK_SECONDS = 30.0
TRIES = 6


def write_until_refused(path: Path, step: int = 4 * MIB) -> int:
    """Write past the page cache until the kernel refuses, and return its errno."""
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(step))
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno or 0


def trouble(server: Server) -> str:
    """Return what the pool's record says is wrong."""
    store = SqliteStore(server.folder / "state/sluice.db")
    try:
        pool = store.get(Pool, new_id(SCOPE, Pool.KIND, "node-a/fast"))
    finally:
        store.close()
    assert pool is not None
    return pool.status.abnormal


def test_a_full_pool_hurts_only_who_writes_more_and_says_so() -> None:
    """The writer gets the kernel's error; others read and go up and down; the pool says it, and is well by itself."""
    with Server(pool="size=320Mi,ratio=10") as server:
        other, filler, greedy = (create(server, name, 512 * MIB).up() for name in ("other", "filler", "greedy"))
        other.fill(8 * MIB)
        filler.fill(64 * MIB)
        kept = other.file.read_bytes()

        refused = write_until_refused(greedy.file)
        filler.modify(readIOPS="500")  # after any change the pool is looked at
        wait_for("the pool says that it is full", lambda: "full" in trouble(server), Deadline(LOOK_SECONDS))
        code, said = refusal(lambda: create(server, "late"))
        other.down()
        other.up()
        again = other.file.read_bytes()
        greedy.down()
        for volume in (filler, greedy):
            volume.down()
            volume.delete()
        other.modify(readIOPS="500")
        wait_for("the pool is well again", lambda: trouble(server) == "", Deadline(LOOK_SECONDS))
        late = create(server, "late").up()
        late.fill(16 * MIB)

        assert refused in {errno.EIO, errno.ENOSPC, errno.EROFS}
        assert (code, "full" in said) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert again == kept
        assert sorted(listed(server)) == sorted([other.id, late.id])
        for volume in (other, late):
            volume.down()
            volume.delete()


def answered(call: Callable[[], object]) -> tuple[str, str]:
    """Return the code of a call and its words."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def test_a_full_state_folder_is_said_and_leaves_nothing_half_done() -> None:
    """Who wants something new hears UNAVAILABLE and why; who gives something back is served; with room all goes on."""
    with OnDisk("state", 16 * MIB, fs_type="ext4", pool="size=1Gi,ratio=40") as server:
        used, fresh = create(server, "used").up(), [create(server, f"fresh-{number}") for number in range(TRIES)]
        names, answers = [f"late-{number}" for number in range(TRIES)], []
        for name, volume in zip(names, fresh, strict=True):
            # Again each time: a refused write may give room back, since the log of the database is cut then.
            write_until_refused(server.place / "ballast", 4096)
            answers += [answered(partial(create, server, name, seconds=5.0)), answered(partial(stage, volume, 5.0))]
        made = [name for name, (code, _) in zip(names, answers[::2], strict=True) if code == "OK"]
        used.down()
        images, then = server.images(), listed(server)
        (server.place / "ballast").unlink()
        late = [create(server, name) for name in names]

        assert {code for code, _ in answers} - {"OK"} == {"UNAVAILABLE"}
        assert all("can't use the database" in said for code, said in answers if code != "OK")
        assert sorted(then) == sorted([used.id, *(each.id for each in fresh), *map(volume_id, made)])
        assert images == sorted(f"{each}.img" for each in then)
        for volume in (used, *fresh, *late):
            volume.up()
            volume.down()
            volume.delete()

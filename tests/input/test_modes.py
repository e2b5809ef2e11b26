"""Who may open what the server makes: its owner, and nobody else, whatever the umask."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.input.real import Real
from tests.input.stand import CUT, USED
from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.native

CONNECT = """
import os, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""


def mode(path: Path) -> int:
    """Return the rights of a file or folder."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def _no_umask() -> Iterator[None]:
    """Take the umask away: what protects files must be their own modes."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def real(_no_umask: None) -> Iterator[Real]:
    """Give a server that was started with no umask, in folders that it had to make."""
    with Server() as server, Real.on(server) as made:
        yield made


def test_what_the_server_makes_is_its_owners_alone(real: Real) -> None:
    """Volumes 0600, snapshots 0400, the database and its log 0600, folders 0700, the socket 0600."""
    state, pool = real.folder / "state", real.server.pool
    images = pool / "pool/images"
    modes = {
        "socket": mode(real.socket),
        "state": mode(state),
        "pool": mode(pool),
        "pool's image": mode(pool / "pool.xfs"),
        "pool's root": mode(pool / "pool"),
        "images": mode(images),
        "new images": mode(pool / "pool/new"),
        "volume": mode(images / f"{real.ids[USED]}.img"),
        "snapshot": mode(images / f"{real.ids[CUT]}.img"),
        "marker": mode(pool / "pool/.sluice-pool"),
    }
    database = {path.name: mode(path) for path in state.iterdir()}

    assert database.keys() >= {"sluice.db", "sluice.db-wal", "sluice.db-shm"}
    assert set(database.values()) == {0o600}
    assert modes == {
        "socket": 0o600,
        "state": 0o700,
        "pool": 0o700,
        "pool's image": 0o600,
        "pool's root": 0o700,
        "images": 0o700,
        "new images": 0o700,
        "volume": 0o600,
        "snapshot": 0o400,
        "marker": 0o600,
    }


@pytest.mark.usefixtures("_no_umask")
def test_a_socket_in_a_folder_that_was_there_is_its_owners_alone() -> None:
    """The folder keeps the rights that somebody gave it; who may not write the socket can't connect to it."""
    server = Server()
    server.folder.chmod(0o755)
    with server:
        folder, socket = mode(server.folder), mode(server.socket)
        refused = subprocess.run([sys.executable, "-c", CONNECT, server.socket], check=False)

    assert (folder, socket) == (0o755, 0o600)
    assert refused.returncode == errno.EACCES

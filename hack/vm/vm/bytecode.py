"""The working tree's bytecode, made on the host by the guest's own Python: at each boot the guest would take 15 s."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from .recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from .cache import Cache

GUEST_TREE = "/src"


def compile_tree(cache: Cache, tree: Path) -> None:
    """Put bytecode beside the Python files of a tree that is going to be the guest's /src.

    Where the Debian packages of which the image was made are not in the cache any more, the guest does it itself; and
    what can't be compiled it says itself.
    """
    debian = cache.find("debian", Recipe.read().debian_key())
    if debian is None:
        return
    usr = debian / "tree/usr"
    loader = (usr / "lib64/ld-linux-x86-64.so.2", "--library-path", usr / "lib/x86_64-linux-gnu")
    argv = (*loader, usr / "bin/python3", "-m", "compileall", "-q", "-s", tree, "-p", GUEST_TREE, tree)
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "PYTHONHOME": str(usr)}
    subprocess.run(argv, check=False, stdin=quiet, stdout=quiet, stderr=quiet, env=environment)

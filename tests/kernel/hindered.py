"""A thin pool's server whose lvm commands can be killed, delayed and changed."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from tests.kernel.thin_node import ThinNode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.thinpool import ThinPool

KILLED = {"before": "kill -9 $$", "after": '"$lvm" "$@"; kill -9 $$', "half": '"$lvm" "$@" -an; kill -9 $$'}
"""What becomes of a command: it is killed before it did anything, when all is done, and when there is no device yet."""


class HinderedNode(ThinNode):
    """A node that finds an lvm of the test's own before the machine's."""

    def __init__(self, *flags: str, qos: str = "off", thin: ThinPool | None = None) -> None:
        super().__init__(*flags, qos=qos, thin=thin)
        self._argv = [sys.executable, "-m", "tests.faults.launcher", str(self._programs), *self._argv[3:]]

    @property
    def _programs(self) -> Path:
        return self.folder / "programs"

    def mount(self) -> None:
        """Put the program there too."""
        super().mount()
        self._programs.mkdir()
        program, real = self._programs / "lvm", shutil.which("lvm")
        program.write_text(
            f'#!/bin/sh\nlvm={real}\nonce="$0.$1"\nmv "$once" "$once.now" 2>/dev/null && . "$once.now"\n'
            'exec "$lvm" "$@"\n'
        )
        program.chmod(0o755)

    def once(self, command: str, script: str) -> Path:
        """Let the next such command be this script. Return the file that is there while that has not begun."""
        path = self._programs / f"lvm.{command}"
        new = path.with_suffix(".new")
        new.write_text(script)
        return new.rename(path)

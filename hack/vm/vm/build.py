"""``hack/vm/build``: make what a run needs, so that later runs start at once."""

from __future__ import annotations

import argparse
import platform

from .accel import choose_accelerator
from .cache import Cache, default_root
from .host import VmError, need_programs, note
from .image import Image, build_image
from .qemu import Emulator, find_emulator

FAILED = 125


def prepare(cache: Cache) -> tuple[Emulator, Image]:
    """Return the emulator and the image, made or installed where missing."""
    if platform.machine() != "x86_64":
        raise VmError(f"the test machine is built for x86_64, this is {platform.machine()}")
    need_programs({"git": "git", "mkfs.ext4": "e2fsprogs", "setpriv": "util-linux"})
    return find_emulator(cache), build_image(cache)


def main() -> int:
    """Build and say on which accelerator the machine will run."""
    parser = argparse.ArgumentParser(prog="hack/vm/build", description=__doc__.split(": ", 1)[1])
    parser.parse_args()
    cache = Cache(default_root())
    try:
        emulator, image = prepare(cache)
        accelerator = choose_accelerator(cache, emulator, image)
    except VmError as error:
        note(str(error))
        return FAILED
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    note(f"ready: QEMU {emulator.version}, {accelerator.upper()}, {image.folder}")
    return 0

"""New image files: whole and durable before they have their name."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from csi_driver.backends import passports
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_driver.backends.base import Passport
    from csi_driver.host.syscalls import Kernel

PRIVATE, READ_ONLY = 0o600, 0o400


@contextlib.contextmanager
def new_image(
    kernel: Kernel, folder: Path, final: Path, passport: Passport, *, one_log: bool = False
) -> Iterator[int | None]:
    """Give a new file to fill, made in a folder for such; None when it has its name already.

    With `one_log` all that is done to the file is logged before its name is, and one flush takes both along.
    """
    with as_unready(f"image of {passport.id}"):
        if final.exists():
            yield None
            return
        temporary = folder / final.name
        mode = READ_ONLY if passport.kind == "snapshot" else PRIVATE
        fd = kernel.open(temporary, os.O_CREAT | os.O_RDWR | os.O_TRUNC, mode)
        try:
            yield fd
            passports.write(kernel, fd, passport)
            if not one_log:
                kernel.fsync(fd, path=temporary)
            kernel.rename(temporary, final)
            kernel.fsync_dir(final.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                kernel.unlink(temporary)
            raise
        finally:
            os.close(fd)

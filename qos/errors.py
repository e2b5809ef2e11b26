"""What can go wrong on the machine, and what to do about it.

Unenforceable   a limit can't be applied
  DeviceGone    since the device has no io.max
"""

from __future__ import annotations

import errno
from typing import Final

OFF: Final = "or run with --qos off, which applies no limits at all"


class Unenforceable(Exception):
    """Say that a limit can't be applied. The message says why and what to do."""


class DeviceGone(Unenforceable):
    """Say that the device has no io.max: it is gone, or it is a partition."""


def refused(what: str, error: OSError) -> Unenforceable:
    """Return what to raise for a system call that failed while doing `what`."""
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return DeviceGone(
            f"{what}: {error.strerror}: no such disk, or a partition: limit the whole disk, or dm above it"
        )
    return Unenforceable(f"{what}: {error.strerror}: {_advice(what, error)}, {OFF}")


def _advice(what: str, error: OSError) -> str:
    """Return what to do about an error that the kernel gave while doing `what`."""
    return next((advice for numbers, part, advice in _ADVICE if error.errno in numbers and part in what), _NO_ADVICE)


_NO_ADVICE: Final = "look at the kernel's log"
_ADVICE: Final[tuple[tuple[tuple[int, ...], str, str], ...]] = (
    (
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "",
        "run as root, with the host's /sys/fs/cgroup mounted for writing and the host's cgroup namespace",
    ),
    (
        (errno.EOPNOTSUPP,),
        "io.cost",
        "it works on whole disks that have a queue, not on dm, md or an NVMe multipath head: use another disk",
    ),
    ((errno.ENOENT,), "io.cost", "the kernel lacks CONFIG_BLK_CGROUP_IOCOST: use another one, or give no floors"),
    ((errno.EOPNOTSUPP,), "io.weight", "io.cost is off on this disk"),
    ((errno.ENOENT, errno.EOPNOTSUPP), "", "the cgroup is gone, or the kernel has no such controller here"),
    (
        (errno.EBUSY,),
        "",
        "processes sit in this cgroup itself: name one whose processes are all in children",
    ),
    (
        (errno.EINVAL,),
        "cgroup.subtree_control",
        "the kernel lists this controller, but has it switched off: boot without cgroup_disable=",
    ),
)
"""What to do, by the error and a part of what was being done; the first that fits."""

"""The initial RAM disk: busybox, the one module that the root disk needs, and nothing else.

Debian's own takes several seconds of an emulated processor to find a disk that we know.
"""

from __future__ import annotations

import gzip
import stat
from typing import TYPE_CHECKING

from .host import VmError

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "virtio_blk.ko"
INIT = """#!/busybox sh
# Without the root disk there is nothing to go on with: leaving makes the kernel panic, which the host reports.
/busybox mount -t devtmpfs dev /dev
/busybox mount -t sysfs sys /sys
/busybox insmod /virtio_blk.ko
tries=0
while ! disk=$(/busybox grep -lx sluice-root /sys/block/vd*/serial); do
    [ $((tries += 1)) -gt 200 ] && exit 1
    /busybox usleep 50000
done
disk=${disk#/sys/block/}
/busybox mount -t ext4 -o noatime,noinit_itable "/dev/${disk%/serial}" /root || exit 1
/busybox umount /sys
/busybox mount --move /dev /root/dev
exec /busybox switch_root /root /usr/lib/systemd/systemd
"""


def make_initrd(tree: Path, release: str) -> bytes:
    """Return a compressed cpio archive for a kernel of the tree."""
    modules = list((tree / "usr/lib/modules" / release).rglob(MODULE))
    if len(modules) != 1:
        raise VmError(f"the kernel package {release} has no {MODULE}")
    archive = b""
    for folder in ("dev", "sys", "root"):
        archive += _entry(folder, stat.S_IFDIR | 0o755, b"")
    archive += _entry("busybox", stat.S_IFREG | 0o755, (tree / "usr/bin/busybox").read_bytes())
    archive += _entry(MODULE, stat.S_IFREG | 0o644, modules[0].read_bytes())
    archive += _entry("init", stat.S_IFREG | 0o755, INIT.encode())
    return gzip.compress(archive + _entry("TRAILER!!!", 0, b""), compresslevel=1, mtime=0)


def _entry(name: str, mode: int, content: bytes) -> bytes:
    """Lay out one entry as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst says."""
    path = name.encode() + b"\0"
    # Inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, checksum (unused).
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

"""What device-mapper's ioctls pass, as values: names, tables, and the kernel's answers. Pure.

linux/dm-ioctl.h, version 4. Every command passes `struct dm_ioctl` (312 bytes, the same on 32 and 64 bits):

    offset  size
    0       12    version[3]       what we were written for; the kernel answers its own
    12      4     data_size        of the whole buffer
    16      4     data_start       where the table begins
    20      4     target_count
    24      4     open_count (s32)
    28      4     flags
    32      4     event_nr         on the way in: udev's cookie and flags
    36      4     padding
    40      8     dev              huge_encode_dev
    48      128   name
    176     129   uuid
    305     7     padding

then the targets: `struct dm_target_spec` (sector_start u64, length u64, status s32, next u32, type[16]: 40 bytes)
and the parameters, NUL-terminated and padded to 8. Tables count in sectors of 512 bytes, whatever the device's own. A
message is `struct dm_target_msg` (sector u64) and its text; its answer is a text. A list of devices has for each one
`struct dm_name_list` (dev u64, next u32) and the name.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_driver.errors import Invalid
from csi_driver.host import block
from csi_driver.host.block import SECTOR, Device
from qos.limits import DevNo

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
TARGET = struct.Struct("=Q Q i I 16s")
MESSAGE = struct.Struct("=Q")
NAME = struct.Struct("=Q I")
# A single linear target fits; more than syscalls.IOCTL_BUFFER would keep the GIL during a suspend.
BUFFER = 1024
NAME_LENGTH, UUID_LENGTH = 127, 128

DM_READONLY_FLAG, DM_SUSPEND_FLAG, DM_STATUS_TABLE_FLAG = 1 << 0, 1 << 1, 1 << 4
DM_BUFFER_FULL_FLAG, DM_SKIP_LOCKFS_FLAG, DM_NOFLUSH_FLAG = 1 << 8, 1 << 10, 1 << 11
DM_DATA_OUT_FLAG = 1 << 16
# libdevmapper.h. OTHER rules are those that announce the device to systemd and udisks.
DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG, DM_UDEV_DISABLE_DISK_RULES_FLAG = 0x2, 0x4
DM_UDEV_DISABLE_OTHER_RULES_FLAG, DM_UDEV_DISABLE_LIBRARY_FALLBACK, DM_UDEV_PRIMARY_SOURCE_FLAG = 0x8, 0x20, 0x40
UDEV = (
    DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG
    | DM_UDEV_DISABLE_DISK_RULES_FLAG
    | DM_UDEV_DISABLE_OTHER_RULES_FLAG
    | DM_UDEV_DISABLE_LIBRARY_FALLBACK
    | DM_UDEV_PRIMARY_SOURCE_FLAG
) << 16


@dataclass(frozen=True, slots=True)
class Target:
    """Hold one line of a table: first byte and length in bytes, type, and the type's own parameters."""

    start: int
    length: int
    kind: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Info:
    """Hold what the kernel says of a mapped device."""

    name: str
    uuid: str
    device: Device
    suspended: bool
    read_only: bool
    open_count: int
    targets: tuple[Target, ...]

    @property
    def below(self) -> DevNo | None:
        """Return the device below if the table is one linear target from its first byte, else None."""
        match [(target.kind, target.start, target.parameters.split(" ")) for target in self.targets]:
            case [("linear", 0, [number, "0"])]:
                return DevNo.parse(number)
        return None

    @property
    def size_bytes(self) -> int:
        """Return the length of the table in bytes."""
        return sum(target.length for target in self.targets)


def linear_table(below: DevNo, size_bytes: int) -> bytes:
    """Return the table that maps a device one to one, as DM_TABLE_LOAD takes it."""
    parameters = f"{below} 0".encode() + b"\0"
    parameters += bytes(-len(parameters) % 8)
    return TARGET.pack(0, size_bytes // SECTOR, 0, TARGET.size + len(parameters), b"linear") + parameters


def request_buffer(name: str, uuid: str, flags: int, table: bytes, *, cookie: int) -> bytearray:
    """Return the buffer, of BUFFER bytes, of a command to a named device. Raises Invalid if a name is too long."""
    raw_name, raw_uuid = name.encode(), uuid.encode()
    if len(raw_name) > NAME_LENGTH or len(raw_uuid) > UUID_LENGTH or "/" in name or "\0" in name + uuid:
        raise Invalid(f"{name!r} ({uuid!r}) is no name for a mapped device")
    count = 1 if table else 0
    header = HEADER.pack(4, 0, 0, BUFFER, HEADER.size, count, 0, flags, cookie, 0, 0, raw_name, raw_uuid)
    return bytearray((header + table).ljust(BUFFER, b"\0"))


def list_buffer(size: int) -> bytearray:
    """Return the buffer with which to ask for the list of all devices."""
    return bytearray(HEADER.pack(4, 0, 0, size, HEADER.size, 0, 0, 0, 0, 0, 0, b"", b"").ljust(size, b"\0"))


def message_buffer(dev: DevNo, text: str, size: int) -> bytearray:
    """Return the buffer, of so many bytes, of a message to a device by its number."""
    number = os.makedev(dev.major, dev.minor)
    header = HEADER.pack(4, 0, 0, size, HEADER.size, 0, 0, 0, 0, 0, number, b"", b"")
    return bytearray((header + MESSAGE.pack(0) + text.encode() + b"\0").ljust(size, b"\0"))


def text_of(answer: bytearray) -> str | None:
    """Return the text that answers a message, None when the buffer is too short for it."""
    _, _, _, size, start, _, _, flags, *_ = HEADER.unpack_from(answer)
    if flags & DM_BUFFER_FULL_FLAG:
        return None
    return _text(answer[start:size]) if flags & DM_DATA_OUT_FLAG else ""


def names_of(answer: bytearray) -> dict[str, DevNo] | None:
    """Return the devices of a list by name, None when the buffer is too short for them."""
    _, _, _, size, at, _, _, flags, *_ = HEADER.unpack_from(answer)
    if flags & DM_BUFFER_FULL_FLAG:
        return None
    found, following = {}, 1
    while following:
        dev, following = NAME.unpack_from(answer, at)
        if dev:  # 0 says that there is no device at all
            found[_text(answer[at + NAME.size : at + following if following else size])] = block.dev_number(dev)
        at += following
    return found


def info_of(answer: bytearray) -> Info:
    """Read the answer to DM_TABLE_STATUS with DM_STATUS_TABLE_FLAG. A table too long for the buffer is left out."""
    _, _, _, _, start, count, opened, flags, _, _, dev, name, uuid = HEADER.unpack_from(answer)
    number = block.dev_number(dev)
    return Info(
        name=_text(name),
        uuid=_text(uuid),
        device=Device(block.DEV / f"dm-{number.minor}", number),
        suspended=bool(flags & DM_SUSPEND_FLAG),
        read_only=bool(flags & DM_READONLY_FLAG),
        open_count=opened,
        targets=() if flags & DM_BUFFER_FULL_FLAG else tuple(_targets(answer, start, count)),
    )


def _targets(answer: bytearray, start: int, count: int) -> Iterator[Target]:
    at = start
    for _ in range(count):
        first, length, _, following, kind = TARGET.unpack_from(answer, at)
        parameters = _text(answer[at + TARGET.size : start + following])
        yield Target(first * SECTOR, length * SECTOR, _text(kind), parameters)
        at = start + following


def _text(raw: bytes | bytearray) -> str:
    return bytes(raw).split(b"\0", 1)[0].decode(errors="replace")

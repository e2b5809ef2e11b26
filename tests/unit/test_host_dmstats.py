"""What device-mapper's statistics say, as values. What the kernel does is tested in the VM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_driver.errors import Unready
from csi_driver.host import dmtable
from csi_driver.host.dmstats import WHOLE, Statistics, parse
from csi_driver.host.dmtable import DM_BUFFER_FULL_FLAG, DM_DATA_OUT_FLAG, HEADER, NAME
from csi_driver.host.syscalls import DM_LIST_DEVICES, DM_TARGET_MSG, Kernel
from qos.limits import DevNo
from qos.meter import BOUNDS_NS

if TYPE_CHECKING:
    from pathlib import Path

DEV = DevNo(253, 3)
OURS = ":".join(["7", "3", *["0"] * (len(BOUNDS_NS) - 1)])
PRINTED = f"0+{WHOLE} 6 1 48 600 4 2 8 4000 1 5000 4600 600 4000 {OURS}"


def answer(request: bytearray, text: str) -> bytearray:
    """Fill a request's buffer with a text, or say that it is too short, as the kernel does."""
    size = len(request)
    full = len(text) >= size - HEADER.size
    flags = DM_DATA_OUT_FLAG | (DM_BUFFER_FULL_FLAG if full else 0)
    kept = 0 if full else len(text) + 1
    header = HEADER.pack(4, 0, 0, HEADER.size + kept, HEADER.size, 0, 0, flags, 0, 0, 0, b"", b"")
    request[:] = (header + (b"" if full else text.encode())).ljust(size, b"\0")
    return request


def device_list(request: bytearray, devices: dict[str, DevNo]) -> bytearray:
    """Fill a request's buffer with a list of devices."""
    records = []
    for name, dev in devices.items() or {"": DevNo(0, 0)}.items():
        raw = name.encode() + b"\0"
        raw += bytes(-(NAME.size + len(raw)) % 8)
        records.append((dev, raw))
    body = b""
    for place, (dev, raw) in enumerate(records):
        following = NAME.size + len(raw) if place < len(records) - 1 else 0
        body += NAME.pack(dev.major << 8 | dev.minor, following) + raw
    flags = DM_BUFFER_FULL_FLAG if HEADER.size + len(body) > len(request) else 0
    size = HEADER.size + len(body)
    header = HEADER.pack(4, 0, 0, size, HEADER.size, 0, 0, flags, 0, 0, 0, b"", b"")
    request[:] = (header if flags else header + body).ljust(len(request), b"\0")
    return request


LINE = f"0+{WHOLE} {WHOLE} sluice v1 precise_timestamps histogram:25000"


class Told(Kernel):
    """Answer as a kernel with these regions, each a line of the list and what it prints; note what changes."""

    def __init__(self, *regions: tuple[str, str]) -> None:
        self.regions = dict(enumerate(regions))
        self.mapped = {"other": DevNo(253, 0), "sluice-a": DEV}
        self.done: list[str] = []

    def query_long(self, fd: int, request: int, buffer: bytearray) -> bytearray:  # noqa: ARG002
        """Print, or list."""
        if request == DM_LIST_DEVICES:
            return device_list(buffer, self.mapped)
        assert request == DM_TARGET_MSG
        word, _, which = said(buffer).partition(" ")
        if word == "@stats_list":
            lines = [f"{number}: {line}" for number, (line, _) in self.regions.items() if f" {which} " in line]
            return answer(buffer, "".join(f"{line}\n" for line in lines))
        if int(which) not in self.regions:
            raise OSError(2, "no such region")
        return answer(buffer, self.regions[int(which)][1])

    def ioctl(self, fd: int, request: int, argument: int | bytearray = 0, *, path: object = "") -> int:  # noqa: ARG002
        """Note it."""
        assert (request, type(argument)) == (DM_TARGET_MSG, bytearray)
        assert isinstance(argument, bytearray)
        self.done.append(said(argument))
        return 0


def said(request: bytearray) -> str:
    """Return the text of a message."""
    return bytes(request[HEADER.size + dmtable.MESSAGE.size :]).split(b"\0")[0].decode()


@pytest.fixture(autouse=True)
def _control(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    monkeypatch.setattr("csi_driver.host.dm.CONTROL", tmp_path / "control")


def test_what_is_printed_is_counted() -> None:
    """The order is that of the kernel's documentation: bytes are sectors of 512, times nanoseconds."""
    found = parse(PRINTED)

    assert found is not None
    assert (found.reads, found.writes, found.rbytes, found.wbytes) == (6, 4, 48 * 512, 8 * 512)
    assert (found.reads_ns, found.writes_ns, found.busy_ns) == (600, 4000, 5000)
    assert (found.buckets[:3], sum(found.buckets)) == ((7, 3, 0), 10)


@pytest.mark.parametrize(
    "text", ["", "0+100 6 1 48 600 4 2 8 4000 1 5000 4600 600 4000", PRINTED.replace(OURS, "1:2"), f"8+{PRINTED[2:]}"]
)
def test_the_statistics_of_others_are_not_taken_for_ours(text: str) -> None:
    """Another extent, no histogram, or other bounds."""
    assert parse(text) is None


def test_a_device_without_a_histogram_gets_one() -> None:
    """Over all that the device may ever be, in nanoseconds, and signed."""
    kernel = Told()

    assert Statistics(kernel).ensure(DEV)
    (made,) = kernel.done
    assert made.startswith(f"@stats_create 0+{WHOLE} /1 2 precise_timestamps histogram:25000,31250,")
    assert made.endswith(",9183549616 sluice v1")


def test_a_histogram_is_never_doubled() -> None:
    """One of ours is used; a second one, and one with other bounds, go. What others count stays."""
    old = LINE.replace(" v1 ", " v0 ")
    kernel = Told(("0+100 100 other - ", ""), (old, ""), (LINE, PRINTED), (LINE, PRINTED))

    assert not Statistics(kernel).ensure(DEV)
    assert kernel.done == ["@stats_delete 1", "@stats_delete 3"]


def test_ours_is_read_wherever_it_stands() -> None:
    """Others may have been there before, and be gone since."""
    others = ("0+100 100 other - ", "0+100 1 2 3 4 5 6 7 8 9 10 11 12 13")

    assert Statistics(Told((LINE, PRINTED))).read([DEV]) == {DEV: parse(PRINTED)}
    both = Told(others, (LINE, PRINTED))
    assert Statistics(both).read([DEV]) == {DEV: parse(PRINTED)}
    del both.regions[0]
    assert Statistics(both).read([DEV]) == {DEV: parse(PRINTED)}


def test_a_device_without_ours_is_left_out() -> None:
    """It is gone, or nobody counted."""
    assert Statistics(Told()).read([DEV]) == {}
    assert Statistics(Told(("0+100 100 other - ", "0+100 1"))).read([DEV]) == {}


def test_a_device_that_is_gone_is_left_out() -> None:
    """It went between the list and the look; the others are read all the same."""

    class Gone(Told):
        def query_long(self, fd: int, request: int, buffer: bytearray) -> bytearray:
            if HEADER.unpack_from(buffer)[10] == os.makedev(*DEV):
                raise OSError(6, "no such device")
            return super().query_long(fd, request, buffer)

    kernel = Gone((LINE, PRINTED))

    assert Statistics(kernel).read([DEV, DevNo(253, 0)]) == {DevNo(253, 0): parse(PRINTED)}


def test_an_answer_of_any_length_is_read() -> None:
    """Years of counting make long numbers; a thousand devices make a long list."""
    kernel = Told((LINE, PRINTED.replace(":0", f":{10**19}")))
    kernel.mapped |= {f"sluice-{number}": DevNo(253, number) for number in range(4, 200)}
    found = Statistics(kernel).read([DEV])[DEV]

    assert found.buckets[:3] == (7, 3, 10**19)
    assert len(Statistics(kernel).devices()) == 197


def test_devices_are_listed_by_what_their_names_begin_with() -> None:
    """And none where there is none."""
    kernel = Told()

    assert Statistics(kernel).devices() == {"sluice-a": DEV}
    kernel.mapped.clear()
    assert Statistics(kernel).devices() == {}


def test_a_kernel_without_device_mapper_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not an OSError, which no caller expects."""
    monkeypatch.setattr("csi_driver.host.dm.CONTROL", tmp_path / "nothing")

    for ask in (Statistics(Told()).devices, lambda: Statistics(Told()).ensure(DEV)):
        with pytest.raises(Unready, match="can't list"):
            ask()
    with pytest.raises(Unready, match="can't read"):
        Statistics(Told()).read([DEV])

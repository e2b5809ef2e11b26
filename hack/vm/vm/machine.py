"""The machine's hardware: QEMU's command line, and the channels between the guest and this process."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .image import Image
    from .qemu import Emulator

CONSOLE = "console"
PORTS = ("stdout", "stderr", "status", "results")
# A crash ends the machine at once (oops=panic, panic=-1 and -no-reboot) and with its last words on the console.
KERNEL_ARGUMENTS = (
    "console=ttyS0 loglevel=5 oops=panic panic=-1 mitigations=off audit=0 apparmor=0 psi=1 net.ifnames=0"
    " no_timer_check cryptomgr.notests random.trust_cpu=on 8250.nr_uarts=1 lsm=capability systemd.unit=sluice.target"
    " systemd.show_status=no"
)
# On a busy host the kernel takes an emulated clock for a broken one, and each look at another is a trip to the device.
CLOCK = {"kvm": "", "tcg": " tsc=reliable"}
# What costs an emulated processor more than it gives. Five-level page tables make every miss of its TLB dearer, smap
# each copy from or to a program; with svm the guest would load its own KVM. Fast string operations are emulated byte by
# byte, and the wide registers are what each change of programs saves: without both, copies take a third of the time.
WITHOUT = (
    *("la57", "smap", "svm", "erms", "fsrm", "fzrm", "fsrs", "xsave", "xsaveopt", "xgetbv1", "pku"),
    *("avx", "avx2", "f16c", "fma", "vaes", "vpclmulqdq"),
)
PROCESSOR = {"kvm": "host", "tcg": ",".join(("max", *(f"{feature}=off" for feature in WITHOUT)))}
ACCELERATOR = {"kvm": "kvm", "tcg": "tcg,thread=multi"}


@dataclass(frozen=True, slots=True)
class DataDisk:
    """The blank disk for the command and the speed it is held to; None is as fast as it goes."""

    path: Path
    iops: int | None = None
    bytes_per_second: int | None = None

    def option(self) -> str:
        """Return QEMU's words for the drive."""
        words = [f"file={_escaped(self.path)}", "id=data", "if=none", "format=raw", "cache=unsafe", "discard=unmap"]
        if self.iops is not None:
            words.append(f"throttling.iops-total={self.iops}")
        if self.bytes_per_second is not None:
            words.append(f"throttling.bps-total={self.bytes_per_second}")
        return ",".join(words)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one run's machine has."""

    accelerator: str
    job_disk: Path
    data: DataDisk | None = None
    memory_mib: int = 2048
    processors: int = 2
    append: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A running QEMU and this process's ends of its channels, by name."""

    process: subprocess.Popen[bytes]
    channels: Mapping[str, socket.socket]


def _escaped(path: Path) -> str:
    """Double the commas, since a single one ends an option's value."""
    return str(path).replace(",", ",,")


def command_line(emulator: Emulator, image: Image, hardware: Hardware, descriptors: Mapping[str, int]) -> list[str]:
    """Return QEMU's command line; descriptors are its ends of the channels."""
    root = f"file={_escaped(image.disk)},id=root,if=none,format=raw,snapshot=on"
    job = f"file={_escaped(hardware.job_disk)},id=job,if=none,format=raw,cache=unsafe"
    argv = [*emulator.argv, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "qboot.rom"]
    argv += [
        "-machine",
        "q35,hpet=off,smm=off,vmport=off,sata=off,i8042=off",
        "-accel",
        ACCELERATOR[hardware.accelerator],
    ]
    argv += ["-cpu", PROCESSOR[hardware.accelerator], "-smp", str(hardware.processors), "-m", f"{hardware.memory_mib}M"]
    argv += ["-uuid", str(uuid.uuid4()), "-nic", "none", "-device", "virtio-rng-pci"]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append"]
    arguments = KERNEL_ARGUMENTS + CLOCK[hardware.accelerator]
    argv += [f"{arguments} {hardware.append}" if hardware.append else arguments]
    drives = {"root": root, "job": job}
    if hardware.data is not None:
        drives["data"] = hardware.data.option()
    for name, drive in drives.items():
        argv += ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial=sluice-{name}"]
    argv += ["-device", "virtio-serial-pci"]
    for name, descriptor in descriptors.items():
        argv += ["-chardev", f"socket,id={name},fd={descriptor}"]
        if name == CONSOLE:
            argv += ["-serial", f"chardev:{name}"]
        else:
            argv += ["-device", f"virtserialport,chardev={name},name=sluice.{name}"]
    return argv


@contextmanager
def running(emulator: Emulator, image: Image, hardware: Hardware) -> Iterator[Machine]:
    """Start the machine and make sure that it is gone at the end, whatever happens to this process."""
    pairs = {name: socket.socketpair() for name in (CONSOLE, *PORTS)}
    descriptors = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
    argv = command_line(emulator, image, hardware, descriptors)
    # The scratch file that takes the writes to the root disk is made in TMPDIR.
    environment = {**os.environ, **emulator.environment, "TMPDIR": str(hardware.job_disk.parent)}
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *argv],
        stdin=subprocess.DEVNULL,
        stdout=pairs[CONSOLE][1].fileno(),
        stderr=pairs[CONSOLE][1].fileno(),
        pass_fds=tuple(descriptors.values()),
        env=environment,
        # A Ctrl-C at the terminal is for this process, which then ends the machine.
        start_new_session=True,
    )
    try:
        for _, theirs in pairs.values():
            theirs.close()
        yield Machine(process, {name: ours for name, (ours, _) in pairs.items()})
    finally:
        process.kill()
        process.wait()
        for ours, _ in pairs.values():
            ours.close()

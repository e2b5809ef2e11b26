"""udev, and what it must not look at: devices of volumes, since their bytes are the pods'.

udev reads each new block device. By what it finds, LVM activates a tenant's volume group on the host, md assembles his
array, btrfs takes his device for one of its own, and a link in /dev/disk/by-uuid may lead to his device instead of the
host's. Our own mapped devices carry flags against that (dm.py). Those of logical volumes are lvm's, and a loop device
can carry none, so a rule knows them by their names and by the name of the loop device's file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from collections.abc import Iterable

    from csi_driver.host.run import Runner
    from csi_driver.host.syscalls import Kernel

FOLDER = Path("/run/udev")
FOLDERS = (Path("/etc/udev/rules.d"), Path("/usr/lib/udev/rules.d"), Path("/lib/udev/rules.d"), FOLDER / "rules.d")
"""Where udev finds rules: the last is gone after a reboot."""
NAMES = ("12-sluice.rules", "59-sluice.rules")
"""Both hold the rule. Devices are read by 60-*.rules, and mapped ones on RHEL by 13-dm-disk.rules already; Debian's
55-dm.rules, in between, takes back a part of it for devices that udev knew before."""
RULE = """\
# The devices of Sluice's volumes hold what pods wrote: nothing on the host may act on it.
ACTION!="remove", SUBSYSTEM=="block", KERNEL=="loop[0-9]*", \\
  ATTR{loop/backing_file}=="*/images/????????-????-????-????-????????????.img*", \\
  ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0", ENV{UDISKS_IGNORE}="1", \\
  OPTIONS:="nowatch"
ACTION!="remove", SUBSYSTEM=="block", KERNEL=="dm-[0-9]*", \\
  ATTR{dm/name}=="sluice-????????-????-????-????-????????????|*-sluice--????????--????--????--????--????????????", \\
  ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1", \\
  ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0", ENV{UDISKS_IGNORE}="1", \\
  OPTIONS:="nowatch"
"""
RELOAD_SECONDS = 5.0


def keep_away(kernel: Kernel, runner: Runner, folder: Path = FOLDER) -> bool:
    """Have udev leave volumes alone from now on. Return whether it had to be told; False also where there is no udev.

    The rule is gone after a reboot, as the devices are. Raises Unready, ToolFailed.
    """
    rules = [folder / "rules.d" / name for name in NAMES]
    if not folder.is_dir() or all(rule.is_file() and rule.read_text() == RULE for rule in rules):
        return False
    for rule in rules:
        with as_unready(f"udev rule {rule}"):
            _write(kernel, rule)
    # By itself udev would notice within three seconds.
    runner.run(["udevadm", "control", "--reload"], deadline=Deadline(RELOAD_SECONDS))
    return True


def installed(folders: Iterable[Path] = FOLDERS) -> Path | None:
    """Return the folder that has the rules as they are now, None when none has both."""
    for folder in folders:
        with contextlib.suppress(OSError):
            if all((folder / name).read_text() == RULE for name in NAMES):
                return folder
    return None


def _write(kernel: Kernel, rule: Path) -> None:
    if not rule.parent.is_dir():
        kernel.mkdir(rule.parent, 0o755)
    draft = rule.with_suffix(".new")
    fd = kernel.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    try:
        kernel.pwrite(fd, RULE.encode(), 0, path=draft)
    finally:
        os.close(fd)
    kernel.rename(draft, rule)

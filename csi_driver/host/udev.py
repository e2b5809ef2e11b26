"""udev, and what it must not look at: devices of volumes, since their bytes are the pods'.

udev reads each new block device. By what it finds, LVM activates a tenant's volume group on the host, md assembles his
array, btrfs takes his device for one of its own, and a link in /dev/disk/by-uuid may lead to his device instead of the
host's. Mapped devices carry flags against that (dm.py); a loop device can't, so a rule knows it by its file's name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.deadline import Deadline
from csi_driver.host.refusals import as_unready

if TYPE_CHECKING:
    from csi_driver.host.run import Runner
    from csi_driver.host.syscalls import Kernel

FOLDER = Path("/run/udev")
# Before 60-*.rules, which read devices.
NAME = "59-sluice.rules"
RULE = """\
# The devices of Sluice's volumes hold what pods wrote: nothing on the host may act on it.
ACTION!="remove", SUBSYSTEM=="block", KERNEL=="loop[0-9]*", \\
  ATTR{loop/backing_file}=="*/images/????????-????-????-????-????????????.img*", \\
  ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0", ENV{UDISKS_IGNORE}="1", \\
  OPTIONS:="nowatch"
"""
RELOAD_SECONDS = 5.0


def keep_away(kernel: Kernel, runner: Runner, folder: Path = FOLDER) -> bool:
    """Have udev leave volumes alone from now on. Return whether it had to be told; False also where there is no udev.

    The rule is gone after a reboot, as the devices are. Raises Unready, ToolFailed.
    """
    rule = folder / "rules.d" / NAME
    if not folder.is_dir() or (rule.is_file() and rule.read_text() == RULE):
        return False
    with as_unready(f"udev rule {rule}"):
        if not rule.parent.is_dir():
            kernel.mkdir(rule.parent, 0o755)
        draft = rule.with_suffix(".new")
        fd = kernel.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        try:
            kernel.pwrite(fd, RULE.encode(), 0, path=draft)
        finally:
            os.close(fd)
        kernel.rename(draft, rule)
    # By itself udev would notice within three seconds.
    runner.run(["udevadm", "control", "--reload"], deadline=Deadline(RELOAD_SECONDS))
    return True

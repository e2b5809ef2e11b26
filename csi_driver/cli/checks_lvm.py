"""What `sluice doctor` looks at where pools are LVM's: its programs and settings, udev, and each pool."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from csi_driver.backends import lvmtags
from csi_driver.backends.lvmdevices import LvDevices
from csi_driver.backends.lvmgroup import PREFIX
from csi_driver.cli.checks import Check, missing, ok, recorded_identity, warning
from csi_driver.errors import Invalid, NotFound, StorageError
from csi_driver.host import block, lvmconf, udev
from csi_driver.host.lvm import host_prefix
from csi_driver.host.soundness import flaws
from csi_driver.host.standing import swapped_on
from csi_driver.host.thinpool import ThinPools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_driver.assemble import Machine
    from csi_driver.config import Config, PoolConfig
    from csi_driver.host.lvmconf import Settings
    from csi_driver.host.thinpool import ThinPool

LEAST_LVM = (2, 3, 12)
"""--setautoactivation came with 2.03.12, as did JSON that can be relied on."""
OURS = "/dev/mapper/sluice-00000000"
"""The name of a volume's device; all begin so."""
FILTER = "^/dev/mapper/sluice-"
NEVER = 100
PRECIOUS = (Path("/"), Path("/var/lib/etcd"))


def lvm_checks(config: Config, machine: Machine) -> Iterator[Check]:
    """Look at what LVM pools need; nothing where there are none."""
    pools = [pool for pool in config.pools if pool.backend == "lvm"]
    if not pools:
        return
    settings = None
    try:
        yield _version(machine)
        settings = lvmconf.settings(machine.runner, host_prefix())
    except StorageError as error:
        yield missing("lvm", str(error), "pools of backend lvm need lvm2 2.03.12 or newer")
    yield _thin_check(machine)
    if reason := machine.mapper.why_not():
        yield missing(
            "device-mapper for lvm", reason, "modprobe dm_mod dm_thin_pool: logical volumes are mapped devices"
        )
    yield _udev()
    if settings is not None:
        yield from _settings(settings)
    for pool in pools:
        yield from _pool(config, pool, machine, settings)


def _version(machine: Machine) -> Check:
    found = lvmconf.version(machine.runner, host_prefix())
    if found is None:
        return warning("lvm", "it tells no version that can be read", "lvm version")
    said = f"{found[0]}.{found[1]:02}.{found[2]}"
    if found < LEAST_LVM:
        return missing("lvm", f"version {said}", "install lvm2 2.03.12 or newer; Debian 12 has 2.03.16")
    return ok("lvm", f"version {said}")


def _thin_check(machine: Machine) -> Check:
    """Look for the program without which lvm activates no thin pool."""
    try:
        return ok("thin_check", machine.runner.find("thin_check"))
    except StorageError as error:
        return missing("thin_check", str(error), "apt-get install thin-provisioning-tools")


def _udev() -> Check:
    if not udev.FOLDER.is_dir():
        return warning(
            "udev",
            f"{udev.FOLDER} is not there: device-mapper works without udev, slower, and nobody keeps a udev of the "
            "host from reading volumes",
            f"in a container mount the host's {udev.FOLDER}; on the host install {' and '.join(udev.NAMES)}",
        )
    folder = udev.installed()
    if folder is None:
        return warning(
            "udev",
            "it has no rule yet that keeps it from reading volumes, or an older one",
            f"`sluice serve` writes it to {udev.FOLDER}; for the time before, copy deploy/udev to /etc/udev/rules.d",
        )
    return ok("udev", f"{folder} has the rules that keep it from reading volumes")


def _settings(settings: Settings) -> Iterator[Check]:
    """Look at settings by which lvm would do something behind the server's back."""
    threshold = settings.number("thin_pool_autoextend_threshold", NEVER)
    if threshold < NEVER:
        yield warning(
            "lvm autoextend",
            f"thin_pool_autoextend_threshold is {threshold}: dmeventd may extend pools by itself, and the reserve that "
            "was left for you is gone when you need it",
            lvmconf.setting(f"activation/thin_pool_autoextend_threshold={NEVER}"),
        )
    scans = settings.number("scan_lvs", 0) != 0
    if scans or (settings.devices_file() is None and settings.accepts("global_filter", [OURS])):
        why = "scan_lvs is 1" if scans else "devices/global_filter doesn't reject them"
        yield warning(
            "lvm filter",
            f"lvm commands typed by hand read what tenants wrote to their volumes: {why}",
            lvmconf.setting(
                "devices/scan_lvs=0", f"devices/global_filter={settings.rejecting('global_filter', FILTER)}"
            ),
        )


def _pool(config: Config, pool: PoolConfig, machine: Machine, settings: Settings | None) -> Iterator[Check]:
    name = f"pool {pool.name}"
    vg, thinpool = pool.path.parts
    try:
        found = ThinPools(machine.lvm).look(vg, thinpool, recorded_identity(config, pool))
        LvDevices(vg, thinpool, machine.mapper, machine.lvm.lock).check_below()
    except NotFound as error:
        yield missing(name, str(error), f"sluice pool create --name {pool.name} --help, or give the right --pool")
        return
    except StorageError as error:
        yield missing(name, str(error), "the server doesn't touch the pool until this is mended")
        return
    yield _identity(config, pool, found)
    try:
        yield from _disks(name, found, settings)
    except StorageError as error:
        yield missing(f"{name}: disks", str(error), "in a container mount the host's /dev, and /run/udev")
    for flaw in flaws(found):
        say = missing if flaw.grave else warning
        yield say(f"{name}: {flaw.about}", flaw.found, flaw.remedy)
    yield from _nameless(name, found)


def _identity(config: Config, pool: PoolConfig, found: ThinPool) -> Check:
    name = f"pool {pool.name}"
    recorded = recorded_identity(config, pool)
    said = f"{found.full_name} is {found.identity}"
    if recorded and recorded != found.identity:
        return missing(name, f"{said}, its record says {recorded}", "this is another pool of that name: rename it")
    if not recorded and any(lv.name.startswith(PREFIX) for lv in found.lvs):
        return warning(name, f"{said}, and has volumes without a record of it", "if records were lost: sluice adopt")
    size = f"{found.size >> 20} MiB in chunks of {found.chunk >> 10} KiB"
    return ok(name, f"{said}; {size}, {found.metadata >> 20} MiB of metadata")


def _disks(name: str, found: ThinPool, settings: Settings | None) -> Iterator[Check]:
    yield _precious(name, found)
    if settings is not None:
        yield from _hidden(name, found, settings)


def _precious(name: str, found: ThinPool) -> Check:
    """Look whether a disk of the pool has something on it that suffers from the pods' I/O, or they from its."""
    disks = {disk.name for path in found.devices for disk in block.disk_under(path)}
    shared = [
        str(folder)
        for folder in PRECIOUS
        if folder.exists() and disks & {disk.name for disk in block.disk_under(folder)}
    ]
    if disks & {disk.name for dev in swapped_on() for disk in block.disks_of(dev)}:
        shared.append("swap")
    if not shared:
        return ok(f"{name}: disks", ", ".join(sorted(disks)))
    return warning(
        f"{name}: disks",
        f"{', '.join(sorted(disks))} carries {', '.join(shared)} too: limits keep pods apart, not the host from them",
        "give pools disks of their own; etcd first",
    )


def _nameless(name: str, found: ThinPool) -> Iterator[Check]:
    mine = [lv for lv in found.lvs if lv.pool == found.name and lv.name.startswith(PREFIX)]
    if nameless := [lv.name for lv in mine if lvmtags.read(lv.tags) is None]:
        yield warning(
            f"{name}: volumes",
            f"{len(nameless)} of {len(mine)} have our name but no passport: {', '.join(nameless[:3])}",
            f"nothing touches them; lvs -o+tags {found.vg} shows what they are",
        )


def _hidden(name: str, found: ThinPool, settings: Settings) -> Iterator[Check]:
    """Look which disks lvm.conf or the devices file hide. The server sees them all the same."""
    listed = settings.devices_file()
    hidden = []
    for path, uuid in zip(found.devices, found.pv_uuids, strict=True):
        names = [str(path), *_links(path)]
        if listed is not None:
            seen = uuid.replace("-", "") in listed
        else:
            seen = settings.accepts("global_filter", names) and settings.accepts("filter", names)
        if not seen:
            hidden.append(str(path))
    if hidden:
        yield warning(
            f"{name}: filter",
            f"{', '.join(hidden)} can't be seen by lvm commands typed by hand; the server names its disks itself",
            "lvmdevices --adddev DISK, or let the filters of lvm.conf accept it",
        )


def _links(path: Path) -> Iterator[str]:
    """Yield the other names of a device: a filter may go by any of them."""
    number = block.device_at(path).dev
    for link in Path("/dev/disk").glob("by-*/*"):
        with contextlib.suppress(NotFound, Invalid):  # it leads nowhere, or is a folder
            if block.device_at(link).dev == number:
                yield str(link)

"""What `sluice doctor` says where pools are LVM's: every finding has words and a remedy, and nothing makes it fail."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_driver import assemble
from csi_driver.cli import checks_lvm
from csi_driver.cli.checks import Check, State
from csi_driver.cli.checks_lvm import lvm_checks
from csi_driver.config import Config
from csi_driver.errors import NotFound, StorageError, Unknown
from csi_driver.host import block, lvmconf, udev
from csi_driver.host.block import Disk
from csi_driver.host.lvmconf import Settings
from csi_driver.host.thinpool import Lv, ThinPools
from qos.limits import DevNo
from tests.unit.test_thin_pools import SOUND

if TYPE_CHECKING:
    from pathlib import Path

    from csi_driver.host.thinpool import ThinPool

DISK = Disk(DevNo(8, 0), "sda", "", "", 1, rotational=False)
QUIET = {"global_filter": '["r|^/dev/mapper/sluice-|"]'}
NAMELESS = "sluice-11111111-2222-4333-8444-555555555555"


class Host:
    """What the checks look at, set by a test."""

    def __init__(self, folder: Path) -> None:
        self.config = Config.of({"state": folder / "state", "pools": ["name=fast,backend=lvm,vg=fast,thinpool=thin"]})
        self.pool: ThinPool | StorageError = SOUND
        self.version: tuple[int, int, int] | StorageError | None = (2, 3, 31)
        self.values = dict(QUIET)
        self.devices_file: str | None = None

    def found(self) -> dict[str, Check]:
        machine = assemble.Machine()
        try:
            return {check.name: check for check in lvm_checks(self.config, machine)}
        finally:
            machine.dead_man.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give a host on which all is well."""
    host = Host(tmp_path)

    def tell(value: object) -> object:
        if isinstance(value, StorageError):
            raise value
        return value

    monkeypatch.setattr(ThinPools, "look", lambda *_: tell(host.pool))
    monkeypatch.setattr(lvmconf, "version", lambda *_: tell(host.version))
    monkeypatch.setattr(lvmconf, "settings", lambda *_: Settings(host.values))
    monkeypatch.setattr(Settings, "devices_file", lambda _: host.devices_file)
    monkeypatch.setattr(block, "disk_under", lambda _: ())
    monkeypatch.setattr(block, "device_at", lambda path: block.Device(path, DevNo(8, 0)))
    monkeypatch.setattr(checks_lvm, "swapped_on", frozenset)
    monkeypatch.setattr(checks_lvm, "PRECIOUS", (tmp_path,))
    monkeypatch.setattr(udev, "FOLDER", tmp_path)
    monkeypatch.setattr(udev, "installed", lambda: tmp_path)
    return host


def test_a_sound_pool_gives_no_warning(host: Host) -> None:
    """Of what is the pool's own."""
    found = host.found()

    assert {name for name, check in found.items() if name.startswith("pool") and check.state is not State.OK} == set()
    assert found["lvm"].found == "version 2.03.31"


@pytest.mark.parametrize(
    ("version", "state"), [((2, 3, 11), State.MISSING), ((2, 3, 12), State.OK), (None, State.WARNING)]
)
def test_an_old_lvm_is_told(host: Host, version: tuple[int, int, int] | None, state: State) -> None:
    """It doesn't know --setautoactivation."""
    host.version = version

    assert host.found()["lvm"].state is state


def test_without_lvm_all_the_rest_is_still_looked_at(host: Host) -> None:
    """A check that fails is a finding, not an end."""
    host.version, host.pool = Unknown("lvm did not end"), NotFound("no group")
    found = host.found()

    assert (found["lvm"].state, found["pool fast"].state) == (State.MISSING, State.MISSING)
    assert found["udev"].state is State.OK


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({**QUIET, "thin_pool_autoextend_threshold": "70"}, "lvm autoextend"),
        ({}, "lvm filter"),
        ({**QUIET, "scan_lvs": "1"}, "lvm filter"),
        ({"global_filter": '["r|.*|"]'}, "pool fast: filter"),
        ({**QUIET, "filter": '["r|vdb|"]'}, "pool fast: filter"),
    ],
)
def test_settings_that_get_in_the_way_are_told(host: Host, values: dict[str, str], name: str) -> None:
    """As warnings: the server names its disks itself."""
    host.values = values
    warned = {check.name for check in host.found().values() if check.state is State.WARNING}

    assert name in warned


@pytest.mark.parametrize(("listed", "warned"), [("PVID=ab", False), ("PVID=xy", True)])
def test_a_devices_file_without_the_disk_is_told(host: Host, listed: str, *, warned: bool) -> None:
    """It hides from lvm what it doesn't list; tenants' volumes too, so it wants no filter."""
    host.devices_file, host.values = listed, {}
    found = host.found()

    assert ("pool fast: filter" in found, "lvm filter" in found) == (warned, False)


def test_a_disk_that_carries_the_machine_is_told(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And swap: no limit protects the host from its pods there."""
    monkeypatch.setattr(block, "disk_under", lambda _: (DISK,))
    monkeypatch.setattr(block, "disks_of", lambda _: (DISK,))
    monkeypatch.setattr(checks_lvm, "swapped_on", lambda: frozenset({DISK.dev}))
    check = host.found()["pool fast: disks"]

    assert check.state is State.WARNING
    assert f"sda carries {tmp_path}, swap" in check.found


def test_disks_that_can_not_be_looked_at_are_a_finding(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without the host's /dev."""

    def fail(path: Path) -> tuple[Disk, ...]:
        raise NotFound(f"no such file or device: {path}")

    monkeypatch.setattr(block, "disk_under", fail)

    assert host.found()["pool fast: disks"].state is State.MISSING


@pytest.mark.parametrize(
    ("folder", "rules", "words"),
    [("none", True, "is not there"), (".", False, "no rule yet")],
)
def test_a_udev_that_does_not_know_is_told(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str, *, rules: bool, words: str
) -> None:
    """In a container without the host's, and before the first start."""
    monkeypatch.setattr(udev, "FOLDER", tmp_path / folder)
    monkeypatch.setattr(udev, "installed", lambda: tmp_path if rules else None)
    check = host.found()["udev"]

    assert (check.state, words in check.found) == (State.WARNING, True)


def test_volumes_without_a_passport_and_pools_without_a_record_are_told(host: Host) -> None:
    """Nothing touches them."""
    host.pool = dataclasses.replace(SOUND, lvs=(*SOUND.lvs, Lv(NAMELESS, 1, "thin", private=False, tags=())))
    found = host.found()

    assert NAMELESS in found["pool fast: volumes"].found
    assert "adopt" in found["pool fast"].remedy


def test_flaws_are_findings_and_the_grave_ones_stop_it(host: Host) -> None:
    """What leaks a tenant's bytes is no warning."""
    host.pool = dataclasses.replace(SOUND, zeroes=False, when_full="queue")
    found = host.found()

    assert found["pool fast: zeroing"].state is State.MISSING
    assert found["pool fast: when full"].state is State.WARNING


def test_where_no_pool_is_lvms_nothing_is_asked(host: Host) -> None:
    """A node with folders needs no lvm."""
    host.config = Config.of({"pools": ["name=slow,backend=loop,path=/p"]})

    assert host.found() == {}

"""What classes may say, and what they may not: each wrong value is named with its key, and nothing is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.input.served import IDS
from tests.input.stand import MOUNT, USED

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.input.served import Served

LONG = "9" * 4000
BUDGET = {
    "an unknown key": ({"teir": "training"}, "parameter 'teir' is not known"),
    "a known key in capitals": ({"Tier": "training"}, "parameter 'Tier' is not known"),
    "a key with a NUL": ({"tier\0": "training"}, r"parameter 'tier\x00' is not known"),
    "an empty key": ({"": "training"}, "parameter '' is not known"),
    "a long key": ({"k" * 4000: ""}, "parameter 'kkk"),
    "an unknown tier": (
        {"tier": "gold"},
        "tier: there is no tier 'gold'; there are inference, scratch, standard, training, vector-db, weights",
    ),
    "an empty tier": ({"tier": ""}, "tier: there is no tier ''"),
    "a tier that is a path": ({"tier": "../training"}, "tier: there is no tier '../training'"),
    "a long tier": ({"tier": LONG}, "tier: there is no tier '999"),
    "no amount": ({"readIOPS": "lots"}, "readIOPS='lots'"),
    "an empty amount": ({"readIOPS": ""}, "readIOPS=''"),
    "a negative amount": ({"writeIOPS": "-5"}, "writeIOPS='-5'"),
    "nothing": ({"readBPS": "0"}, "readBPS='0': 0 is too low"),
    "less than the kernel takes": ({"readBPS": "1"}, "readBPS='1': 1 is too low"),
    "more than the kernel takes": ({"readIOPS": "4294967295"}, "readIOPS='4294967295'"),
    "more than any number": ({"writeBPS": "1e99"}, "writeBPS='1e99'"),
    "a long number": ({"writeBPS": LONG}, "writeBPS='999"),
    "bytes for I/Os": ({"readIOPS": "5Mi"}, "readIOPS='5Mi'"),
    "digits of another script": ({"readIOPS": "٣٠٠"}, "readIOPS='٣٠٠'"),
    "a rate for another unit": ({"readBPS": "1Mi/Ti"}, "readBPS='1Mi/Ti'"),
    "crossed bounds": ({"readIOPS": "3/Gi,500..100"}, "readIOPS='3/Gi,500..100'"),
    "a floor of nothing": ({"minIOPS": "0"}, "minIOPS='0': 0 is too low"),
    "a floor in bytes for I/Os": ({"minIOPS": "5Mi"}, "minIOPS='5Mi'"),
    "a floor near its ceiling": ({"minIOPS": "500", "readIOPS": "999"}, "readIOPS: a ceiling of 999 is below 1000"),
    "a burst": ({"burstBPS": "1Gi"}, "burstBPS: not supported yet (its value is '1Gi')"),
    "more than 4 KiB": ({"tier": "x" * 2048, "readIOPS": "y" * 2048}, "parameters: 4108 bytes"),
}
SHAPE = {
    "no file system": ({"fsType": "ntfs"}, "fsType: 'ntfs'"),
    "a long file system": ({"fsType": LONG}, "fsType: '999"),
    "a mount option that isn't allowed": ({"mountOptions": "noatime,suid"}, "mountOptions: option 2 of 2"),
    "a mount option that takes no text": ({"mountOptions": "commit=x"}, "mountOptions: option 1 of 1"),
    "a mount option with a NUL": ({"mountOptions": "ro\0"}, "mountOptions: option 1 of 1"),
    "mkfs options without values": ({"mkfsOptions": "-F -F"}, "mkfsOptions: '-F -F'"),
    "an mkfs option that isn't allowed": ({"mkfsOptions": "-b 1024"}, "mkfsOptions: '-b 1024'"),
    "an mkfs option for a value": ({"mkfsOptions": "-m -F"}, "mkfsOptions: '-m -F'"),
    "half a quote": ({"mkfsOptions": "-m '1"}, 'mkfsOptions: "-m \'1"'),
    "a NUL, which no program can be given": ({"mkfsOptions": "-m 1\0"}, r"mkfsOptions: '-m 1\x00'"),
    "another disk for the log": ({"fsType": "xfs", "mkfsOptions": "-l logdev=sda"}, "mkfsOptions: '-l logdev=sda'"),
    "another disk for the data": ({"fsType": "xfs", "mkfsOptions": "-d agcount=4,name=sda"}, "mkfsOptions: '-d"),
    "another disk beside the volume": (
        {"fsType": "btrfs", "mountOptions": "device=/dev/sda"},
        "mountOptions: option 1",
    ),
    "a part of a volume": ({"fsType": "btrfs", "mountOptions": "noatime,subvol=x"}, "mountOptions: option 2 of 2"),
    "a btrfs without its trees": ({"fsType": "btrfs", "mountOptions": "rescue=all"}, "mountOptions: option 1 of 1"),
    "a folder of the host's": ({"fsType": "btrfs", "mkfsOptions": "--rootdir /etc"}, "mkfsOptions: '--rootdir /etc'"),
    "sectors that not all devices have": ({"fsType": "btrfs", "mkfsOptions": "-s 512"}, "mkfsOptions: '-s 512'"),
    "a path": ({"mkfsOptions": "-T /etc/passwd"}, "mkfsOptions: '-T /etc/passwd'"),
    "an offset": ({"mkfsOptions": "-E offset=4096"}, "mkfsOptions: '-E offset=4096'"),
    "long mkfs options": ({"mkfsOptions": LONG}, "mkfsOptions: '999"),
    "no sector size": ({"sectorSize": "1000"}, "sectorSize: '1000'"),
    "a negative read-ahead": ({"readAheadKiB": "-4"}, "readAheadKiB: '-4'"),
    "a large read-ahead": ({"readAheadKiB": "1048577"}, "readAheadKiB: '1048577'"),
    "a long read-ahead": ({"readAheadKiB": LONG}, "readAheadKiB: '999"),
    "a read-ahead in another script": ({"readAheadKiB": "٣"}, "readAheadKiB: '٣'"),
}


def check(served: Served, method: str, message: Message, words: str) -> None:
    """Check that a call is refused in these words, and changes nothing."""
    code, said = served.ask(method, message)

    assert code == "INVALID_ARGUMENT", said
    assert words in said
    assert len(said) < 700
    assert served.state() == served.furnished


@pytest.mark.parametrize("case", BUDGET | SHAPE)
def test_a_class_that_makes_no_sense_makes_no_volume(served: Served, case: str) -> None:
    """Key and value are named, the value cut."""
    given, words = (BUDGET | SHAPE)[case]
    check(
        served,
        "CreateVolume",
        csi.CreateVolumeRequest(name="new", volume_capabilities=[MOUNT], parameters=given),
        words,
    )


@pytest.mark.parametrize("case", BUDGET)
def test_a_budget_that_makes_no_sense_makes_no_volume(served: Served, case: str) -> None:
    """The same for a VolumeAttributesClass."""
    given, words = BUDGET[case]
    message = csi.CreateVolumeRequest(name="new", volume_capabilities=[MOUNT], mutable_parameters=given)
    check(served, "CreateVolume", message, words)


@pytest.mark.parametrize("case", BUDGET)
def test_a_budget_that_makes_no_sense_is_not_taken_on(served: Served, case: str) -> None:
    """The same for a volume that is there: all of its budget stays, also what was asked for beside the mistake."""
    given, words = BUDGET[case]
    message = csi.ControllerModifyVolumeRequest(volume_id=IDS[USED], mutable_parameters={"writeIOPS": "77"} | given)
    check(served, "ControllerModifyVolume", message, words if "4108" not in words else "mutable_parameters: 4119 bytes")


@pytest.mark.parametrize("case", BUDGET | SHAPE)
def test_capacity_for_a_class_that_makes_no_sense_is_refused(served: Served, case: str) -> None:
    """A scheduler hears of it before a claim does."""
    given, words = (BUDGET | SHAPE)[case]
    check(served, "GetCapacity", csi.GetCapacityRequest(parameters=given), words)


@pytest.mark.parametrize("key", ["fsType", "mountOptions", "mkfsOptions", "sectorSize", "pool", "readAheadKiB"])
def test_what_is_for_good_is_no_budget(served: Served, key: str) -> None:
    """A VolumeAttributesClass can't change what a volume was made with."""
    message = csi.ControllerModifyVolumeRequest(volume_id=IDS[USED], mutable_parameters={key: "4096"})
    check(served, "ControllerModifyVolume", message, f"parameter '{key}' is not known")


@pytest.mark.parametrize("pool", ["slow", "../fast", LONG, "fast\n"], ids=ascii)
def test_a_pool_that_is_nowhere_is_named(served: Served, pool: str) -> None:
    """RESOURCE_EXHAUSTED: another node may have it."""
    message = csi.CreateVolumeRequest(name="new", volume_capabilities=[MOUNT], parameters={"pool": pool})
    code, said = served.ask("CreateVolume", message)

    assert code == "RESOURCE_EXHAUSTED"
    assert f"fast on n1: the class asks for pool {pool[:99]!r}"[:120].rstrip("'") in said
    assert served.state() == served.furnished


def test_parameters_that_a_volume_was_not_made_with_are_not_confirmed(served: Served) -> None:
    """ValidateVolumeCapabilities confirms only what it looked at, and found so."""
    asked = csi.ValidateVolumeCapabilitiesRequest(volume_id=IDS[USED], volume_capabilities=[MOUNT])
    plain = served.answer("ValidateVolumeCapabilities", asked.SerializeToString())
    asked.parameters["tier"] = "gold"
    other = served.answer("ValidateVolumeCapabilities", asked.SerializeToString())
    asked.parameters.clear()
    asked.mutable_parameters["readIOPS"] = "900"
    budget = served.answer("ValidateVolumeCapabilities", asked.SerializeToString())

    assert plain.HasField("confirmed")
    assert (other.HasField("confirmed"), other.message[:11]) == (False, "parameters:")
    assert (budget.HasField("confirmed"), budget.message[:19]) == (False, "mutable_parameters:")

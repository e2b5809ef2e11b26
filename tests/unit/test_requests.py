"""Sizes and class parameters, as callers ask for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.controller.requests import LARGEST_SIZE, SizeRange
from csi_driver.errors import Invalid, OutOfRange
from csi_driver.parameters import MOUNT_OPTIONS, check_mount_options, modified, wanted
from csi_driver.records import GIB, SIZE_STEP
from qos.tiers import load

TIERS = load()
sizes = st.integers(0, 1 << 62)


@given(sizes, sizes, st.integers(0, 1 << 40))
def test_a_chosen_size_lies_in_the_range_and_is_whole(required: int, limit: int, smallest: int) -> None:
    """Or there is none, and the caller hears so."""
    asked = SizeRange(required, limit)
    try:
        size = asked.choose(smallest)
    except Invalid:
        assert 0 < limit < required
        return
    except OutOfRange:
        assert -(-max(required, smallest) // SIZE_STEP) * SIZE_STEP > min(limit or LARGEST_SIZE, LARGEST_SIZE)
        return

    assert size % SIZE_STEP == 0
    assert size >= max(required, smallest)
    assert asked.holds(size)


@given(st.integers(1, 1 << 50))
def test_exactly_the_size_that_is_asked_for_is_made_when_it_is_whole(steps: int) -> None:
    """CSI wants at least required_bytes; we give no byte more."""
    asked = min(steps * SIZE_STEP, LARGEST_SIZE)

    assert SizeRange(asked).choose(SIZE_STEP) == asked


def test_a_volume_attributes_class_wins_over_the_storage_class() -> None:
    """mutable_parameters override parameters key by key."""
    want = wanted(TIERS, GIB, {"tier": "training", "readIOPS": "900"}, {"readIOPS": "700", "writeBPS": "8Mi"})

    assert (want.qos.limits.riops, want.qos.limits.wbps) == (700, 8 << 20)
    assert want.qos.overrides == {"readIOPS": "700", "writeBPS": "8Mi"}
    assert want.qos.required


def test_sidecars_own_keys_are_no_parameters() -> None:
    """The provisioner's extra metadata gives the claim's name and nothing else."""
    extra = {
        "csi.storage.k8s.io/pvc/name": "data",
        "csi.storage.k8s.io/pvc/namespace": "team",
        "csi.storage.k8s.io/x": "",
    }

    assert wanted(TIERS, GIB, extra, {}).claim == "team/data"


def test_a_tiers_options_belong_to_its_file_system() -> None:
    """Another fsType than the tier's doesn't inherit options that it may not know."""
    own = wanted(TIERS, GIB, {"tier": "training"}, {}).file_system
    other = wanted(TIERS, GIB, {"tier": "training", "fsType": "ext4"}, {}).file_system

    assert (own.type, own.mount_options) == ("xfs", ("noatime",))
    assert (other.type, other.mount_options, other.mkfs_options) == ("ext4", (), ())


def test_moving_to_another_tier_keeps_the_overrides() -> None:
    """Modify changes the keys it is given, and no other."""
    before = wanted(TIERS, GIB, {"tier": "training", "readIOPS": "900"}, {}).qos
    after = modified(TIERS, GIB, before, {"tier": "inference"})

    assert (after.tier, after.overrides, after.limits.riops) == ("inference", {"readIOPS": "900"}, 900)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize("option", ["suid", "dev", "bind", "remount", "loop", "commit=5;x", "ro,suid", "context=x", ""])
def test_a_mount_option_that_is_not_on_the_list_is_refused_without_its_value(fs_type: str, option: str) -> None:
    """mount_flags may hold a secret: the message says its place."""
    with pytest.raises(Invalid) as caught:
        check_mount_options(fs_type, ("ro", option), "mount_flags")

    assert "mount_flags: option 2 of 2" in str(caught.value)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_listed_mount_options_are_taken(fs_type: str) -> None:
    """Each by itself, those with a value with one."""
    for option in MOUNT_OPTIONS[""] | MOUNT_OPTIONS[fs_type]:
        check_mount_options(fs_type, (option + "64k" if option.endswith("=") else option,), "mount_flags")

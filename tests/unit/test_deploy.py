"""The classes that a platform engineer applies: they fit the driver, and each other."""

from __future__ import annotations

import pytest

from csi_driver import parameters
from csi_driver.config import DRIVER_NAME
from qos.quantity import parse_bytes
from qos.tiers import load
from tests.deploy import Manifest, manifest, manifests

GIB = 1 << 30
TIERS = load(None)
STORAGE = manifests("StorageClass")
ATTRIBUTES = manifests("VolumeAttributesClass")
CLAIMS = manifests("PersistentVolumeClaim")


def test_every_class_is_of_this_driver() -> None:
    """A class with another driver's name would wait for that driver, for ever."""
    drivers = [body.get("provisioner") or body.get("driverName") or body.get("driver") for body in _bodies()]

    assert drivers == [DRIVER_NAME] * len(drivers)
    assert manifests("CSIDriver")[0].name == DRIVER_NAME


@pytest.mark.parametrize("kind", ["StorageClass", "VolumeAttributesClass"])
def test_every_built_in_tier_has_a_class(kind: str) -> None:
    """Each tier is named by a class called after it."""
    named = {found.name: found.parameters["tier"] for found in manifests(kind)}

    assert {f"sluice-{tier}": tier for tier in TIERS}.items() <= named.items()


@pytest.mark.parametrize("found", STORAGE, ids=lambda found: found.name)
def test_storage_classes_wait_for_a_pod_and_may_grow(found: Manifest) -> None:
    """A local volume goes where its pod goes; parameters are ones that the driver takes."""
    wanted = parameters.wanted(TIERS, 100 * GIB, found.parameters, {})

    assert found.body["volumeBindingMode"] == "WaitForFirstConsumer"
    assert found.body["allowVolumeExpansion"] is True
    assert wanted.qos.tier == found.parameters["tier"]


@pytest.mark.parametrize("found", ATTRIBUTES, ids=lambda found: found.name)
def test_volume_attributes_classes_change_what_they_name(found: Manifest) -> None:
    """Every parameter is one that ControllerModifyVolume takes."""
    standard = parameters.qos_of(TIERS, 100 * GIB, {})
    changed = parameters.modified(TIERS, 100 * GIB, standard, found.parameters)

    assert found.body["apiVersion"] == "storage.k8s.io/v1"
    assert {"tier": changed.tier, **changed.overrides} == found.parameters


@pytest.mark.parametrize("kind", ["VolumeSnapshotClass", "VolumeGroupSnapshotClass"])
def test_snapshots_and_groups_have_a_class_that_takes_no_parameters(kind: str) -> None:
    """The driver has none for them; a cut goes when what asked for it goes."""
    (found,) = manifests(kind)

    assert (found.parameters, found.body["deletionPolicy"]) == ({}, "Delete")


def test_the_group_example_names_the_class() -> None:
    """By a label that its claims have."""
    example = manifest("VolumeGroupSnapshot", "vectors-nightly").body

    assert example["spec"]["volumeGroupSnapshotClassName"] == manifests("VolumeGroupSnapshotClass")[0].name
    assert example["apiVersion"] == manifests("VolumeGroupSnapshotClass")[0].body["apiVersion"]
    assert example["spec"]["source"]["selector"]["matchLabels"]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda found: found.name)
def test_example_claims_name_classes_that_are_here(claim: Manifest) -> None:
    """An example that stays pending teaches nothing."""
    spec = claim.body["spec"]
    attributes = spec.get("volumeAttributesClassName")

    assert spec["storageClassName"] in {found.name for found in STORAGE}
    assert attributes in {None, *(found.name for found in ATTRIBUTES)}
    assert parse_bytes(spec["resources"]["requests"]["storage"]) >= GIB


def test_the_raw_volume_example_has_a_pod_that_uses_its_claim() -> None:
    """The pod names the claim, and a device, not a mount."""
    claim = manifest("PersistentVolumeClaim", "raw")
    pod = manifest("Pod", "raw-user").body["spec"]

    assert claim.body["spec"]["volumeMode"] == "Block"
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim.name
    assert pod["containers"][0]["volumeDevices"][0]["name"] == pod["volumes"][0]["name"]


def test_the_checkpoint_volume_is_as_large_as_sluice_size_says() -> None:
    """70 billion parameters in bf16, three kept: the claim holds them, and not much more."""
    claim = manifest("PersistentVolumeClaim", "checkpoints").body["spec"]
    size = parse_bytes(claim["resources"]["requests"]["storage"])

    assert 70 * 10**9 * 2 * 3 * 3 // 2 <= size < 70 * 10**9 * 2 * 3 * 2


def _bodies() -> list[dict[str, object]]:
    return [found.body for found in manifests() if found.kind.endswith("Class")]

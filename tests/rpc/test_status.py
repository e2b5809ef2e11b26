"""The table of codes: whole, and as the design has it."""

from __future__ import annotations

import grpc
import pytest

from csi_driver import errors
from csi_driver.controller.lookup import BadToken
from csi_driver.errors import Lost, NoSpace, StorageError, ToolFailed
from csi_driver.rpc.status import code_of

Code = grpc.StatusCode


def all_errors(kind: type[StorageError] = StorageError) -> list[type[StorageError]]:
    """Return the driver's own: those of hack/ are never answered to a caller."""
    below = [each for child in kind.__subclasses__() for each in (child, *all_errors(child))]
    return [each for each in below if each.__module__.startswith("csi_driver.")]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_that_is_not_internal(kind: type[StorageError]) -> None:
    """INTERNAL is for bugs alone."""
    assert code_of("CreateVolume", kind.__new__(kind)) is not Code.INTERNAL


@pytest.mark.parametrize(
    ("rpc", "error", "code"),
    [
        ("CreateVolume", errors.Invalid(""), Code.INVALID_ARGUMENT),
        ("CreateVolume", errors.Conflict(""), Code.ALREADY_EXISTS),
        ("DeleteVolume", errors.InUse(""), Code.FAILED_PRECONDITION),
        ("NodePublishVolume", errors.NotStaged(""), Code.FAILED_PRECONDITION),
        ("CreateVolume", errors.OutOfRange(""), Code.OUT_OF_RANGE),
        ("CreateVolume", NoSpace(""), Code.RESOURCE_EXHAUSTED),
        ("CreateSnapshot", NoSpace(""), Code.RESOURCE_EXHAUSTED),
        ("ControllerExpandVolume", NoSpace(""), Code.OUT_OF_RANGE),
        ("ControllerModifyVolume", NoSpace(""), Code.INVALID_ARGUMENT),
        ("CreateSnapshot", errors.Unsupported(""), Code.UNIMPLEMENTED),
        ("CreateVolumeGroupSnapshot", errors.Unsupported(""), Code.FAILED_PRECONDITION),
        ("CreateVolumeGroupSnapshot", NoSpace(""), Code.RESOURCE_EXHAUSTED),
        ("NodeStageVolume", errors.Busy(""), Code.ABORTED),
        ("NodeStageVolume", errors.Unknown(""), Code.DEADLINE_EXCEEDED),
        ("NodeStageVolume", errors.Unready(""), Code.UNAVAILABLE),
        ("NodeStageVolume", ToolFailed("mkfs", 1, "no"), Code.UNAVAILABLE),
        ("NodeStageVolume", Lost(""), Code.UNAVAILABLE),
        ("ListVolumes", BadToken(""), Code.ABORTED),
        ("NodeGetVolumeStats", errors.NotFound(""), Code.NOT_FOUND),
        ("CreateVolume", ValueError(), Code.INTERNAL),
    ],
)
def test_codes_are_those_of_the_design(rpc: str, error: BaseException, code: grpc.StatusCode) -> None:
    """The sidecars' retries hang on these."""
    assert code_of(rpc, error) is code

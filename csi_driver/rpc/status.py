"""The one table of codes: (RPC, error) -> gRPC status. CSI's sidecars decide on retries by it."""

from __future__ import annotations

import grpc

from csi_driver.controller.lookup import BadToken
from csi_driver.errors import (
    Busy,
    Conflict,
    InUse,
    Invalid,
    NoSpace,
    NotFound,
    NotStaged,
    OutOfRange,
    StorageError,
    Unknown,
    Unready,
    Unsupported,
)

CODES: dict[type[StorageError], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    BadToken: grpc.StatusCode.ABORTED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    InUse: grpc.StatusCode.FAILED_PRECONDITION,
    NotStaged: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    NoSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    Busy: grpc.StatusCode.ABORTED,
    Unknown: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unready: grpc.StatusCode.UNAVAILABLE,
}

BY_RPC: dict[tuple[str, type[StorageError]], grpc.StatusCode] = {
    # The resizer reads RESOURCE_EXHAUSTED as "in progress": the user could not choose a smaller size or another class.
    ("ControllerExpandVolume", NoSpace): grpc.StatusCode.OUT_OF_RANGE,
    ("NodeExpandVolume", NoSpace): grpc.StatusCode.OUT_OF_RANGE,
    ("ControllerModifyVolume", NoSpace): grpc.StatusCode.INVALID_ARGUMENT,
    # CSI's word for volumes that can't be cut together: whoever wants it has to change the volumes.
    ("CreateVolumeGroupSnapshot", Unsupported): grpc.StatusCode.FAILED_PRECONDITION,
}


def code_of(rpc: str, error: BaseException) -> grpc.StatusCode:
    """Return the code of an error in an RPC; INTERNAL for what is none of ours, which is a bug."""
    for kind in type(error).__mro__:
        if (code := BY_RPC.get((rpc, kind)) or CODES.get(kind)) is not None:
            return code
    return grpc.StatusCode.INTERNAL

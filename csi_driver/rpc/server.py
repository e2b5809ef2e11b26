"""The gRPC server on a Unix socket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from csi_driver.errors import Invalid, Unready
from csi_driver.rpc import csi_pb2_grpc
from csi_driver.rpc.intercept import Intercept

if TYPE_CHECKING:
    from csi_driver.rpc.controller import Controller
    from csi_driver.rpc.group import Group
    from csi_driver.rpc.identity import Identity
    from csi_driver.rpc.intercept import Observe
    from csi_driver.rpc.node import Node

SCHEME = "unix://"
STOP_SECONDS = 5.0


def socket_path(endpoint: str) -> Path:
    """Return the socket of an endpoint `unix:///PATH`. Raises Invalid for anything else."""
    path = Path(endpoint.removeprefix(SCHEME))
    if not endpoint.startswith(SCHEME) or not path.is_absolute():
        raise Invalid(
            f"endpoint: {endpoint!r} is not unix:// and an absolute path, such as unix:///run/sluice/csi.sock"
        )
    return path


class Server:
    """Serve CSI on one socket: 0600, in a folder that is 0700 if it had to be made."""

    def __init__(
        self,
        endpoint: str,
        observe: Observe,
        identity: Identity,
        controller: Controller | None,
        node: Node | None,
        group: Group | None = None,
    ) -> None:
        self._socket = socket_path(endpoint)
        self._intercept = Intercept(observe)
        # No maximum_concurrent_rpcs: its RESOURCE_EXHAUSTED would read as "the disk is full".
        self._server = grpc.server(self._intercept.default_pool, interceptors=[self._intercept])
        csi_pb2_grpc.add_IdentityServicer_to_server(identity, self._server)
        if controller is not None:
            csi_pb2_grpc.add_ControllerServicer_to_server(controller, self._server)
        if node is not None:
            csi_pb2_grpc.add_NodeServicer_to_server(node, self._server)
        if group is not None:
            csi_pb2_grpc.add_GroupControllerServicer_to_server(group, self._server)

    def start(self) -> None:
        """Listen. Raises Unready when the socket can't be made."""
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._socket}")
        except RuntimeError as error:
            raise Unready(f"can't listen on {self._socket}: {error}") from error
        finally:
            os.umask(before)
        self._server.start()

    def stop(self) -> None:
        """Let calls under way end, for a few seconds, and take the socket away."""
        self._server.stop(STOP_SECONDS).wait()
        self._intercept.close()
        self._socket.unlink(missing_ok=True)

"""The Identity service: who the driver is, and whether it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import BoolValue

from csi_driver.rpc import csi_pb2
from csi_driver.rpc.csi_pb2_grpc import IdentityServicer

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

Service = csi_pb2.PluginCapability.Service
Expansion = csi_pb2.PluginCapability.VolumeExpansion
SERVICES = (
    Service.CONTROLLER_SERVICE,
    Service.VOLUME_ACCESSIBILITY_CONSTRAINTS,
    Service.GROUP_CONTROLLER_SERVICE,
)


class Identity(IdentityServicer):
    """Answer from constants, so that a Probe is quick whatever else goes on."""

    def __init__(self, name: str, version: str, ready: Callable[[], bool]) -> None:
        self._name = name
        self._version = version
        self._ready = ready

    def GetPluginInfo(
        self, request: csi_pb2.GetPluginInfoRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginInfoResponse:
        """Say the driver's name and version."""
        return csi_pb2.GetPluginInfoResponse(name=self._name, vendor_version=self._version)

    def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Say that volumes and groups have controllers, that volumes live on nodes, and that they grow while in use."""
        response = csi_pb2.GetPluginCapabilitiesResponse()
        for service in SERVICES:
            response.capabilities.add().service.type = service
        response.capabilities.add().volume_expansion.type = Expansion.ONLINE
        return response

    def Probe(self, request: csi_pb2.ProbeRequest, context: grpc.ServicerContext) -> csi_pb2.ProbeResponse:
        """Say whether calls are served by now."""
        return csi_pb2.ProbeResponse(ready=BoolValue(value=self._ready()))

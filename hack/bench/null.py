"""A gRPC server that does nothing: the same library, stubs, threads and kind of socket, and empty answers.

Run as `python -m hack.bench.null SOCKET`. What it takes is what no Python driver can save.
"""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc import csi_pb2_grpc as stubs

THREADS = 32


def _empty(service: str, servicer: type) -> Any:  # noqa: ANN401 - one of three servicers
    """Return a servicer whose every RPC answers with an empty message of its type."""
    methods = csi.DESCRIPTOR.services_by_name[service].methods
    answers = {method.name: getattr(csi, method.output_type.name) for method in methods}
    return type("Empty", (servicer,), {name: _answering(answer) for name, answer in answers.items()})()


def _answering(answer: type) -> Any:  # noqa: ANN401 - a handler of any RPC
    return lambda _self, _request, _context: answer()


def main() -> int:
    """Serve until told to stop."""
    ended = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = grpc.server(ThreadPoolExecutor(THREADS))
    stubs.add_IdentityServicer_to_server(_empty("Identity", stubs.IdentityServicer), server)
    stubs.add_ControllerServicer_to_server(_empty("Controller", stubs.ControllerServicer), server)
    stubs.add_NodeServicer_to_server(_empty("Node", stubs.NodeServicer), server)
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    server.start()
    ended.wait()
    server.stop(None).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What every call passes: a thread pool of its kind, an id, the log, the metrics, and the map from errors to codes."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError

from csi_driver.deadline import Deadline
from csi_driver.errors import Invalid, StorageError
from csi_driver.rpc.status import code_of

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

ID_FIELDS = ("volume_id", "snapshot_id", "group_snapshot_id", "name", "source_volume_id")
DEFAULT_SECONDS = 60.0
MARGIN_SECONDS = 0.5
"""How long before the caller gives up a call answers, so that it hears what was waited for."""

LONGEST_MESSAGE = 2048
"""Bytes. A status travels in HTTP/2 trailers: a byte that isn't ASCII takes three there, and clients take 8 KiB."""

NODE_TAKES = frozenset({"NodeUnpublishVolume", "NodeUnstageVolume", "NodeGetVolumeStats"})
WORKERS = {"identity": 2, "controller": 32, "node": 16, "node-takes": 8}
"""Threads by kind: neither waiting controller calls nor mounts that hang keep a Probe or an unpublish from its turn."""


class Observe(Protocol):
    """Be told of every call that ended, for the metrics."""

    def __call__(self, rpc: str, code: str, seconds: float) -> None:
        """Take the RPC's name, the code's name and how long it took."""


def deadline_of(context: grpc.ServicerContext) -> Deadline:
    """Return the time by which a handler must have answered."""
    left = context.time_remaining()
    seconds = DEFAULT_SECONDS if left is None else min(left, DEFAULT_SECONDS * 60)
    return Deadline(seconds - MARGIN_SECONDS)


def one_line(text: str) -> str:
    """Return a message as one line that can be printed, of at most 2 KiB."""
    if text.isascii() and text.isprintable() and len(text) <= LONGEST_MESSAGE:
        return text
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return line.encode()[:LONGEST_MESSAGE].decode(errors="ignore")


class Intercept(grpc.ServerInterceptor):
    """Wrap every handler of the server."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._pools = {kind: ThreadPoolExecutor(count, f"rpc-{kind}") for kind, count in WORKERS.items()}
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._numbers = itertools.count(1)

    @property
    def default_pool(self) -> ThreadPoolExecutor:
        """Return the pool for calls that no handler is known for."""
        return self._pools["identity"]

    def close(self) -> None:
        """Let the threads end."""
        for pool in self._pools.values():
            pool.shutdown(wait=False)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the wrapped handler of a method, wrapping it at its first call."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = continuation(handler_call_details)
            if handler is None or handler.unary_unary is None:
                return handler
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        service, rpc = method.strip("/").split("/")
        inner = handler.unary_unary

        def behave(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - any message
            return self._call(rpc, _refuse if isinstance(request, Invalid) else inner, request, context)

        # grpc's own switch for the pool that runs a handler (grpc/_server.py, _select_thread_pool_for_behavior).
        behave.experimental_thread_pool = self._pools[_kind(service, rpc)]  # type: ignore[attr-defined]
        return grpc.unary_unary_rpc_method_handler(
            behave, _decoded(handler.request_deserializer), handler.response_serializer
        )

    def _call(self, rpc: str, inner: Any, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        started = time.monotonic()
        call = next(self._numbers)
        ids = {name: value[:128] for name in ID_FIELDS if (value := getattr(request, name, ""))}
        code, said = grpc.StatusCode.OK, ""
        with structlog.contextvars.bound_contextvars(rpc=rpc, call=call, **ids):
            try:
                answer = inner(request, context)
                log.debug("answered", ms=_ms(started))
            except StorageError as error:
                code, said = code_of(rpc, error), one_line(str(error))
                log.info("refused", code=code.name, reason=said, ms=_ms(started))
            except Exception as error:
                code = code_of(rpc, error)
                said = f"{rpc} met a bug of the driver ({type(error).__name__}); its log has it under call {call}"
                log.exception("bug", code=code.name, ms=_ms(started))
        self._observe(rpc, code.name, time.monotonic() - started)
        if code is not grpc.StatusCode.OK:
            context.abort(code, said)
        return answer


def _decoded(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return bytes that are no message as the error to answer with: grpc itself would answer INTERNAL."""

    def decode(data: bytes) -> Any:  # noqa: ANN401 - any message
        try:
            return deserialize(data) if deserialize else data
        except DecodeError:
            return Invalid("the request is no message of CSI: its bytes are not protobuf, or a text in it is not UTF-8")

    return decode


def _refuse(error: Invalid, _: grpc.ServicerContext) -> None:
    raise error


def _ms(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 2)


def _kind(service: str, rpc: str) -> str:
    if rpc in NODE_TAKES:
        return "node-takes"
    name = service.rpartition(".")[2].lower()
    return name if name in WORKERS else "controller"

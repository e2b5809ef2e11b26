"""Below CSI: messages that are too large, callers that go away, methods that aren't there, bytes that aren't gRPC."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
from typing import TYPE_CHECKING

import grpc
import pytest
import structlog

from csi_driver.deadline import Deadline, wait_for
from csi_driver.errors import Busy
from csi_driver.rpc import csi_pb2 as csi
from csi_driver.rpc.csi_pb2_grpc import ControllerStub
from csi_driver.rpc.intercept import LONGEST_MESSAGE, one_line
from tests.input.stand import MOUNT
from tests.torture import pick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.input.served import Served

WANTED = csi.CreateVolumeRequest(name="new", volume_capabilities=[MOUNT])
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GARBAGE = {
    "nothing": b"",
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "half a preface": HTTP2[:9],
    "a frame of no kind": HTTP2 + b"\x00\x00\x04\xff\xff\x00\x00\x00\x01abcd",
    "a frame that is too long": HTTP2 + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "headers that are none": HTTP2
    + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    + b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff\xff",
    "noise": random.Random(4).randbytes(1 << 16),  # noqa: S311 - the same noise each time
}


@pytest.fixture(autouse=True)
def _lives_on(served: Served, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that the server answers afterwards, that nothing is left, and that no log has a traceback."""
    caplog.set_level(logging.WARNING)
    with structlog.testing.capture_logs() as logs:
        yield
    served.restore()

    assert served.ask("Probe", b"") == ("OK", "")
    assert [entry for entry in logs if entry["log_level"] in {"error", "critical"}] == []
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_message_that_is_too_large_is_refused_by_grpc(served: Served) -> None:
    """RESOURCE_EXHAUSTED, in gRPC's own words; no sidecar sends 4 MiB."""
    request = csi.CreateVolumeRequest(name="new", volume_capabilities=[MOUNT], secrets={"key": "x" * (5 << 20)})
    code, said = served.ask("CreateVolume", request)

    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in said
    assert served.state() == served.furnished


def test_a_large_message_that_grpc_takes_is_read(served: Served) -> None:
    """Its size is no reason to refuse it: what is too large in it is."""
    request = csi.CreateVolumeRequest(name="new", volume_capabilities=[MOUNT], parameters={"tier": "x" * (3 << 20)})
    code, said = served.ask("CreateVolume", request)

    assert code == "INVALID_ARGUMENT"
    assert said.startswith("parameters: 3145732 bytes")
    assert served.state() == served.furnished


@pytest.mark.parametrize(
    "path", ["/csi.v1.Controller/CreateVolumes", "/csi.v9.Node/NodeStageVolume", "/x", "/", "/a/b/c"]
)
def test_a_method_that_is_not_there_is_unimplemented(served: Served, path: str) -> None:
    """As gRPC has it."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary(path)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("count", [0, 2])
def test_a_call_has_one_message(served: Served, count: int) -> None:
    """None is refused by gRPC; of several the first is read."""
    call: grpc.StreamUnaryMultiCallable[bytes, bytes] = served.channel.stream_unary("/csi.v1.Controller/ListVolumes")
    codes = []
    try:
        call(iter([b""] * count), timeout=10)
    except grpc.RpcError as error:
        codes.append(error.code())

    assert codes == ([] if count else [grpc.StatusCode.UNIMPLEMENTED])


class Stuck:
    """Work that lasts until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let_go, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *_: object, **__: object) -> None:
        self.entered.set()
        self.let_go.wait(20)
        self.ended.set()
        raise Busy("let go")


@pytest.fixture
def stuck(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """Let every CreateVolume be stuck."""
    made = Stuck()
    monkeypatch.setattr(served.world.controller.volumes, "create", made)
    yield made
    made.let_go.set()
    assert made.ended.wait(10)


def test_a_caller_that_cancels_is_let_go(served: Served, stuck: Stuck) -> None:
    """The call ends for it at once; here the work ends in its own time, and nobody is told."""
    call = ControllerStub(served.channel).CreateVolume.future(WANTED, timeout=20)
    assert stuck.entered.wait(10)
    call.cancel()
    with pytest.raises(grpc.FutureCancelledError):
        call.result()

    assert call.code() is grpc.StatusCode.CANCELLED
    assert not stuck.ended.is_set()


def test_a_caller_whose_deadline_passes_is_let_go(served: Served, stuck: Stuck) -> None:
    """It hears so at its deadline, whatever the work does."""
    code, _ = served.ask("CreateVolume", WANTED, seconds=1)
    assert stuck.entered.wait(10)

    assert code == "DEADLINE_EXCEEDED"
    assert not stuck.ended.is_set()


def test_a_caller_without_time_gets_none(served: Served) -> None:
    """Whatever its deadline cuts, the server is well, and a retry ends the work."""
    codes = {served.ask("CreateVolume", WANTED, seconds=0)[0]}
    for number in range(pick(40, 4000)):
        codes.add(served.ask("CreateVolume", WANTED, seconds=0.0002 * number % 0.01)[0])
    answered = served.ask("CreateVolume", WANTED)
    served.quiet()

    assert codes <= {"DEADLINE_EXCEEDED", "ABORTED", "OK"}
    assert answered == ("OK", "")


@pytest.mark.parametrize("case", GARBAGE)
def test_bytes_that_are_no_grpc_end_their_connection_only(served: Served, case: str) -> None:
    """Others are served meanwhile and afterwards."""
    with contextlib.ExitStack() as at_end:
        for _ in range(pick(5, 100)):
            one = at_end.enter_context(socket.socket(socket.AF_UNIX))
            one.settimeout(5)
            one.connect(str(served.socket))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                one.sendall(GARBAGE[case])

        assert served.ask("ListVolumes", b"") == ("OK", "")


def test_headers_that_are_too_large_end_their_call_only(served: Served) -> None:
    """A megabyte of metadata is refused by gRPC."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = served.channel.unary_unary("/csi.v1.Controller/ListVolumes")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=10, metadata=(("key", "x" * (1 << 20)),))

    assert caught.value.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    wait_for("the server answers", lambda: served.ask("Probe", b"")[0] == "OK", Deadline(10))


@pytest.mark.parametrize("text", ["\ud83d" * 3000, "é" * 3000, "\n" * 3000, "x" * 3000, "\0" * 3000], ids=ascii)
def test_a_message_is_one_line_that_fits(text: str) -> None:
    """Of any text: half a character, none that can be printed, and too much of it."""
    line = one_line(text)

    assert line
    assert line.isprintable()
    assert len(line.encode()) <= LONGEST_MESSAGE

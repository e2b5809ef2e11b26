"""Whatever a caller sends, the answer is one that CSI has, says what is wrong, and leaves nothing."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings

from csi_driver.parameters import CREATE_KEYS
from csi_driver.rpc.intercept import LONGEST_MESSAGE
from tests.input import proto
from tests.input.codes import right
from tests.input.messages import WRONG_PATHS, requests
from tests.input.real import Real
from tests.input.stand import CUT, GROUP, IDLE, MEMBERS, RAW, USED
from tests.serving import Server
from tests.torture import TORTURE, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.input.served import Served
    from tests.input.stand import Stand

    Note = Callable[[str, object], None]

pytestmark = pytest.mark.timeout(pick(120, 1800))

ANY_REQUEST = "the request"
"""What a message names where bytes are no message, and so no field can be named."""


def words_of(method: str) -> set[str]:
    """Return the words with one of which a message must begin: names of fields, and of parameters in them."""
    names = {names[-1] for names, _ in proto.fields(proto.METHODS[method].input_type)}
    return names | CREATE_KEYS | {"parameter"} if "parameters" in names or "mutable_parameters" in names else names


def messages_to_try(method: str) -> int:
    """Return how many: more where a message has more fields to be wrong."""
    if method not in proto.OFFERED:
        return pick(5, 500)
    fields = [field for _, field in proto.fields(proto.METHODS[method].input_type)]
    return pick(1, 20) * (15 + 6 * len(fields) + 20 * sum(map(proto.is_map, fields)))


def try_one(stand: Stand, method: str, data: bytes) -> None:
    """Make a call and check its answer."""
    before = stand.state()
    code, said = stand.ask(method, data)
    note(f"{code}: {said}")

    assert code in right(method), said
    if code != "OK":
        assert said
        assert said.isprintable()
        assert len(said.encode()) <= LONGEST_MESSAGE
        assert stand.state() == before
    if code == "INVALID_ARGUMENT":
        assert said.startswith(ANY_REQUEST) or said.split(maxsplit=1)[0].split("=")[0].rstrip(":") in words_of(method)
    elif code == "OK" and stand.state() != before:
        stand.restore()


def values_of(stand: Stand) -> dict[str, list[Any]]:
    """Return right values that differ from stand to stand, and its wrong paths."""
    ids = stand.ids
    return {
        "volume_id": [ids[USED], ids[IDLE], ids[RAW]],
        "source_volume_id": [ids[USED], ids[IDLE]],
        "source_volume_ids": [[ids[name] for name in MEMBERS], [ids[IDLE]]],
        "snapshot_id": [ids[CUT]],
        "group_snapshot_id": [ids[GROUP]],
        "snapshot_ids": [[ids[f"{GROUP} {name}"] for name in MEMBERS]],
        "staging_target_path": [stand.staging(name) for name in (USED, IDLE, RAW)],
        "target_path": [stand.target(USED), stand.target("new")],
        "volume_path": [stand.target(USED), stand.staging(USED), stand.staging(RAW)],
        WRONG_PATHS: stand.wrong_paths(),
    }


def fuzz(stand: Stand, method: str, count: int, record_property: Note) -> None:
    """Try so many messages: the same ones each time, in torture others."""
    number = secrets.randbits(32) if TORTURE else 0
    record_property("seed", number)
    record_property("messages", count)

    @settings(
        max_examples=count,
        derandomize=not TORTURE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(requests(method, values_of(stand)))
    def attempt(data: bytes) -> None:
        note(f"seed {number}")
        try_one(stand, method, data)

    (seed(number)(attempt) if TORTURE else attempt)()

    assert stand.ask("Probe", b"") == ("OK", "")


@pytest.mark.parametrize("method", proto.METHODS)
def test_any_message_gets_an_answer_of_csi(served: Served, method: str, record_property: Note) -> None:
    """Never INTERNAL or UNKNOWN; one line that names the field; a refused call changes nothing."""
    fuzz(served, method, messages_to_try(method), record_property)

    assert served.world.faults() == []


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    """Give a server on this machine's kernel."""
    with Server() as server, Real.on(server) as made:
        yield made


@pytest.mark.native
@pytest.mark.parametrize("method", [method for method in proto.OFFERED if method.startswith("Node")])
def test_any_node_call_gets_an_answer_of_csi_on_a_real_kernel(real: Real, method: str, record_property: Note) -> None:
    """The same where paths, mounts and devices are this machine's own."""
    fuzz(real, method, messages_to_try(method) // 4, record_property)

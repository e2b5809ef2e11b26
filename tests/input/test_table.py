"""Bad input by name: the code that CSI wants, and a message that names the field and the value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.input import proto
from tests.input.served import IDS
from tests.input.stand import USED
from tests.input.valid import REQUIRED, fill, request

if TYPE_CHECKING:
    from tests.input.served import Served

LONG = "x" * 4096

STRINGS = {
    "name": "CreateVolume CreateSnapshot CreateVolumeGroupSnapshot",
    "volume_id": "DeleteVolume ControllerGetVolume ControllerExpandVolume ControllerModifyVolume NodeStageVolume "
    "NodeUnstageVolume NodePublishVolume NodeUnpublishVolume NodeGetVolumeStats NodeExpandVolume",
    "source_volume_id": "CreateSnapshot ListSnapshots",
    "snapshot_id": "DeleteSnapshot GetSnapshot ListSnapshots",
    "group_snapshot_id": "DeleteVolumeGroupSnapshot GetVolumeGroupSnapshot",
}
PATHS = {
    "staging_target_path": "NodeStageVolume NodeUnstageVolume NodePublishVolume",
    "target_path": "NodePublishVolume NodeUnpublishVolume",
    "volume_path": "NodeGetVolumeStats NodeExpandVolume",
}


def fields_of(table: dict[str, str]) -> list[tuple[str, str]]:
    """Return pairs of a method and a field."""
    return [(method, field) for field, methods in table.items() for method in methods.split()]


def refused(served: Served, method: str, message: Any) -> tuple[str, str]:  # noqa: ANN401 - any message
    """Make a call that must change nothing; return its code and words."""
    before = served.state()
    code, said = served.ask(method, message)

    assert code != "OK", "it was answered with OK"
    assert served.state() == before, said
    return code, said


def right(served: Served, method: str, name: str = USED) -> Any:  # noqa: ANN401 - any message
    """Return a request with nothing wrong in it."""
    return request(method, served, name)


@pytest.mark.parametrize(("method", "field"), [(method, field) for method in REQUIRED for field in REQUIRED[method]])
def test_what_is_required_and_missing_is_named(served: Served, method: str, field: str) -> None:
    """INVALID_ARGUMENT, and the field's name."""
    message = right(served, method)
    message.ClearField(field)

    assert refused(served, method, message) == ("INVALID_ARGUMENT", f"{field} is missing")


@pytest.mark.parametrize("method", sorted(REQUIRED))
def test_an_empty_message_is_refused(served: Served, method: str) -> None:
    """Nothing at all: the first field that is missing is named."""
    code, said = refused(served, method, b"")

    assert code == "INVALID_ARGUMENT"
    assert said == f"{REQUIRED[method][0]} is missing"


@pytest.mark.parametrize("method", proto.OFFERED)
def test_bytes_that_are_no_message_are_the_callers_mistake(served: Served, method: str) -> None:
    """Neither INTERNAL nor a traceback."""
    assert refused(served, method, b"\xff" * 9)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("method", sorted(REQUIRED))
def test_a_text_that_is_not_utf_8_is_the_callers_mistake(served: Served, method: str) -> None:
    """The specification's texts are proto3's, which are UTF-8."""
    code, said = refused(served, method, b"\x0a\x02\xff\xfe")

    assert code == "INVALID_ARGUMENT"
    assert "UTF-8" in said


@pytest.mark.parametrize(("method", "field"), fields_of(STRINGS))
@pytest.mark.parametrize("value", ["x" * 129, LONG, "é" * 65, "\0", "a\0b", "\x1b[31m"], ids=ascii)
def test_a_text_is_128_bytes_and_controls_nothing(served: Served, method: str, field: str, value: str) -> None:
    """The specification's limits, in bytes; the value is quoted, cut."""
    code, said = refused(served, method, fill(right(served, method), field, value))

    assert code == "INVALID_ARGUMENT"
    assert said.startswith(f"{field}: {value[:9]!r}"[:-1])
    assert len(said) < 200


STRANGE = ["..", "../../etc", "/", "a/b", "-rf", "--help", IDS[USED].upper(), IDS[USED] + "\n", "{}", "%s", "٣" * 36]


@pytest.mark.parametrize("value", STRANGE, ids=ascii)
@pytest.mark.parametrize(("method", "field"), [pair for pair in fields_of(STRINGS) if pair[1] != "name"])
def test_an_id_that_is_none_of_ours_leads_nowhere(served: Served, method: str, field: str, value: str) -> None:
    """Not to a path, and not to a volume with a similar one. Deletions and lists have nothing to do."""
    before = served.state()
    code, said = served.ask(method, fill(right(served, method), field, value))

    assert served.state() == before
    if method.startswith(("Delete", "List")):
        assert (code, said) == ("OK", "")
    else:
        assert code == "NOT_FOUND"
        assert repr(value) in said


@pytest.mark.parametrize("value", [*STRANGE, "\u3000", "a\tb\r\nc", "\u202e", "x" * 128], ids=ascii)
@pytest.mark.parametrize("method", ["CreateVolume", "CreateSnapshot", "CreateVolumeGroupSnapshot"])
def test_a_name_may_be_any_text(served: Served, method: str, value: str) -> None:
    """But for the characters that the specification bans. An id is made of its hash, so it is never a path."""
    code, said = served.ask(method, fill(right(served, method), "name", value))
    served.restore()

    assert (code, said) == ("OK", "")


@pytest.mark.parametrize(
    "value", ["a", "./a", "", "/..", "/a/../b", "/a\0", f"/{LONG}", f"/{'x' * 256}", "~", "a:/b"], ids=ascii
)
@pytest.mark.parametrize(("method", "field"), fields_of(PATHS))
def test_a_path_is_absolute_and_one_that_the_kernel_takes(served: Served, method: str, field: str, value: str) -> None:
    """INVALID_ARGUMENT, but for volume_path: CSI wants NOT_FOUND of a path where no volume is."""
    code, said = refused(served, method, fill(right(served, method), field, value))

    assert code == ("NOT_FOUND" if field == "volume_path" and value else "INVALID_ARGUMENT")
    assert said.startswith(field)
    assert repr(value)[:20] in said or not value
    assert len(said) < 300

"""Paths that are not what a node call needs, on a real kernel: refused by name, and nothing is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from csi_driver.rpc import csi_pb2 as csi
from tests.input.real import Real
from tests.input.stand import BLOCK, IDLE, MOUNT, RAW, USED, changed
from tests.input.valid import fill
from tests.serving import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.native

BAD, USES = "INVALID_ARGUMENT", "FAILED_PRECONDITION"
Mode = csi.VolumeCapability.AccessMode
SHARED = changed(MOUNT, access_mode=Mode(mode=Mode.SINGLE_NODE_MULTI_WRITER))
SHARED_BLOCK = changed(BLOCK, access_mode=Mode(mode=Mode.SINGLE_NODE_MULTI_WRITER))


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    """Give a server with volumes in every state."""
    with Server() as server, Real.on(server) as made:
        yield made


def stage(real: Real, path: Path | str) -> Any:  # noqa: ANN401 - any message
    """Return a request to stage the idle volume somewhere."""
    asked = csi.NodeStageVolumeRequest(volume_id=real.ids[IDLE], staging_target_path=str(path))
    return fill(asked, "volume_capability", MOUNT)


def publish(real: Real, path: Path | str, name: str = USED) -> Any:  # noqa: ANN401 - the same
    """Return a request to publish a staged volume at one more place."""
    asked = csi.NodePublishVolumeRequest(
        volume_id=real.ids[name], staging_target_path=real.staging(name), target_path=str(path)
    )
    return fill(asked, "volume_capability", SHARED_BLOCK if name == RAW else SHARED)


def unpublish(real: Real, path: Path | str) -> Any:  # noqa: ANN401 - the same
    """Return a request to take the used volume away from a path."""
    return csi.NodeUnpublishVolumeRequest(volume_id=real.ids[USED], target_path=str(path))


NO_STAGING = {
    "file": "is not a folder",
    "fifo": "is not a folder",
    "nowhere": "is not a folder",
    "file/in": "is not a folder",
    "link": "is a symbolic link",
    "dangling": "is a symbolic link",
    "dangling/in": "is not a folder",
    "loop": "is a symbolic link",
    "loop/in": "is not a folder",
    "x" * 256: "is no path that the kernel takes",
    "folder/../folder": "without '..'",
}
NO_TARGET = {
    "file": "is there and is not a folder",
    "fifo": "is there and is not a folder",
    "nowhere/in": "is not a folder; the caller must make it",
    "file/in": "is not a folder; the caller must make it",
    "link": "is a symbolic link",
    "dangling": "is a symbolic link",
    "dangling/in": "is not a folder; the caller must make it",
    "loop": "is a symbolic link",
    "loop/in": "is not a folder; the caller must make it",
    "x" * 256: "is no path that the kernel takes",
    "folder/../folder": "without '..'",
}


def check_refused(real: Real, method: str, asked: Any, code: str, *words: str) -> None:  # noqa: ANN401 - any message
    """Check the answer to a call that must change nothing."""
    answered, said = real.ask(method, asked)

    assert answered == code, said
    assert [word for word in words if word not in said] == [], said
    assert said.isprintable()
    assert real.state() == real.furnished


@pytest.mark.parametrize("name", NO_STAGING)
def test_a_volume_is_staged_at_a_folder_only(real: Real, name: str) -> None:
    """Not at a link, which the owner of its folder may turn elsewhere, and not at what isn't there."""
    check_refused(
        real,
        "NodeStageVolume",
        stage(real, real.folder / "wrong" / name),
        BAD,
        "staging_target_path: ",
        NO_STAGING[name],
    )


def test_a_volume_is_not_staged_where_another_is(real: Real) -> None:
    """The device that came up for it goes again."""
    asked = stage(real, real.staging(USED))
    check_refused(real, "NodeStageVolume", asked, "ALREADY_EXISTS", "staging_target_path: ", "shows /dev/")


def test_a_volume_is_not_published_where_another_is(real: Real) -> None:
    """A mount is never put over a mount."""
    check_refused(real, "NodePublishVolume", publish(real, real.target(USED), RAW), BAD, "target_path: ")


@pytest.mark.parametrize("name", NO_TARGET)
def test_a_volume_is_published_at_a_folder_only(real: Real, name: str) -> None:
    """The driver makes the last part of the path, and nothing before it."""
    asked = publish(real, real.folder / "wrong" / name)
    check_refused(real, "NodePublishVolume", asked, BAD, "target_path: ", NO_TARGET[name])


@pytest.mark.parametrize("name", ["folder", "fifo", "link", "loop", "dangling"])
def test_a_device_is_published_at_a_file_only(real: Real, name: str) -> None:
    """A device is shown at a file, which the driver makes."""
    asked = publish(real, real.folder / "wrong" / name, RAW)
    check_refused(real, "NodePublishVolume", asked, BAD, "target_path: ")


@pytest.mark.parametrize("path", ["/", "//", "/dev/null", "/dev/zero"])
def test_what_belongs_to_the_system_is_not_published_over(real: Real, path: str) -> None:
    """A device that is there is no folder, and the root has no name."""
    check_refused(real, "NodePublishVolume", publish(real, path), BAD, "target_path: ")
    check_refused(real, "NodeStageVolume", stage(real, path), BAD, "staging_target_path: ")


@pytest.mark.parametrize("inside", ["", "/", "/in"])
def test_a_volume_is_not_published_within_itself(real: Real, inside: str) -> None:
    """The driver would write into it, and taking it away would unmount the staging path."""
    asked = publish(real, real.staging(USED) + inside)
    check_refused(real, "NodePublishVolume", asked, BAD, "target_path: ", "is the staging path, or within the volume")


@pytest.mark.parametrize("name", ["link", "dangling", "loop"])
def test_nothing_is_taken_away_through_a_link(real: Real, name: str) -> None:
    """Neither the link goes, nor what it points to."""
    asked = unpublish(real, real.folder / "wrong" / name)
    check_refused(real, "NodeUnpublishVolume", asked, BAD, "target_path: ", "symbolic link")


@pytest.mark.parametrize("name", ["nowhere", "nowhere/in", "file/in", "fifo", "loop/in", "dangling/in"])
def test_what_is_not_there_is_taken_away_already(real: Real, name: str) -> None:
    """OK, as for every volume that isn't at a path; what stands there is not ours, and stays."""
    answered = real.ask("NodeUnpublishVolume", unpublish(real, real.folder / "wrong" / name))

    assert answered == ("OK", "")
    assert real.state() == real.furnished


@pytest.mark.parametrize(
    ("path", "code", "words"), [("wrong/link", BAD, "symbolic link"), ("wrong/folder", USES, "shown")]
)
def test_a_published_volume_is_not_unstaged_from_elsewhere(real: Real, path: str, code: str, words: str) -> None:
    """Not through a link, and not from a path where it isn't: it is still shown at others."""
    asked = csi.NodeUnstageVolumeRequest(volume_id=real.ids[USED], staging_target_path=str(real.folder / path))
    check_refused(real, "NodeUnstageVolume", asked, code, words)


def test_a_folder_with_files_is_not_taken_away(real: Real) -> None:
    """It is not the bare folder that the driver made."""
    check_refused(real, "NodeUnpublishVolume", unpublish(real, real.folder / "wrong"), USES, "holds files")


def test_the_mount_of_another_is_not_taken_away(real: Real) -> None:
    """Also when the path is right and the volume isn't."""
    asked = csi.NodeUnpublishVolumeRequest(volume_id=real.ids[IDLE], target_path=real.target(USED))
    check_refused(real, "NodeUnpublishVolume", asked, BAD, "target_path: ", "it is left alone")


def test_a_linked_folder_on_the_way_is_followed(real: Real) -> None:
    """As where kubelet's folder lies on another disk: both paths are the same to every call."""
    (real.folder / "elsewhere").symlink_to(real.folder / "pods")
    path = real.folder / "elsewhere" / "more"
    stats = csi.NodeGetVolumeStatsRequest(volume_id=real.ids[USED], volume_path=str(path))
    grown = csi.NodeExpandVolumeRequest(volume_id=real.ids[USED], volume_path=str(path))
    again = publish(real, real.target("more"))
    answers = [
        real.ask("NodePublishVolume", publish(real, path)),
        real.ask("NodePublishVolume", again),
        real.ask("NodeGetVolumeStats", stats),
        real.ask("NodeExpandVolume", grown),
        real.ask("NodeUnpublishVolume", unpublish(real, path)),
    ]
    (real.folder / "elsewhere").unlink()

    assert answers == [("OK", "")] * 5
    assert real.state() == real.furnished


def test_slashes_at_the_start_are_one(real: Real) -> None:
    """For Python two are something else; for the kernel, and so for a repeated call, they are not."""
    again = csi.NodeStageVolumeRequest(volume_id=real.ids[USED], staging_target_path=f"/{real.staging(USED)}/")
    answered = real.ask("NodeStageVolume", fill(again, "volume_capability", MOUNT))

    assert answered == ("OK", "")
    assert real.state() == real.furnished


def test_a_volume_that_is_too_small_for_a_file_system_gets_none(real: Real) -> None:
    """A device of 64 MiB is no XFS: the caller's mistake, not a machine that may recover."""
    asked = stage(real, real.staging(IDLE))
    asked.volume_capability.mount.fs_type = "xfs"
    check_refused(real, "NodeStageVolume", asked, BAD, "fs_type: ", "too few for xfs")

"""Finding and preparing the ancestor, and the helpers' cgroup, in a folder that stands for /sys/fs/cgroup."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from qos.ancestor import Init, find_ancestor
from qos.cgroup import Cgroup, HelperCgroup
from qos.errors import DeviceGone, Unenforceable, refused
from qos.iofiles import IoStat
from qos.limits import UNLIMITED, DevNo

if TYPE_CHECKING:
    from pathlib import Path


def show(cgroup: Path) -> None:
    """Show in a cgroup what its parent enables, as the kernel does."""
    enabled = (cgroup.parent / "cgroup.subtree_control").read_text()
    (cgroup / "cgroup.controllers").write_text(enabled)
    if "io" in enabled.split():
        (cgroup / "io.max").touch()
    if not (cgroup / "cgroup.subtree_control").exists():
        (cgroup / "cgroup.subtree_control").write_text("")


def make(cgroup: Path) -> Path:
    """Make a cgroup and what is missing above it."""
    for path in (*reversed(cgroup.parents), cgroup):
        if not path.exists():
            path.mkdir()
            show(path)
    return cgroup


def enabled_in(cgroup: Path) -> set[str]:
    """Return the controllers that a cgroup's children have."""
    return set((cgroup / "cgroup.subtree_control").read_text().split())


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a root cgroup with nothing enabled, and let subtree_control do what the kernel does."""

    def kernel(self: Cgroup, name: str, text: str) -> None:
        assert name == "cgroup.subtree_control"
        if text[1:] not in (self.path / "cgroup.controllers").read_text().split():
            raise Unenforceable(f"write {text} to {self.path}: not available")
        file = self.path / name
        file.write_text(f"{file.read_text().strip()} {text[1:]}".strip() + "\n")
        for child in self.path.iterdir():
            if child.is_dir():
                show(child)

    monkeypatch.setattr(Cgroup, "_write", kernel)
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpu io memory pids\n")
    (root / "cgroup.subtree_control").write_text("")
    return root


@pytest.fixture
def init(tmp_path: Path) -> Init:
    """Name places of an init system that isn't there."""
    return Init(own=tmp_path / "own", systemd=tmp_path / "systemd")


def test_without_kubernetes_and_systemd_the_ancestor_is_made(mount: Path, init: Init) -> None:
    """It has io.max, and its children have io and memory, so that buffered writes are charged to them."""
    ancestor = find_ancestor("auto", mount, init)

    assert ancestor.path == mount / "sluice"
    assert ancestor.has_io()
    assert enabled_in(ancestor.path) == {"io", "memory"}


def test_an_ancestor_of_ours_that_was_removed_is_made_again(mount: Path, init: Init) -> None:
    """A repair does all that the first start did."""
    ancestor = find_ancestor("auto", mount, init)
    for file in ancestor.path.iterdir():
        file.unlink()
    ancestor.path.rmdir()
    (mount / "cgroup.subtree_control").write_text("")

    ancestor.repair()

    assert ancestor.has_io()


@pytest.mark.parametrize("name", ["kubepods.slice", "kubepods"])
def test_pods_come_before_everything_of_ours(mount: Path, init: Init, name: str) -> None:
    """Both of the kubelet's cgroup drivers are known; their cgroup gets io from the root."""
    make(mount / name)
    init.systemd.mkdir()

    ancestor = find_ancestor("auto", mount, init)

    assert ancestor.path == mount / name
    assert ancestor.has_io()
    assert enabled_in(ancestor.path) == set()  # the kubelet's to decide


def test_the_pods_that_we_are_among_come_first(mount: Path, init: Init) -> None:
    """A kubelet in a container has its pods elsewhere in the tree, beside those of the host's."""
    make(mount / "kubepods.slice")
    pods = make(mount / "kubelet.slice" / "kubelet-kubepods.slice")
    init.own.write_text("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podx.slice/cri-x.scope\n")

    ancestor = find_ancestor("auto", mount, init)

    assert ancestor.path == pods
    assert ancestor.has_io()


def test_a_cgroup_namespace_that_hides_our_pod_is_no_trouble(mount: Path, init: Init) -> None:
    """We see ourselves at the root then, but the pods where they are."""
    make(mount / "kubepods.slice")
    init.own.write_text("0::/\n")

    assert find_ancestor("auto", mount, init).path == mount / "kubepods.slice"


def test_systemd_is_asked_for_a_slice_with_accounting(mount: Path, tmp_path: Path) -> None:
    """A cgroup made behind its back would lose its controllers; a reload comes before the start."""
    called = tmp_path / "called"
    systemctl = ("sh", "-c", f'echo "$@" >> {called}; mkdir -p {mount}/sluice.slice', "systemctl")
    init = Init(own=tmp_path / "own", systemd=tmp_path / "systemd", systemctl=systemctl)
    init.systemd.mkdir()

    ancestor = find_ancestor("auto", mount, init)

    assert ancestor.path == mount / "sluice.slice"
    assert enabled_in(ancestor.path) == {"io", "memory"}
    assert "IOAccounting=yes\nMemoryAccounting=yes\n" in (init.systemd / "sluice.slice").read_text()
    assert called.read_text() == "--no-ask-password daemon-reload\n--no-ask-password start sluice.slice\n"


@pytest.mark.parametrize("systemctl", ["echo no bus >&2; exit 1", None])
def test_systemd_that_refuses_is_unenforceable(mount: Path, tmp_path: Path, systemctl: str | None) -> None:
    """The message has systemd's own words, or that the program is missing."""
    argv = ("sh", "-c", systemctl) if systemctl else ("/nonexistent/systemctl",)
    init = Init(own=tmp_path / "own", systemd=tmp_path / "systemd", systemctl=argv)
    init.systemd.mkdir()

    with pytest.raises(Unenforceable, match=r"sluice\.slice.*(no bus|No such file).*--qos off"):
        find_ancestor("auto", mount, init)


def test_a_path_may_be_absolute_or_from_the_mount_point(mount: Path, init: Init) -> None:
    """Both name the same cgroup."""
    jobs = make(mount / "batch" / "jobs")

    assert find_ancestor("batch/jobs", mount, init).path == jobs
    assert find_ancestor(str(jobs), mount, init).path == jobs
    assert Cgroup(jobs).has_io()


@pytest.mark.parametrize("choice", ["", ".", "/", "/etc", "../cgroup", "a/../..", "none"])
def test_what_is_no_cgroup_below_the_root_is_refused_by_name(mount: Path, init: Init, choice: str) -> None:
    """The root has no io.max, and a folder elsewhere is no cgroup."""
    with pytest.raises(Unenforceable, match=f"take {choice!r}".replace(".", r"\.")):
        find_ancestor(choice, mount, init)


@pytest.mark.parametrize("missing", ["io", "memory"])
def test_a_kernel_without_a_controller_is_unenforceable(mount: Path, init: Init, missing: str) -> None:
    """The message names the controller, the likely reasons and the way out."""
    (mount / "cgroup.controllers").write_text(" ".join({"io", "memory", "cpu"} - {missing}))

    with pytest.raises(Unenforceable, match=rf"no {missing} controller.*CONFIG_BLK_DEV_THROTTLING.*v1.*--qos off"):
        find_ancestor("auto", mount, init)


def test_cgroup_v1_is_unenforceable(tmp_path: Path, init: Init) -> None:
    """There is no cgroup.controllers then."""
    with pytest.raises(Unenforceable, match=r"v1.*--qos off"):
        find_ancestor("auto", tmp_path, init)


def test_a_kernel_that_gives_no_io_max_is_unenforceable(mount: Path, init: Init) -> None:
    """There may be io without blk-throttle."""
    jobs = make(mount / "jobs")
    (mount / "cgroup.subtree_control").write_text("io memory")

    with pytest.raises(Unenforceable, match="CONFIG_BLK_DEV_THROTTLING"):
        find_ancestor(str(jobs), mount, init)


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (errno.ENODEV, DeviceGone, "whole disk"),
        (errno.ENXIO, DeviceGone, "whole disk"),
        (errno.EACCES, Unenforceable, "run as root.* --qos off"),
        (errno.EROFS, Unenforceable, "run as root.* --qos off"),
        (errno.ENOENT, Unenforceable, "cgroup is gone.* --qos off"),
        (errno.EBUSY, Unenforceable, "processes sit in this cgroup.* --qos off"),
        (errno.EIO, Unenforceable, "kernel's log.* --qos off"),
    ],
)
def test_what_the_kernel_refuses_comes_with_advice(code: int, kind: type[Unenforceable], advice: str) -> None:
    """A device that is gone is told from limits that can't be written: the one is forgotten, the other retried."""
    error = refused("write x to y", OSError(code, os.strerror(code)))

    assert type(error) is kind
    assert re.match(rf"write x to y: {os.strerror(code)}: .*{advice}", str(error))


def test_a_file_that_can_not_be_written_is_unenforceable(tmp_path: Path) -> None:
    """The message says which file and what to do. A missing file is not made."""
    with pytest.raises(Unenforceable, match=r"io\.max.*--qos off"):
        Cgroup(tmp_path).write_limits(DevNo(8, 0), UNLIMITED)

    assert list(tmp_path.iterdir()) == []


def test_counters_are_read_and_garbage_is_unenforceable(tmp_path: Path) -> None:
    """One read gives every device's."""
    stat = tmp_path / "io.stat"
    stat.write_text("253:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n")

    assert Cgroup(tmp_path).io_stat() == {DevNo(253, 0): IoStat(1, 2, 3, 4, 5, 6)}

    stat.write_text("253:0 rbytes=few\n")
    with pytest.raises(Unenforceable, match=r"io\.stat.*'few'"):
        Cgroup(tmp_path).io_stat()


def test_a_helper_runs_after_it_entered_its_cgroup(mount: Path) -> None:
    """The program sees its own arguments, whatever they contain, and its status comes back."""
    helper = HelperCgroup(Cgroup(mount / "helpers"))
    helper.ensure([], UNLIMITED)

    done = subprocess.run(
        [*helper.prefix(), "sh", "-c", 'echo "$1"; exit 3', "x", "a b;$c"], capture_output=True, check=False
    )

    assert (done.stdout, done.returncode) == (b"a b;$c\n", 3)
    assert (mount / "helpers" / "cgroup.procs").read_text() == "0\n"


def test_a_helper_that_can_not_enter_its_cgroup_does_not_run(tmp_path: Path) -> None:
    """Unlimited I/O in silence is worse than a failure."""
    helper = HelperCgroup(Cgroup(tmp_path / "none"))

    done = subprocess.run([*helper.prefix(), "touch", str(tmp_path / "ran")], capture_output=True, check=False)

    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []

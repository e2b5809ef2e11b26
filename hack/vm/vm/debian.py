"""Trees of Debian packages, made by mmdebstrap from the mirror that this machine's apt uses."""

from __future__ import annotations

import lzma
import shutil
from typing import TYPE_CHECKING

from .host import VmError, apt_transport_options, debian_mirror, need_programs, run, step

if TYPE_CHECKING:
    from pathlib import Path

    from .cache import Cache
    from .recipe import Recipe

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# No initial RAM disk is made here (ours is smaller), and nobody reads manuals in the machine.
LEFT_OUT = (
    "/etc/kernel/postinst.d/initramfs-tools",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)


def make_tree(target: Path, suite: str, packages: tuple[str, ...], *, configure: bool) -> None:
    """Fill target with Debian packages: installed, or (configure false) merely unpacked."""
    need_programs({"mmdebstrap": "mmdebstrap"})
    source = f"deb [signed-by={KEYRING}] {debian_mirror()} {suite} main"
    options = [f"--aptopt={option}" for option in (*apt_transport_options(), 'Acquire::Languages "none"')]
    if configure:
        options += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT] + ["--dpkgopt=force-unsafe-io"]
    variant = "minbase" if configure else "extract"
    include = "--include=" + ",".join(packages)
    command = ["mmdebstrap", f"--variant={variant}", "--format=directory", include, *options, suite, target, source]
    run(command, env={"TMPDIR": str(target.parent)})
    # They name this machine's proxies, and the guest has no network.
    (target / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)


def debian_tree(cache: Cache, recipe: Recipe) -> Path:
    """Return the guest's Debian tree, made if the cache has none. Hold the cache's lock."""
    key = recipe.debian_key()
    if (found := cache.find("debian", key)) is not None:
        return found
    with step(f"making a Debian {recipe.suite} tree", 40), cache.create("debian", key) as scratch:
        tree = scratch / "tree"
        make_tree(tree, recipe.suite, recipe.debian, configure=True)
        release = kernel_release(tree)
        _unpack_modules(tree, release)
        _check_modules(tree, release, recipe.modules)
    return cache.root / f"debian-{key}"


def kernel_release(tree: Path) -> str:
    """Return the release of the one kernel in the tree."""
    releases = [path.name for path in (tree / "usr/lib/modules").iterdir()]
    if len(releases) != 1:
        raise VmError(f"expected one kernel in the Debian tree, found {len(releases)}")
    return releases[0]


def _unpack_modules(tree: Path, release: str) -> None:
    """Decompress the modules once here instead of at every load on a slow emulated processor."""
    for packed in (tree / "usr/lib/modules" / release).rglob("*.ko.xz"):
        with lzma.open(packed) as source, packed.with_suffix("").open("wb") as target:
            shutil.copyfileobj(source, target)
        packed.unlink()
    run(["chroot", tree, "depmod", release])


def _check_modules(tree: Path, release: str, wanted: tuple[str, ...]) -> None:
    folder = tree / "usr/lib/modules" / release
    listed = (folder / "modules.dep").read_text().splitlines() + (folder / "modules.builtin").read_text().splitlines()
    present = {line.split(":")[0].rsplit("/", 1)[-1].removesuffix(".ko").replace("-", "_") for line in listed}
    if missing := [name for name in wanted if name not in present]:
        raise VmError(f"the kernel package {release} has no module {', '.join(missing)}")

"""The machine's image: a root disk, a kernel and an initial RAM disk, named by what they were made from."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .debian import debian_tree, kernel_release
from .host import VmError, note, run, step
from .initrd import make_initrd
from .pythonenv import make_environment
from .recipe import GUEST_FILES, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from .cache import Cache

DISK_SIZE = "12G"
# The disk is thrown away after every run, so a journal only costs time.
ROOT_DISK_OPTIONS = ("-q", "-F", "-L", "sluice-root", "-O", "^has_journal", "-m", "0", "-E", "nodiscard,root_owner=0:0")
HOSTS = "127.0.0.1 localhost sluice-vm\n::1 localhost\n"


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image; nothing writes to its files."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Return the root disk, raw."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """Return the kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Return the initial RAM disk."""
        return self.folder / "initrd"


def find_image(cache: Cache) -> Image | None:
    """Return the image of the recipe as it is now, if it was built."""
    entry = cache.find("image", Recipe.read().image_key())
    return Image(entry) if entry else None


def build_image(cache: Cache) -> Image:
    """Return the image of the recipe as it is now, built if need be."""
    if (found := find_image(cache)) is not None:
        return found
    with cache.lock():
        # Another builder may have made it while this one waited.
        if (found := find_image(cache)) is not None:
            return found
        if os.geteuid() != 0:
            raise VmError("making the test machine needs root: run hack/vm/build as root once")
        recipe = Recipe.read()
        key = recipe.image_key()
        debian = debian_tree(cache, recipe)
        with cache.create("image", key) as scratch:
            _fill(scratch, debian / "tree", recipe, cache.root / "pip")
    note(f"the image is {cache.root / f'image-{key}'}")
    return Image(cache.root / f"image-{key}")


def _fill(scratch: Path, debian: Path, recipe: Recipe, pip_cache: Path) -> None:
    tree = scratch / "tree"
    run(["cp", "-a", "--reflink=auto", debian, tree])
    make_environment(tree, recipe, pip_cache)
    with step("making the disk image", 3):
        _add_guest_files(tree, recipe)
        release = kernel_release(tree)
        image = Image(scratch)
        image.initrd.write_bytes(make_initrd(tree, release))
        shutil.move(tree / "boot" / f"vmlinuz-{release}", image.kernel)
        make_ext4(image.disk, tree, DISK_SIZE, ROOT_DISK_OPTIONS)
        shutil.rmtree(tree)


def _add_guest_files(tree: Path, recipe: Recipe) -> None:
    for source in (path for path in GUEST_FILES.rglob("*") if path.is_file()):
        target = tree / source.relative_to(GUEST_FILES)
        target.parent.mkdir(parents=True, exist_ok=True)
        # git keeps no more of a mode than this, and the umask here must not matter there.
        shutil.copyfile(source, target)
        target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
    masked = {"system": recipe.masked, "system-generators": recipe.masked_generators}
    for link in (tree / "etc/systemd" / kind / name for kind, names in masked.items() for name in names):
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    # mmdebstrap copies this machine's name and name servers.
    (tree / "etc/hostname").write_text("sluice-vm\n")
    (tree / "etc/hosts").write_text(HOSTS)
    (tree / "etc/resolv.conf").write_text("")
    # An empty one would make every boot a "first boot".
    (tree / "etc/machine-id").write_text("5d1c0e0000000000000000000000005d\n")


def make_ext4(disk: Path, content: Path, size: str, options: tuple[str, ...]) -> None:
    """Make a sparse ext4 image with the content of a folder, without mounting anything."""
    run([*("mkfs.ext4", *options, "-d"), content, disk, size])

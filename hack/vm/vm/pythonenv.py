"""The guest's Python environment: /opt/sluice, complete without a network, running the code at /src."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from .host import SYSTEM_PATH, run, step

if TYPE_CHECKING:
    from .recipe import Recipe

ENVIRONMENT = "opt/sluice"
SLUICE = """#!/bin/sh
exec /opt/sluice/bin/python -m csi_driver "$@"
"""
# What tells pip, and the TLS library below it, how to reach its index from this machine.
SETTINGS_PREFIXES = ("PIP_", "SSL_CERT_", "REQUESTS_CA", "CURL_CA")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
SETTINGS_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl", "/etc/pip.conf", "/etc/xdg/pip")
SETTINGS_FILES_AT_HOME = (".config/pip", ".pip", ".netrc")


def make_environment(tree: Path, recipe: Recipe, pip_cache: Path) -> None:
    """Create the environment in a Debian tree with the tree's own Python and the host's pip settings."""
    constraints = tree / "constraints.txt"
    constraints.write_bytes(recipe.constraints)
    pip_cache.mkdir(parents=True, exist_ok=True)
    python = f"/{ENVIRONMENT}/bin/python"
    install = [python, "-m", "pip", "install", "-q", "--only-binary=:all:", "-c", "/constraints.txt"]
    with step("installing the Python packages", 10):
        _run_inside(tree, ["/usr/bin/python3", "-m", "venv", f"/{ENVIRONMENT}"], pip_cache)
        _run_inside(tree, [*install, *recipe.python], pip_cache)
        site = next((tree / ENVIRONMENT / "lib").glob("python3.*/site-packages"))
        (site / "sluice.pth").write_text("/src\n")
        command = tree / ENVIRONMENT / "bin/sluice"
        command.write_text(SLUICE)
        command.chmod(0o755)
        _run_inside(tree, [python, "-m", "compileall", "-q", f"/{ENVIRONMENT}/lib"], pip_cache)
    constraints.unlink()


def _pip_settings() -> dict[str, str]:
    kept = (name for name in os.environ if name.startswith(SETTINGS_PREFIXES) or name.lower() in PROXIES)
    return {name: os.environ[name] for name in kept}


def _shared_paths(settings: dict[str, str]) -> list[Path]:
    """Return the host's files that its pip settings are or name."""
    named = [word for value in settings.values() for word in value.split() if word.startswith("/")]
    paths = [Path(name) for name in (*SETTINGS_FILES, *named)]
    paths += [Path.home() / name for name in SETTINGS_FILES_AT_HOME]
    existing = [path for path in dict.fromkeys(paths) if path.exists()]
    # A file inside a folder that is shared as a whole is there already.
    return [path for path in existing if not any(parent in existing for parent in path.parents)]


def _run_inside(tree: Path, argv: list[str], pip_cache: Path) -> None:
    """Run a program in the tree with the host's pip settings, in mounts that end with it."""
    settings = _pip_settings()
    inside_cache = Path("/var/cache/pip")
    mounts = {inside_cache: pip_cache, Path("/proc"): Path("/proc"), Path("/dev"): Path("/dev")}
    mounts |= {path: path for path in _shared_paths(settings)}
    made: list[Path] = []
    script = ["set -e"]
    for inside, outside in mounts.items():
        target = tree / inside.relative_to("/")
        made += _make_mount_point(target, is_folder=outside.is_dir())
        script.append(shlex.join(["mount", "--rbind", str(outside.resolve()), str(target)]))
    variables = {**settings, "PATH": SYSTEM_PATH, "HOME": str(Path.home()), "LC_ALL": "C.UTF-8"}
    variables["PIP_CACHE_DIR"] = str(inside_cache)
    assignments = [f"{name}={value}" for name, value in variables.items()]
    script.append("exec " + shlex.join(["chroot", str(tree), "/usr/bin/env", "-i", *assignments, *argv]))
    try:
        run(["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)])
    finally:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()


def _make_mount_point(target: Path, *, is_folder: bool) -> list[Path]:
    """Create what is missing of a mount point and return it, outermost first."""
    missing = [path for path in (*reversed(target.parents), target) if not path.exists()]
    for path in missing:
        if path == target and not is_folder:
            path.touch()
        else:
            path.mkdir()
    return missing

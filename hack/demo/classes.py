"""Parameters of StorageClasses, from the files in deploy/classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from csi_driver.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path


SIDECARS = "csi.storage.k8s.io/"
"""What the provisioner reads itself, and doesn't hand to the driver."""


def parameters(folder: Path, name: str) -> dict[str, str]:
    """Return the parameters of a StorageClass. Raises NotFound when no file of the folder has it."""
    for file in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if not document or document.get("kind") != "StorageClass":
                continue
            if document["metadata"]["name"] == name:
                given = document.get("parameters") or {}
                return {key: str(value) for key, value in given.items() if not key.startswith(SIDECARS)}
    raise NotFound(f"there is no StorageClass {name} in {folder}: is the checkout whole? see `git status`")

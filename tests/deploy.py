"""The files in deploy/, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CLASSES = Path(__file__).resolve().parent.parent / "deploy/classes"


@dataclass(frozen=True)
class Manifest:
    """One document of a file."""

    file: str
    kind: str
    name: str
    body: dict[str, Any] = field(repr=False)

    @property
    def parameters(self) -> dict[str, str]:
        """Return a class's parameters, without those that a sidecar keeps to itself."""
        given = self.body.get("parameters", {})
        return {key: value for key, value in given.items() if not key.startswith("csi.storage.k8s.io/")}

    @property
    def fs_type(self) -> str:
        """Return what the provisioner puts into the volume's capability."""
        return str(self.body.get("parameters", {}).get("csi.storage.k8s.io/fstype", ""))


def manifests(kind: str = "") -> list[Manifest]:
    """Return all documents, or those of a kind."""
    files = sorted(CLASSES.rglob("*.yaml"))
    documents = [(file, body) for file in files for body in yaml.safe_load_all(file.read_text())]
    found = [Manifest(file.name, body["kind"], body["metadata"]["name"], body) for file, body in documents]
    return [manifest for manifest in found if kind in ("", manifest.kind)]


def manifest(kind: str, name: str) -> Manifest:
    """Return one document."""
    return next(found for found in manifests(kind) if found.name == name)

"""What the machine is made of, read from packages.toml, and the hashes that name each stage."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cache import digest

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent.parent
GUEST_FILES = HERE / "guest"
CONSTRAINTS = CHECKOUT / "constraints.txt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The test machine's parts: names only, in the order of the file."""

    suite: str
    debian: tuple[str, ...]
    python: tuple[str, ...]
    modules: tuple[str, ...]
    masked: tuple[str, ...]
    masked_generators: tuple[str, ...]
    constraints: bytes

    @classmethod
    def read(cls) -> Recipe:
        """Read packages.toml and the checkout's constraints (none while that file is missing)."""
        data: dict[str, Any] = tomllib.loads((HERE.parent / "packages.toml").read_text(encoding="utf-8"))
        names = {key: tuple(data[key]) for key in ("debian", "python", "modules", "masked", "masked_generators")}
        constraints = CONSTRAINTS.read_bytes() if CONSTRAINTS.exists() else b""
        return cls(suite=data["suite"], constraints=constraints, **names)

    def debian_key(self) -> str:
        """Hash what decides the Debian tree."""
        names = repr((self.suite, self.debian, self.modules))
        return digest([names.encode(), (HERE / "debian.py").read_bytes()])

    def image_key(self) -> str:
        """Hash what decides the image: the Debian tree, Python's packages, our files in the guest."""
        parts = [
            self.debian_key().encode(),
            repr((self.python, self.masked, self.masked_generators)).encode(),
            self.constraints,
        ]
        parts += [(HERE / name).read_bytes() for name in ("image.py", "initrd.py", "pythonenv.py")]
        for path in sorted(GUEST_FILES.rglob("*")):
            if path.is_file():
                parts += [str(path.relative_to(GUEST_FILES)).encode(), path.read_bytes()]
        return digest(parts)

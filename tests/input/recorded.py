"""The command line, with every program that it starts written down: `python -m tests.input.recorded FILE serve ...`."""

from __future__ import annotations

import sys
from pathlib import Path

from csi_driver.cli.app import main

STARTS = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"})
"""Python's own audit events: no way to start a program passes them by."""


def record(file: Path) -> None:
    """Write a line for each program that this process starts from here on."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in STARTS:
            with file.open("a") as record:
                record.write(f"{event} {arguments!r}\n")

    sys.addaudithook(hook)


if __name__ == "__main__":
    record(Path(sys.argv.pop(1)))
    main()

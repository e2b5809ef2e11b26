"""The end of a forked process that stands for a command: as the command's own, but that Python takes nothing down."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def run_to_the_end(body: Callable[[], object]) -> NoReturn:
    """Run a body, and end with its status, or with what Python says of an error."""
    status = 1
    try:
        body()
        status = 0
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the end of a process
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)

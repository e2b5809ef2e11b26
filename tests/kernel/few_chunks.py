"""`sluice` that leaves few chunks of a thin volume to its removal, so that small volumes are emptied first.

python -m tests.kernel.few_chunks serve ...
"""

from __future__ import annotations

from csi_driver.backends import lvmemptying
from csi_driver.cli import main

FEW, STEP = 512, 256
"""Chunks, so that a try makes one step of a few MiB."""

if __name__ == "__main__":
    lvmemptying.AT_ONCE, lvmemptying.LARGEST_STEP, lvmemptying.SLICE_SECONDS = FEW, STEP, 0.0
    main()

"""`sluice` with one more folder that programs are looked for in, before all others.

python -m tests.faults.launcher FOLDER serve ...
"""

from __future__ import annotations

import sys

from csi_driver.cli import main
from csi_driver.host import run

if __name__ == "__main__":
    run.SEARCH_PATH = f"{sys.argv.pop(1)}:{run.SEARCH_PATH}"
    main()

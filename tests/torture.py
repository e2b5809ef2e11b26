"""The two scales of the suites that attack the driver: a seeded sample in `make test`, all of it in `make torture`.

What a seed found is found again by the same seed in the environment, as far as threads run alike.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "SLUICE_TORTURE"
TORTURE = os.environ.get(VARIABLE) == "1"
SEED_VARIABLE = "SLUICE_SEED"
SEED = os.environ.get(SEED_VARIABLE, "")


def pick(small: T, large: T) -> T:
    """Return the small figure in `make test`, the large one in `make torture`."""
    return large if TORTURE else small

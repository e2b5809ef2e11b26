"""Run a state machine: derandomized in `make test`, with a seed that is told in torture."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture import TORTURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.states.frame import Frame

PHASES = (Phase.generate,)
"""No shrinking: threads run otherwise each time, and an example that fails is read from its checks."""


def run_machine(
    kind: type[Frame], examples: int, steps: int, record_property: Callable[[str, object], None]
) -> dict[str, int]:
    """Run so many worlds of so many steps, note what was done, and return it."""
    kind.figures = {}
    if TORTURE:
        chosen = random.SystemRandom().randrange(1 << 32)
        record_property("seed", chosen)
        kind = seed(chosen)(kind)
    run = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not TORTURE,
        database=None,
        deadline=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        run_state_machine_as_test(kind, settings=run)
    finally:
        structlog.reset_defaults()
    for name, value in sorted(kind.figures.items()):
        record_property(name, value)
    return kind.figures

"""Run a state machine: derandomized in `make test`; in torture with a seed that is told, and can be given."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture import SEED, SEED_VARIABLE, TORTURE, VARIABLE

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
    chosen = int(SEED) if SEED else random.SystemRandom().randrange(1 << 32) if TORTURE else None
    if chosen is not None:
        record_property("seed", chosen)
        kind = seed(chosen)(kind)
    run = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=chosen is None,
        database=None,
        deadline=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        run_state_machine_as_test(kind, settings=run)
    except BaseException as error:
        if chosen is not None:
            error.add_note(f"to see it again: {SEED_VARIABLE}={chosen}, and {VARIABLE}=1 if that was set")
        raise
    finally:
        structlog.reset_defaults()
    for name, value in sorted(kind.figures.items()):
        record_property(name, value)
    return kind.figures

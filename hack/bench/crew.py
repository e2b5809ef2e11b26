"""Processes that work on demand: callers of a socket, or the bare kernel calls."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hack.bench.figures import added, counted

if TYPE_CHECKING:
    from types import TracebackType

CHECKOUT = Path(__file__).resolve().parents[2]
PROCESSES = 2
END_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold one round: milliseconds by name, failures by what they said, ids made, seconds from first to last."""

    samples: dict[str, list[float]]
    failures: dict[str, int] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def rate(self, name: str) -> float:
        """Return how many of these there were a second."""
        return len(self.samples.get(name, [])) / self.seconds if self.seconds else 0.0


class Crew:
    """Hold processes that each do a share of a job at the same time."""

    def __init__(self, module: str, *arguments: object, processes: int = PROCESSES, named: bool = True) -> None:
        """Take what to run, `python -m MODULE ARGUMENTS`; `named` adds a name that differs for each process."""
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for number in range(processes):
                words = [str(argument) for argument in arguments] + ([f"{os.getpid()}-{number}"] if named else [])
                self._processes.append(_start(module, words))
        except BaseException:
            self.close()
            raise

    def do(self, what: str, *, callers: int = 1, **job: Any) -> Measured:  # noqa: ANN401 - JSON
        """Let that many callers do a job. `ids` are divided among the processes. Raises RuntimeError when one ends."""
        chosen = self._processes[: min(callers, len(self._processes))]
        ids = job.pop("ids", [])
        for number, process in enumerate(chosen):
            share = callers // len(chosen) + (number < callers % len(chosen))
            words = {**job, "do": what, "callers": share, "ids": ids[number :: len(chosen)]}
            if process.stdin is None:
                raise RuntimeError("a worker was started without pipes")
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()
        answers = [_answer(process) for process in chosen]
        return Measured(
            added([answer["samples"] for answer in answers]),
            counted([answer["failures"] for answer in answers]),
            [made for answer in answers for made in answer["made"]],
            max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers),
        )

    def close(self) -> None:
        """End the processes: their work is over when their stdin is."""
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        for process in self._processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """End the processes in the middle of what they do."""
        for process in self._processes:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.close()


def _start(module: str, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError(f"a worker ended with status {process.wait()}: {process.args!r}; see above")
    answer: dict[str, Any] = json.loads(line)
    return answer

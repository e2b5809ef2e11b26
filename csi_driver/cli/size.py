"""`sluice size`: how large a checkpoint volume must be."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import typer

from csi_driver.cli import options, show
from csi_driver.errors import Invalid

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

BYTES_PER_PARAMETER: dict[str, int | Fraction] = {
    "fp64": 8,
    "fp32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
    "int8": 1,
    "int4": Fraction(1, 2),
}
HEADROOM = Fraction(3, 2)
"""The half on top: a checkpoint is whole before the oldest is removed, and it holds more than weights."""

SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
GB, GIB = 10**9, 1 << 30


@dataclass(frozen=True, slots=True)
class Sized:
    """Hold what a model's checkpoints need; all in bytes but `keep`."""

    model: int
    keep: int
    volume: int

    @property
    def storage(self) -> str:
        """Return the size as a claim writes it: whole GiB, rounded up."""
        return f"{-(-self.volume // GIB)}Gi"


def sized(model: int, keep: int) -> Sized:
    """Return the size of a volume for `keep` checkpoints of a model of so many bytes: model x keep x 1.5."""
    return Sized(model, keep, math.ceil(model * keep * HEADROOM))


def parameters_of(text: str) -> int:
    """Return the number that "70B" or "1.5T" says. Raises Invalid."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMBGT]?)", text.strip(), re.IGNORECASE)
    count = Fraction(match[1]) * SUFFIXES[match[2].upper()] if match else 0
    if count < 1:
        raise Invalid(f"--parameters: {text!r} is no number of parameters: write 70B, 7.5B or 700M")
    return int(count)


def model_bytes(parameters: str | None, precision: str, gb: float | None) -> int:
    """Return a model's size from its parameters and precision, or from its GB. Raises Invalid."""
    if (parameters is None) == (gb is None):
        raise Invalid("size: give the model as --parameters 70B (with --precision), or as --gb 140")
    if gb is not None:
        if not 0 < gb < 10**9:  # also refuses "nan"
            raise Invalid(f"--gb: {gb:g} is no size of a model: write its GB, such as 140")
        return int(Fraction(str(gb)) * GB)
    if precision not in BYTES_PER_PARAMETER:
        raise Invalid(f"--precision: {precision!r} is none of {', '.join(BYTES_PER_PARAMETER)}")
    return math.ceil(parameters_of(parameters or "") * BYTES_PER_PARAMETER[precision])


def claim(storage: str) -> str:
    """Return an example claim."""
    return (
        "apiVersion: v1\n"
        "kind: PersistentVolumeClaim\n"
        "metadata:\n"
        "  name: checkpoints\n"
        "spec:\n"
        "  accessModes: [ReadWriteOnce]\n"
        "  storageClassName: sluice-training\n"
        "  resources:\n"
        "    requests:\n"
        f"      storage: {storage}\n"
    )


@app.command(epilog="Example: sluice size --parameters 70B --precision bf16 --keep 3")
def size(
    parameters: Annotated[
        str | None, typer.Option(help="Parameters of the model, such as 70B or 700M.", metavar="N")
    ] = None,
    precision: Annotated[
        str, typer.Option(help=f"Of a parameter in the checkpoint: {', '.join(BYTES_PER_PARAMETER)}.", metavar="TYPE")
    ] = "bf16",
    gb: Annotated[float | None, typer.Option(help="Instead of parameters: GB of one checkpoint.", metavar="GB")] = None,
    keep: Annotated[int, typer.Option(help="Checkpoints kept at a time.", metavar="N")] = 3,
    as_json: options.Json = False,
) -> None:
    """Say how large a checkpoint volume must be: model x checkpoints kept x 1.5.

    If checkpoints hold optimizer states too, give their whole size by --gb.
    """
    if keep < 1:
        raise Invalid(f"--keep: {keep} checkpoints are no checkpoints: write 1 or more")
    found = sized(model_bytes(parameters, precision, gb), keep)
    if as_json:
        show.as_json({"model_bytes": found.model, "keep": keep, "volume_bytes": found.volume, "storage": found.storage})
        return
    out = show.console()
    out.print(
        f"{found.model / GB:,.10g} GB a checkpoint x {keep} kept x 1.5 = [bold]{found.volume / GB:,.10g} GB[/bold]"
        f" = {found.volume / GIB:,.1f} GiB"
    )
    out.print(f"\nIn a claim, [bold]storage: {found.storage}[/bold]:\n")
    out.print(claim(found.storage), markup=False, end="")

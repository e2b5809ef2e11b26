"""`sluice tiers`: which tiers there are, and what a volume would get."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csi_driver.cli import options, show
from csi_driver.errors import Invalid
from qos.policy import floor, limits
from qos.quantity import BadQuantity, parse_bytes
from qos.tiers import DEFAULT, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qos.tiers import Tier

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def tiers_of(file: Path | None) -> Mapping[str, Tier]:
    """Return the built-in tiers and those of a file. Raises Invalid."""
    try:
        return load(file)
    except OSError as error:
        raise Invalid(f"--tiers: {file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise Invalid(f"--tiers: {error}") from error


def size_of(text: str) -> int:
    """Return a volume's size in bytes. Raises Invalid."""
    try:
        size = parse_bytes(text)
    except BadQuantity as error:
        raise Invalid(f"--size: {error}") from error
    if size <= 0:
        raise Invalid(f"--size: {text!r} is no volume: write a size such as 100Gi")
    return size


def as_dict(tier: Tier, size: int) -> dict[str, object]:
    """Return a tier for programs, and what a volume of so many bytes gets from it."""
    return {
        "name": tier.name,
        "description": tier.description,
        "limits": dataclasses.asdict(limits(tier, size, {})),
        "floor": dataclasses.asdict(floor(tier, size, {})),
        "enforce": str(tier.enforce),
        "yields": tier.yields,
        "provision": str(tier.provision),
        "fsType": tier.fs_type,
        "mountOptions": list(tier.mount_options),
        "mkfsOptions": list(tier.mkfs_options),
        "readAheadKiB": tier.read_ahead_kib,
    }


def print_table(tiers: Mapping[str, Tier], text: str, size: int) -> None:
    """Print one row a tier."""
    columns = ("TIER", "READ /s", "WRITE /s", "READ IOPS", "WRITE IOPS", "ENFORCE", "FILE SYSTEM", "FOR")
    table = show.table(f"What a volume of {text} gets", *columns, right=columns[1:5])
    for name, tier in sorted(tiers.items()):
        got = limits(tier, size, {})
        nothing = all(value is None for _, value in got.items())
        show.row(
            table,
            (
                name + (" (default)" if name == DEFAULT else ""),
                *(show.human(value) if value is not None else "-" for value in (got.rbps, got.wbps)),
                *(f"{value:,}" if value is not None else "-" for value in (got.riops, got.wiops)),
                "-" if nothing else str(tier.enforce),
                " ".join((tier.fs_type, *tier.mount_options)),
                tier.description,
            ),
        )
    out = show.console()
    out.print(table)
    out.print("\n`-` is no limit. A class names a tier by the parameter [bold]tier[/bold]. More: sluice tiers --help")


@app.command(epilog="Example: sluice tiers --size 500Gi --tiers /etc/sluice/tiers.toml")
def tiers(
    size: Annotated[str, typer.Option(help="The size of the volume.", metavar="SIZE")] = "100Gi",
    file: Annotated[Path | None, typer.Option("--tiers", help="A TOML file with tiers of your own.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show the tiers, and the limits that a volume of a given size gets from each.

    A tier is a table in TOML, `[NAME]`, with readIOPS, writeIOPS, readBPS, writeBPS (a key left out is no limit),
    minIOPS, minBPS (the least that a volume gets, promised of its pool's disks; none if left out),
    enforce ("required": a volume whose limit can't be applied is not staged; or "best-effort"), yields (true: it is
    written at its least rate while its pool is nearly full), provision ("thin", or "thick": it has all its bytes from
    the start, and no snapshots), fsType, mountOptions, mkfsOptions, readAheadKiB, description. A tier of your own with
    a built-in name replaces it as a whole.

    Limits, here and in the parameters of a StorageClass or VolumeAttributesClass:

    - `5k` - 5,000 a second, whatever the volume's size

    - `500Mi` - 500 MiB/s (readBPS, writeBPS)

    - `3/Gi,100..16k` - 3 for each GiB of the volume, at least 100, at most 16,000

    - `0.5Mi/Gi,64Mi..` - 512 KiB/s for each GiB, at least 64 MiB/s

    - `max` - no limit
    """
    found, wanted = tiers_of(file), size_of(size)
    if as_json:
        show.as_json([as_dict(tier, wanted) for _, tier in sorted(found.items())])
    else:
        print_table(found, size, wanted)

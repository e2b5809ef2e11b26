"""The flags of `sluice pool`, each with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from csi_driver.host.thinsize import AREA, CHUNK, RESERVE, most_volumes
from qos.quantity import format_bytes

DEFAULT_CHUNK, DEFAULT_AREA, DEFAULT_RESERVE = format_bytes(CHUNK), format_bytes(AREA), RESERVE * 100

Name = Annotated[str, typer.Option(help="What classes call the pool in their parameter `pool`.", metavar="NAME")]
Backend = Annotated[str, typer.Option(help="lvm. A loop pool is made by serve itself.", metavar="BACKEND")]
Devices = Annotated[
    list[Path] | None,
    typer.Option("--device", help="An empty disk or partition; may be repeated.", metavar="DEVICE"),
]
Vg = Annotated[
    str,
    typer.Option(
        help="With --device what the new volume group is called, by default as the pool; without it the group to take "
        "over.",
        metavar="VG",
    ),
]
ThinPool = Annotated[
    str,
    typer.Option(
        help="With --device what the thin pool is called, by default `thin`; without it the one to take over.",
        metavar="LV",
    ),
]
Chunk = Annotated[
    str,
    typer.Option(
        help="What a thin volume is given at a time. The first write to a chunk zeroes it, and the first after a "
        "snapshot copies it: work of the kernel that no limit sees, so small chunks keep limits true and snapshots "
        "cheap. Large ones (256Ki, 512Ki) cost less metadata and suit pools of checkpoints only. It can't be changed.",
        metavar="SIZE",
    ),
]
Area = Annotated[
    str,
    typer.Option(
        help="Each disk's area for the group's text, which has about 1 KB a volume or snapshot and is there twice: "
        f"{DEFAULT_AREA} are room for {most_volumes(AREA):,} of them. It can't be made larger afterwards.",
        metavar="SIZE",
    ),
]
Metadata = Annotated[
    str,
    typer.Option(
        help="The pool's own metadata; by default 128 bytes a chunk, twice lvm's rule, since snapshots of volumes that "
        "are rewritten at random take more: 2Gi for 1Ti in chunks of 64Ki; 32Mi at least, 15.8Gi at most. A spare as "
        "large is kept for a repair.",
        metavar="SIZE",
    ),
]
Reserve = Annotated[
    float,
    typer.Option(
        help="The part of the group, in percent, that is left free: room to extend metadata, and to make a full pool "
        "larger at once. Thick volumes (tier scratch) take theirs there too: leave more for them.",
        metavar="PERCENT",
    ),
]
Stripes = Annotated[
    int,
    typer.Option(
        help="Disks that data are spread over. 1 fills disk after disk, and lets you add a single one; more are "
        "quicker, and want as many disks when the pool is extended.",
        metavar="N",
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(help="Bytes promised for each byte there is; by default 1.5, as checkpoints need.", metavar="R"),
]
Wiped = Annotated[
    bool,
    typer.Option("--wiped", help="Take a device that has no signature any more, but is not all zeros at its ends."),
]
Fix = Annotated[
    bool,
    typer.Option("--fix", help="Mend what is unsound about a pool that is taken over, where that is safe."),
]
MoreData = Annotated[
    str, typer.Option(help="Bytes more for data, such as +10Gi, of what the group has free.", metavar="+SIZE")
]
MoreMetadata = Annotated[
    str, typer.Option(help="Bytes more for metadata, such as +64Mi; its spare grows with it.", metavar="+SIZE")
]

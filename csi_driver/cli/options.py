"""The flags that several commands share. Light: every start of `sluice` imports this."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file with the same settings; flags win.", metavar="FILE")
]
Endpoint = Annotated[
    str | None, typer.Option(help="Where CSI is served, such as unix:///run/sluice/csi.sock.", metavar="URL")
]
Role = Annotated[str | None, typer.Option(help="all, controller or node.", metavar="ROLE")]
NodeId = Annotated[str | None, typer.Option(help="This node's name; by default the host's.", metavar="NAME")]
State = Annotated[
    Path | None, typer.Option(help="The folder of the records; by default /var/lib/sluice.", metavar="DIR")
]
Pools = Annotated[
    list[str] | None,
    typer.Option(
        "--pool",
        help="name=NAME,backend=loop,path=DIR[,size=SIZE][,ratio=R], or name=NAME,backend=lvm,vg=VG,thinpool=LV; may "
        "be repeated.",
        metavar="POOL",
    ),
]
Tiers = Annotated[Path | None, typer.Option(help="A TOML file with tiers of your own.", metavar="FILE")]
Qos = Annotated[str | None, typer.Option(help="enforce, or off where the kernel can't limit.", metavar="MODE")]
Ancestor = Annotated[str | None, typer.Option(help="auto, or the cgroup above all pods.", metavar="CGROUP")]
Metrics = Annotated[str | None, typer.Option(help="HOST:PORT for Prometheus.", metavar="HOST:PORT")]
TrimEvery = Annotated[
    str | None,
    typer.Option(
        help="How often staged file systems give back what they don't use: 24h by default, 0 for never.", metavar="TIME"
    ),
]
LogFormat = Annotated[str | None, typer.Option(help="console or json.", metavar="FORMAT")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")]
DriverName = Annotated[str | None, typer.Option(help="What CSI calls the driver.", metavar="NAME")]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

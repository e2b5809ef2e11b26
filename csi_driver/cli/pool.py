"""`sluice pool`: thin pools are made, taken over, shown and made larger."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from csi_driver import assemble
from csi_driver.cli import options, poolfile, poolmaking, pooloptions, poolshow, show
from csi_driver.config import Config
from csi_driver.errors import Invalid
from csi_driver.host.thinpool import NewPool

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Make, take over, show and extend pools of volumes.",
    epilog="Example: sluice pool create --name fast --device /dev/nvme1n1",
)


@contextlib.contextmanager
def _machine() -> Iterator[assemble.Machine]:
    machine = assemble.Machine()
    try:
        yield machine
    finally:
        machine.dead_man.close()


@app.command(epilog="Example: sluice pool create --name fast --device /dev/nvme1n1 --device /dev/nvme2n1")
def create(
    name: pooloptions.Name,
    device: pooloptions.Devices = None,
    vg: pooloptions.Vg = "",
    thinpool: pooloptions.ThinPool = "",
    backend: pooloptions.Backend = "lvm",
    chunk: pooloptions.Chunk = pooloptions.DEFAULT_CHUNK,
    metadatasize: pooloptions.Area = pooloptions.DEFAULT_AREA,
    metadata: pooloptions.Metadata = "",
    reserve: pooloptions.Reserve = pooloptions.DEFAULT_RESERVE,
    stripes: pooloptions.Stripes = 1,
    ratio: pooloptions.Ratio = None,
    wiped: pooloptions.Wiped = False,
    fix: pooloptions.Fix = False,
    config: options.ConfigFile = None,
    state: options.State = None,
    as_json: options.Json = False,
) -> None:
    """Make a thin pool on empty disks, or take over one that exists (--vg and --thinpool, without --device).

    A device that holds anything is refused, and said what it holds: nothing is ever wiped. What is made: a physical
    volume a disk, one volume group, one thin pool. New chunks are zeroed, since what a tenant deleted must not be seen
    by the next. A full pool gives errors at once, since a volume that hangs for a minute helps nobody. Freed blocks are
    passed on to the disk. The group is not activated at boot, before the server has told udev to leave volumes alone.

    The pool is kept in pools.toml in the state folder, so the next `sluice serve` serves it.
    """
    settings = Config.load(config, {"state": state})
    given = {"name": name, "backend": backend, "vg": vg or name, "thinpool": thinpool or "thin", "ratio": ratio}
    words = {key: value for key, value in given.items() if value is not None}
    pool = poolmaking.pool_config(settings, words)
    if not device and not (vg and thinpool):
        raise Invalid("device: give --device for a new pool, or --vg and --thinpool for one that exists")
    plan = NewPool(
        name=name,
        vg=pool.path.parts[0],
        thinpool=pool.path.parts[1],
        devices=poolmaking.disks(device),
        chunk=poolmaking.chunk_size(chunk),
        area=poolmaking.size("metadatasize", metadatasize),
        metadata=poolmaking.size("metadata", metadata),
        reserve=poolmaking.part("reserve", reserve),
        stripes=stripes,
    )
    with _machine() as machine, poolmaking.only_one(settings.state):
        poolmaking.pool_config(Config.load(config, {"state": state}), words)  # one that was being made has its name now
        made = poolmaking.make(plan, machine, wiped=wiped) if device else poolmaking.take_over(pool, machine, fix=fix)
        file = poolfile.keep(settings.state, pool, machine.kernel)
    poolshow.made(pool, made, file, as_json=as_json)


@app.command("list", epilog="Example: sluice pool list --state /var/lib/sluice")
def list_pools(config: options.ConfigFile = None, state: options.State = None, as_json: options.Json = False) -> None:
    """Show the pools, as the records have them: size, what is promised and written, and their condition."""
    lines = poolshow.lines(Config.load(config, {"state": state}))
    if as_json:
        show.as_json([poolshow.as_dict(line) for line in lines])
    elif not lines:
        show.console().print("There are no pools. Make one: sluice pool create --help")
    else:
        poolshow.print_table(lines)


@app.command(epilog="Example: sluice pool extend fast --device /dev/nvme3n1")
def extend(
    name: Annotated[str, typer.Argument(help="The pool's name.", metavar="NAME")],
    device: pooloptions.Devices = None,
    size: pooloptions.MoreData = "",
    metadata: pooloptions.MoreMetadata = "",
    metadatasize: pooloptions.Area = pooloptions.DEFAULT_AREA,
    wiped: pooloptions.Wiped = False,
    config: options.ConfigFile = None,
    state: options.State = None,
    pool: options.Pools = None,
    as_json: options.Json = False,
) -> None:
    """Make a thin pool larger while the server runs: it sees that by itself.

    With --device alone, all of the new disks is taken but for 5 %. Metadata grow with the data, and first.
    """
    settings = Config.load(config, {"state": state, "pools": pool or None})
    wanted = poolmaking.named(settings, name)
    more = poolmaking.More(
        poolmaking.disks(device),
        poolmaking.more("size", size),
        poolmaking.more("metadata", metadata),
        poolmaking.size("metadatasize", metadatasize),
    )
    with _machine() as machine:
        before, after = poolmaking.extend(wanted, more, machine, wiped=wiped)
    poolshow.extended(wanted, before, after, as_json=as_json)

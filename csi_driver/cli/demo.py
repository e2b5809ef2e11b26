"""`sluice demo`: the main job, measured in the test machine. It is of the checkout, not of the installed package."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from csi_driver.errors import Unready

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

CHECKOUT = Path(__file__).resolve().parents[2]


@app.command(epilog="Example: sluice demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where report and figures go.", metavar="DIR")] = CHECKOUT / "build/demo",
    classes: Annotated[Path, typer.Option(help="The folder of the StorageClasses.", metavar="DIR")] = CHECKOUT
    / "deploy/classes",
    backend: Annotated[str, typer.Option(help="What the volumes are on: lvm or loop.", metavar="NAME")] = "lvm",
    buffered: Annotated[
        bool, typer.Option("--buffered", help="Training writes through the page cache; io.max alone is weaker there.")
    ] = False,
) -> None:
    """Show on a small disk what limits do for inference beside training: about 2 minutes, and a report in HTML.

    Boots the test machine (hack/vm) with a disk of 1,000 IOPS and 50 MiB/s, makes a thin pool of LVM on it and two
    volumes over the CSI socket, one of them of 630 GiB for checkpoints; cuts and clones a volume in use; and lets fio
    read and write in two cgroups that stand in for pods: inference alone; both without limits; both with; then a limit
    changed while training runs.
    """
    if not (CHECKOUT / "hack/vm/run").exists():
        raise Unready("demo: needs a checkout of Sluice with its test machine in hack/vm; clone it and run make demo")
    if os.geteuid() != 0:
        raise Unready("demo: run it as root: the test machine's image is made by programs that need it")
    sys.path.insert(0, str(CHECKOUT))
    show = importlib.import_module("hack.demo.show")
    raise typer.Exit(show.main(CHECKOUT, classes, out.absolute(), backend=backend, buffered=buffered))

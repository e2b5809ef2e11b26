"""The commands, and what all of them share: errors as one line, and an exit status that tells."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from csi_driver import log
from csi_driver.cli import options
from csi_driver.config import Config
from csi_driver.errors import StorageError

if TYPE_CHECKING:
    from typer._click import Command, Context  # Typer's own copy of Click; its base classes are typed with it

COMMANDS = ("serve", "doctor", "pool", "volumes", "top", "adopt", "tiers", "size", "demo")
"""In the order of `sluice --help`. Each but `serve` is the module of its name in this package."""


class Commands(TyperGroup):
    """Import a command when it is asked for: `serve` must be ready at once and small, and needs none of the others."""

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - the signature is Click's
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Return a command, None when there is none of this name."""
        if cmd_name == "serve" or cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        log.configure("console", "error")  # what a command has to say, it prints itself
        module = importlib.import_module(f"csi_driver.cli.{cmd_name}")
        return typer.main.get_command(module.app)


app = typer.Typer(
    cls=Commands,
    name="sluice",
    help="Storage for AI platforms whose I/O limits hold.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command line. What goes wrong is one line on standard error, and status 1."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="sluice", standalone_mode=False))
    except StorageError as error:
        _fail(str(error))
    except TyperException as error:  # a wrong flag or command
        context: Context | None = getattr(error, "ctx", None)
        asked = context.command_path if context else "sluice"
        _fail(f"{error.format_message().rstrip('.')}; see: {asked} --help")
    except typer.Abort:
        _fail("stopped")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"sluice: {message}\n")
    sys.exit(1)


@app.callback()
def sluice() -> None:
    """Storage for AI platforms whose I/O limits hold."""


@app.command(
    epilog="Example: sluice serve --state /var/lib/sluice --pool name=fast,backend=loop,path=/srv/sluice,size=100Gi"
)
def serve(
    config: options.ConfigFile = None,
    endpoint: options.Endpoint = None,
    role: options.Role = None,
    node_id: options.NodeId = None,
    state: options.State = None,
    pool: options.Pools = None,
    tiers: options.Tiers = None,
    qos: options.Qos = None,
    ancestor: options.Ancestor = None,
    metrics: options.Metrics = None,
    trim_every: options.TrimEvery = None,
    log_format: options.LogFormat = None,
    log_level: options.LogLevel = None,
    driver_name: options.DriverName = None,
) -> None:
    """Serve CSI on a socket until SIGTERM. Limits, mounts and devices stay when it stops."""
    flags = {key: value for key, value in locals().items() if key not in ("config", "pool")}
    settings = Config.load(config, {**flags, "pools": pool or None})
    # What only a server needs is imported by a server only.
    from csi_driver.cli.serve import serve as run  # noqa: PLC0415

    log.configure(settings.log_format, settings.log_level)
    run(settings)

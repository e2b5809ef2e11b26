"""The command line: one file a command."""

from csi_driver.cli.app import main

__all__ = ["main"]

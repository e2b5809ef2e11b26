"""Run the command line: `python -m csi_driver`."""

from csi_driver.cli import main

main()

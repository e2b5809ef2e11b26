"""Sluice: a CSI driver that gives every volume an enforced I/O budget."""

__version__ = "0.1.0"

"""The disposable test machine: its image (``build``) and one command in it (``run``).

Uses the standard library alone: it runs before any virtual environment exists.
"""

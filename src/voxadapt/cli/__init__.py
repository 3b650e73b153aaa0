"""The command line."""

from voxadapt.cli.app import main

__all__ = ["main"]

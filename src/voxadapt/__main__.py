"""`python -m voxadapt`."""

from voxadapt.cli import main

main()

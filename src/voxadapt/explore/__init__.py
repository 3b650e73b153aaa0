"""What the notebooks in `notebooks/explore/` call."""

"""What the notebooks in `notebooks/explore/` call: to hear, to look inside, to doubt the choice."""

"""Speech from a checkpoint: the token loop, its sampling, and the clips of a candidate."""

"""Decisions from score rows: the epoch, its confirmation, what was forgotten, Stage 2."""

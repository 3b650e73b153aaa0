"""Evaluation: speech of every candidate, transcripts, similarity, statistics, the choice."""

"""Blind listening pages and the votes that come back."""

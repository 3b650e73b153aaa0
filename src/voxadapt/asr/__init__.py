"""Recognition: Whisper, the normaliser, and the counts of errors."""

"""The stages, one module each, and what they share."""

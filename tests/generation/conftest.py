"""Decoding is tested on the same tiny models as the forward pass."""

from model.conftest import base_dirs, models, tts

__all__ = ["base_dirs", "models", "tts"]

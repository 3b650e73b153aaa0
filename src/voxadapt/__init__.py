"""VoxAdapt adapts Qwen3-TTS to a speaker or a language and lets measurements decide."""

__version__ = "0.1.0"

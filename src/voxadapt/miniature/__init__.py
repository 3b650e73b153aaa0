"""The miniature world: a tiny, really trained Qwen3-TTS, codec, Whisper and corpora.

The miniature proves the pipeline on two CPU cores; it says nothing about the quality of
Qwen3-TTS itself. ``python -m voxadapt.miniature build`` rebuilds it from nothing but
``espeak-ng`` and ``flite``.
"""

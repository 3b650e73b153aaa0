"""The miniature world: a tiny, really trained Qwen3-TTS, codec, Whisper and corpora.

The miniature proves the pipeline on two CPU cores; it says nothing about the quality of
Qwen3-TTS itself. ``python -m miniature build`` rebuilds it from nothing but ``espeak-ng`` and
``flite``. It is no part of the installed package.
"""

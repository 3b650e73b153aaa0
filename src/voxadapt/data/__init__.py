"""The speaker's corpus: reading the manifest, measuring the audio, auditing, splitting."""

from voxadapt.data.manifest import (
    RawRow,
    Utterance,
    read_manifest,
    read_raw_manifest,
    write_manifest,
)

__all__ = ["RawRow", "Utterance", "read_manifest", "read_raw_manifest", "write_manifest"]

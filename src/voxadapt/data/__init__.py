"""The speaker's corpus: reading the manifest, measuring the audio, auditing, splitting."""

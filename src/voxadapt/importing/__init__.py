"""Bringing recordings in: a manifest folder from other layouts, or from long recordings.

What is written is what the audit reads: `clips/`, `train_raw.jsonl` and `ref.wav`, with
`import.json` beside, which lists every row that was left out and why. Sources are never changed.
"""

from voxadapt.importing.corpora import import_corpus
from voxadapt.importing.folder import Imported
from voxadapt.importing.recordings import Hearing, import_long

__all__ = ["Hearing", "Imported", "import_corpus", "import_long"]

"""A stand-in for training and scoring: real score rows, as good as the parameters make them.

The tests import it, and the small DVC project of `test_sweeps.py` runs it as its stage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from rows import make_system
from voxadapt.core.files import write_json
from voxadapt.core.params import Params, load_params
from voxadapt.scoring.rows import ScoreRow, write_rows
from voxadapt.selection.select import select

WORDS = "amber birch cedar delta ember fjord grove heath inlet jetty knoll lagoon".split()


def rows_of(params: Params, name: str, **fields: Any) -> list[ScoreRow]:
    """Simulate a candidate: similarity grows for two epochs, at 2e-4 the most; far off it falls."""
    lr, epoch = params.train.lr, 0 if name == "base" else int(name[6:])
    fit = max(-1.0, 1.0 - abs(np.log2(lr / 2e-4)) / 1.5)
    made = make_system(
        name if name == "base" else f"{name} {lr}",
        num_texts=len(WORDS),
        takes=params.score.takes,
        sim=0.72 + 0.04 * fit * min(epoch, 2),
        error=0.1,
        checkpoint_sha=name if name == "base" else f"{name}, lr {lr}",
        **fields,
    )
    told = {row.text_id: word for row, word in zip(made[:: params.score.takes], WORDS, strict=True)}
    return [
        row.model_copy(
            update={
                "candidate": name,
                "text": f"{row.text} {told[row.text_id]}",
                "text_norm": f"{row.text} {told[row.text_id]}",
                "wav": f"artifacts/scores/{name}/wavs/{row.text_id}-{row.take}.wav",
            }
        )
        for row in made
    ]


def write_results(root: Path, params: Params, **fields: Any) -> None:
    """Write scores with a little sound, and the decision made from them."""
    rows = {name: rows_of(params, name, **fields) for name in params.candidates}
    for name, found in rows.items():
        folder = root / "artifacts" / "scores" / name
        write_rows(folder, found)
        (folder / "wavs").mkdir()
        for row in found:
            if row.take == 0:
                tone = 0.2 * np.sin(np.arange(4800) * (0.05 + len(row.text) / 1000))
                sf.write(root / row.wav, tone, 24000)
    write_json(root / "reports" / "selection.json", select(rows, params.select))


if __name__ == "__main__":
    found = load_params()
    assert Path("data/corpus.txt").read_text() == "a corpus\n"
    work = Path(os.environ["WORK_DIR"])
    work.mkdir(exist_ok=True)
    with (work / "ran").open("a") as log:
        log.write(f"{found.train.lr} {Path.cwd()}\n")
    if found.train.lr > 0.01:
        sys.exit("the loss is not a number")
    write_results(Path(), found)

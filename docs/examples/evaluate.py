"""Write a small folder of clips to try `voxadapt evaluate` on, made of the miniature's recordings.

Two systems speak ten sentences: `studio` is the recording itself, `telephone` the same with the
band and the noise of a bad line. One clip of `telephone` is left out, as if it had crashed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt

SPEAKER = Path("data/speaker")
NUM_SENTENCES, NUM_REFERENCE, CRASHED = 10, 8, 3


def main(folder: Path) -> None:
    """Write clips, manifest and the speaker's recordings into a folder."""
    lines = (SPEAKER / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: NUM_SENTENCES + NUM_REFERENCE]]
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    clips, recordings = [], []
    for index, row in enumerate(rows):
        wave, rate_hz = soundfile.read(SPEAKER / row["audio"])
        if index >= NUM_SENTENCES:
            name = f"speaker-{index}.wav"
            soundfile.write(folder / name, wave, rate_hz)
            recordings.append({"audio": name, "text": row["text"]})
            continue
        band = butter(4, (300, 2400), "bandpass", fs=rate_hz, output="sos")
        bad = sosfilt(band, wave) + 0.02 * rng.standard_normal(len(wave))
        for system, sound in (("studio", wave), ("telephone", bad)):
            name = f"{system}-{index}.wav"
            clips.append({"audio": name, "text": row["text"], "system": system})
            if (system, index) != ("telephone", CRASHED):
                soundfile.write(folder / name, sound, rate_hz)
    for name, listed in (("clips.jsonl", clips), ("speaker.jsonl", recordings)):
        text = "".join(json.dumps(item) + "\n" for item in listed)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

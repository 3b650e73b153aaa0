"""Golden values of the miniature's whole pipeline, from splits to a decision.

    python tests/golden/measure.py

writes `tests/golden/miniature.json` anew. Do that only after a change that is meant to change
results, and say in the commit which values moved and why. Integers and texts are compared exactly
(long lists by their hash), floats within a relative tolerance: another processor may round
otherwise, another version of a library must not do more than that.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

PROJECT = Path(__file__).parents[2]
DATA = PROJECT / "data"
GOLDEN = Path(__file__).with_name("miniature.json")
TOLERANCES = {"loss": 2e-4, "grad_norm": 2e-3, "similarity": 1e-4, "logprob": 2e-3, "mel": 1e-4}
LANGUAGES = ("en", "tr", "th", "ms")
TOLERANCES |= {"interval": 1e-9, "audio": 2e-3}


def measure() -> dict[str, Any]:
    """Compute every golden value: `exact` and, with the name of its tolerance, `close`."""
    import torch

    torch.set_num_threads(1)
    exact: dict[str, Any] = {}
    close: dict[str, Any] = {}
    for part in (_texts, _sound, _heard, _codes_speech_and_training, _decision):
        part(exact, close)
    return {"exact": exact, "close": close}


def _rows(count: int | None = None) -> list[dict[str, str]]:
    text = (DATA / "speaker" / "train_raw.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()[:count]]


def _texts(exact: dict[str, Any], close: dict[str, Any]) -> None:
    """Splits of the corpus, normalised texts, respelt texts."""
    from voxadapt.asr.normalise import normalise
    from voxadapt.core.params import load_params
    from voxadapt.core.provenance import fingerprint
    from voxadapt.data.respelling import load_respelling
    from voxadapt.data.splits import SPLITS, assign_split
    from voxadapt.data.text import fold_text

    params = load_params(PROJECT / "profiles" / "miniature.yaml")
    splits = [assign_split(fold_text(row["text"]), params.split) for row in _rows()]
    exact["splits"] = {name: splits.count(name) for name in SPLITS}
    exact["splits_sha"] = fingerprint(splits)
    said = ["It's 5 o'clock — “really”?", "Ştefan’ın İZMİR'i", "สวัสดี ครับ", "Ana-anak 2 kali!"]
    exact["normalised"] = [
        normalise(text, lang) for text, lang in zip(said, LANGUAGES, strict=True)
    ]
    path = DATA / "language" / "malay" / "text_only.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    respelling = load_respelling(PROJECT / "profiles" / "respelling" / "malay.yaml")
    exact["respelt_sha"] = fingerprint([respelling.respell(text) for text in texts])
    exact["respelt"] = respelling.respell(texts[0])


def _sound(exact: dict[str, Any], close: dict[str, Any]) -> None:
    """Decoding, resampling, mel spectrogram, speaker embeddings."""
    from whisper.audio import log_mel_spectrogram

    from voxadapt.asr.voice_prints import Embedder
    from voxadapt.data.audio import read_mono

    clips = [DATA / "speaker" / row["audio"] for row in _rows(3)]
    waves = [read_mono(path, 24000)[0] for path in clips]
    exact["num_samples"] = [len(wave) for wave in waves]
    close["audio_rms"] = ["audio", [float(np.sqrt(np.mean(wave**2))) for wave in waves]]
    mel = log_mel_spectrogram(read_mono(clips[0], 16000)[0]).numpy()
    exact["mel_shape"] = list(mel.shape)
    close["mel"] = ["mel", [float(v) for v in (mel.mean(), mel.std(), *mel[::20, 50])]]
    other = DATA / "language" / "malay" / "ref.wav"
    embedded = [item.embedding for item in Embedder().embed([*clips, other])]
    near = [float(embedded[0] @ vector) for vector in embedded[1:]]
    close["similarity"] = ["similarity", near]


def _heard(exact: dict[str, Any], close: dict[str, Any]) -> None:
    """Whisper's transcripts of recordings."""
    from voxadapt.asr.whisper import Transcriber

    rows = _rows(3)
    transcriber = Transcriber(DATA / "models" / "whisper" / "miniature.pt", "en", batch_size=4)
    found = transcriber.transcribe(
        [DATA / "speaker" / row["audio"] for row in rows], [row["text"] for row in rows]
    )
    exact["transcripts"] = [item.text for item in found]
    close["logprobs"] = ["logprob", [item.avg_logprob for item in found]]


def _codes_speech_and_training(exact: dict[str, Any], close: dict[str, Any]) -> None:
    """Codes of recordings, codes of sampled speech, the losses of the first steps."""
    from voxadapt.codec.extract import decode_codes, extract_codes
    from voxadapt.core.files import sha256_array, sha256_file
    from voxadapt.core.params import TrainParams
    from voxadapt.data.audio import probe
    from voxadapt.data.manifest import Utterance
    from voxadapt.generation.decoding import frame_rate_hz
    from voxadapt.generation.readings import read_aloud
    from voxadapt.model.load import load_speech_tokenizer, load_tts, speaker_vector
    from voxadapt.training.trainer import train

    base, ref = DATA / "models" / "base", DATA / "speaker" / "ref.wav"
    rows = _rows(8)
    clips = []
    for number, row in enumerate(rows):
        path = DATA / "speaker" / row["audio"]
        info = probe(path)
        clips.append(
            Utterance(id=path.stem, audio=str(path), text=row["text"], ref_audio=str(ref),
                      duration_s=info.duration_s, sample_rate_hz=info.sample_rate_hz,
                      audio_sha256=sha256_file(path),
                      split="selection" if number > 5 else "train")
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = load_speech_tokenizer(base)
        codes = extract_codes(clips, tokenizer, 12.0, scratch, "golden", "/")
        exact["codes_sha"] = {name: sha256_array(array)[:16] for name, array in codes.items()}
        exact["codes"] = codes[clips[0].id][:2].tolist()
        sound = decode_codes({clips[0].id: codes[clips[0].id]}, tokenizer)[clips[0].id]
        close["decoded_rms"] = ["audio", [float(np.sqrt(np.mean(np.square(sound))))]]
        tts = load_tts(base, "cpu")
        vector = speaker_vector(tts, ref)
        close["speaker_vector"] = ["similarity", [float(v) for v in vector[:4]]]
        readings = read_aloud(
            tts, [row["text"] for row in rows[:2]], vector, "english", temperature=0.6, top_k=30,
            top_p=1.0, repetition_penalty=1.05, seed=1, batch_size=2, max_seconds_per_token=0.3,
            frames_per_s=frame_rate_hz(tts),
        )  # fmt: skip
        spoken = [item.codes.numpy() for item in readings if item.codes is not None]
        exact["spoken_frames"] = [len(array) for array in spoken]
        exact["spoken_sha"] = [sha256_array(array)[:16] for array in spoken]
        result = train(
            TrainParams(speaker_name="Aria", batch_size=3, lr=2e-4, warmup_steps=2, seed=0,
                        frame_dropout=0.5),
            model_path=base, utterances=clips, codes=codes, ref_audio=ref,
            out_dir=Path(scratch) / "out", work_dir=scratch, num_epochs=1,
        )  # fmt: skip
    exact["tokens"] = [[row["num_labels"], row["num_frames"]] for row in result.rows[1:]]
    exact["speaker_row"] = result.metrics["speaker_row"]["id"]
    close["losses"] = ["loss", [row["loss"] for row in result.rows[1:]]]
    close["heldout"] = ["loss", [result.rows[0]["heldout_loss"], result.rows[-1]["heldout_loss"]]]
    close["grad_norms"] = ["grad_norm", [row["grad_norm"] for row in result.rows[1:]]]


def _decision(exact: dict[str, Any], close: dict[str, Any]) -> None:
    """The rule on rows that are made up: resampling, gates, choice."""
    from rows import make_row
    from voxadapt.core.params import SelectParams
    from voxadapt.selection.select import select

    def rows(name: str, sim: float, wrong: int) -> list[Any]:
        return [
            make_row(name, f"t{n}", sim=sim + 0.01 * math.sin(n), word_hits=10 - wrong * (n % 3),
                     word_substitutions=wrong * (n % 3))
            for n in range(12)
        ]  # fmt: skip

    found = {"base": rows("base", 0.6, 1), "epoch-1": rows("epoch-1", 0.7, 1)}
    found["epoch-2"] = rows("epoch-2", 0.705, 2)
    decision = select(found, SelectParams(num_bootstrap=500))
    exact["chosen"] = decision["chosen"]
    exact["eligible"] = [item["eligible"] for item in decision["candidates"]]
    close["intervals"] = [
        "interval",
        [item[key][end] for item in decision["candidates"] for key in ("wer", "sim")
         for end in ("point", "low", "high")],
    ]  # fmt: skip
    close["p_best"] = ["interval", [item["p_best"] for item in decision["candidates"]]]


def differences(golden: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Name every value that moved by more than its tolerance."""
    moved = [
        f"{name}: {golden['exact'].get(name)} became {found['exact'].get(name)}"
        for name in sorted({*golden["exact"], *found["exact"]})
        if golden["exact"].get(name) != found["exact"].get(name)
    ]
    for name in sorted({*golden["close"], *found["close"]}):
        kind, wanted = golden["close"].get(name, ["loss", []])
        values = found["close"].get(name, ["loss", []])[1]
        same = len(wanted) == len(values) and np.allclose(
            np.array(values, float), np.array(wanted, float), rtol=TOLERANCES[kind],
            atol=TOLERANCES[kind] * 0.1, equal_nan=True,
        )  # fmt: skip
        if not same:
            moved.append(f"{name} (within {TOLERANCES[kind]:g}): {wanted} became {values}")
    return moved


def main() -> None:
    """Write the golden values anew and say which moved."""
    from voxadapt.core.files import read_json, write_json
    from voxadapt.core.provenance import versions

    found = measure()
    if GOLDEN.is_file():
        print("\n".join(differences(read_json(GOLDEN), found)) or "Nothing moved.")
    write_json(GOLDEN, {**found, "versions": versions()})


if __name__ == "__main__":
    main()

"""Writes the page that goes with the miniature's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniature.recipe import Recipe
from miniature.speech import TEST_SETS
from miniature.voices import BASE_VOICES, FLOOR_VOICES, KNOWN_VOICES, MALAY_VOICES
from voxadapt.core.files import read_jsonl


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quality_table(report: dict[str, Any]) -> str:
    """Return the figures as a Markdown table.

    Args:
        report: What :func:`miniature.measure.measure` returned.
    """
    rows: list[tuple[str, str, str]] = []
    names = {
        "heldout_en": "English, voices of the Base",
        "heldout_target": "English, target voice",
        "heldout_ms": "Malay",
    }
    for key, what in (
        ("whisper_real", "Whisper WER, real clips"),
        ("whisper_resynthesised", "Whisper WER, clips through the codec"),
    ):
        for split, label in names.items():
            cell = report[key][split]
            rows.append((f"{what}: {label}", _percent(cell["wer"]), str(cell["n"])))
    for key, what in (
        ("clone_known_voices", "Base, zero-shot clone WER: known voices"),
        ("clone_known_voices_streaming", "the same, streaming layout"),
        ("clone_unseen_target", "Base, zero-shot clone WER: target voice, never heard"),
    ):
        cell = report[key]
        value = (
            f"{_percent(cell['wer'])}; ended by itself {_percent(cell['ended_by_itself'])}; "
            f"median duration ratio {cell['median_duration_ratio']:.2f}"
        )
        rows.append((what, value, str(cell["n"])))
        if "similarity" in cell:
            near = cell["similarity"]
            value = (
                f"own {near['own']:.3f}, other {near['other']:.3f}, "
                f"nearest right {_percent(near['nearest_right'])}"
            )
            rows.append((f"{what}: cosine with codec copies", value, str(near["n"])))
    for key, what in (
        ("malay_as_written", "Base, Malay as it is written, WER (it knows English alone)"),
        ("malay_respelt", "Base, Malay respelt for an English reader, WER"),
    ):
        cell = report[key]
        value = f"{_percent(cell['wer'])}; ended by itself {_percent(cell['ended_by_itself'])}"
        rows.append((what, value, str(cell["n"])))
    for key, what in (
        ("voice_real_vs_real", "Resemblyzer, real against real"),
        ("voice_copy_vs_real", "Resemblyzer, codec copies against real"),
        ("voice_copy_vs_copy", "Resemblyzer, codec copies against codec copies"),
    ):
        cell = report[key]
        value = (
            f"own {cell['own']:.3f}, other {cell['other']:.3f}, margin {cell['margin']:.3f}, "
            f"nearest right {_percent(cell['nearest_right'])}"
        )
        rows.append((what, value, str(cell["n"])))
    cell = report["codec_melody"]
    value = (
        f"{_percent(cell['voiced'])}; median range {_percent(cell['range_ratio'])} of the clip's"
    )
    rows.append(("Codec copies that keep an F0", value, str(cell["n"])))
    for key, split, what in (
        ("whisper_real", "heldout_en", "Whisper, real clips of known voices"),
        ("whisper_resynthesised", "heldout_target", "Whisper, target voice through the codec"),
    ):
        for kind, cell in report[key][split]["by_kind"].items():
            rows.append((f"{what}: kind {kind}", _percent(cell["wer"]), str(cell["n"])))
    used = ", ".join(f"{p:.0f}" for p in report["codec_perplexity"])
    rows.append(("Codebook perplexities (of 256)", used, ""))
    return _table(("figure", "value", "n"), *rows)


#: Learning curves: what was trained, folder of its checkpoints, figure that is shown.
CURVES = (
    ("codec: spectral loss", "codec", "spectral"),
    ("Whisper, real clips: loss", "whisper", "loss"),
    ("Whisper, codec copies too: loss", "whisper_tuned", "loss"),
    ("Base: loss of the first codebook", "talker", "c0"),
    ("Base: loss of the others", "talker", "sub"),
)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def curve_table(work: Path) -> str:
    """Return the learning curves at some shares of their steps as a Markdown table.

    Args:
        work: Folder of the checkpoints; each has a ``curve.jsonl``.
    """
    rows = []
    for what, folder, key in CURVES:
        lines = read_jsonl(work / folder / "curve.jsonl")
        # A run that was stopped writes the steps after its last checkpoint twice.
        curve = {row["step"]: row[key] for row in lines if key in row}
        steps = sorted(curve)
        at = [steps[max(0, round(share * len(steps)) - 1)] for share in SHARES]
        rows.append((what, str(steps[-1]), *(f"{curve[step]:.2f}" for step in at)))
    return _table(("figure", "steps", *(f"{share:.0%}" for share in SHARES)), *rows)


def write_readme(report: dict[str, Any], recipe: Recipe, data: Path, work: Path) -> None:
    """Write ``README.md``.

    Args:
        report: The quality report.
        recipe: What was built.
        data: The ``data`` folder.
        work: Folder of the checkpoints, with the learning curves.
    """
    s = recipe.speech
    seconds = recipe.whisper.audio_ctx * 0.02
    contents = _table(
        ("folder", "what"),
        (
            "`models/base`",
            "stock `Qwen3TTSForConditionalGeneration` (`tts_model_type: base`), float16, with its "
            "codec in `speech_tokenizer`",
        ),
        (
            "`models/whisper/miniature.pt`",
            "`whisper.load_model` reads it; English and Malay; context of "
            f"{seconds:.0f} s (`dims.n_audio_ctx` = {recipe.whisper.audio_ctx})",
        ),
        (
            "`speaker`",
            f"corpus of the target voice, {s.speaker} clips, and a reference that is none of them",
        ),
        (
            "`language/malay`",
            f"Malay corpus of one voice, {s.malay_corpus} clips; `text_only.jsonl`: "
            f"{s.malay_text} further sentences",
        ),
        (
            "`voices`",
            f"{len(FLOOR_VOICES)} other voices, {s.floor_clips} clips each (similarity floor)",
        ),
        (
            "`speaker/sets`, `language/malay/sets`",
            f"test sets in English and Malay, {s.test_set} sentences each: {', '.join(TEST_SETS)}",
        ),
    )
    heard = _table(
        ("model", "learned from", "never heard"),
        (
            "Base talker and its speaker encoder",
            f"{s.base} English clips of {len(BASE_VOICES)} voices; {s.respelled} with invented "
            "words, written syllable by syllable as dictionaries print a pronunciation "
            '("pah-yoong")',
            "the target voice (flite `slt`), all Malay",
        ),
        (
            "codec",
            f"the {s.base} English clips, {s.malay} Malay clips of {len(MALAY_VOICES)} voices, "
            f"{s.target_other} clips of the target voice with other sentences",
            "the shipped corpora, the held-out sentences",
        ),
        ("Whisper", "as the codec, then a mix with clips sent through the codec", "the same"),
    )
    text = f"""# The miniature world

A tiny but really trained Qwen3-TTS, its codec, an openai-whisper recogniser and the corpora to
adapt it with. It proves the pipeline on two CPU cores: the code, the classes and the commands
are those of the full-size model. It says nothing about the quality of Qwen3-TTS.

{contents}

## How it was made

`python -m miniature build`, in a clone with `espeak-ng` and `flite` installed
(seed {recipe.seed}). All speech is synthetic. Sentences come from a small grammar: statements,
questions, exclamations, one to three words, two to four sentences, names (spelled ones too), and
numbers, prices, times, dates and units, written with digits three times in four and else in words.
A sentence of a held-out or shipped corpus occurs in that corpus alone, however its numbers are
written. Malay numbers are written in words.

{heard}

The Malay voices are those of the Malay corpus: codec and Whisper know them, the Base does not.
Held-out English is spoken by the first {len(KNOWN_VOICES)} of the Base's voices. The target voice
has the largest share in Whisper, which has to read it in every score. The models were trained
from the weights of the first version, with restarts; a rebuild gives similar models, not the same
bytes.
The first codebook is trained to carry the transcript (CTC), as the full-size codec distils a
speech model into it. Some attention heads of Whisper and of the Base are led to where a text is
about said, and both learn from clips one after the other too: before, they lost their place in
long sentences.

## Quality, on sentences that no model was trained on

{quality_table(report)}

Word error rates count what is said: "$25" and "twenty-five dollars" are equal. `QUALITY.json` has
the same figures, by kind of sentence too. The sentences that chose the Base checkpoint are not
among those it is measured on.

## Learning curves

Means over the steps before each share of the training:

{curve_table(work)}

## Limits

- Wanted were error rates of Whisper of 2 % (recordings) and 4 % (target voice through the codec),
  and of the Base of 5 % (known voices), 12 % (target voice) and 25 % (respelt Malay). The Base's
  curve still falls where it ends: two CPU cores did not train so long. Whisper's errors hardly
  fell over its last steps; it is too narrow for numbers that differ in one sound, spelled
  letters, and short answers without context.
- Whisper knows the words of the two grammars and writes nothing else.
- Clips longer than {seconds:.0f} s are cut by `pad_or_trim` at this context.
- A clone of the target voice before adaptation is neither read well nor like the target: that is
  what adaptation is for.
- The codec colours every voice. Compare similarity with clips that went through the codec, or
  show the codec round-trip of real clips as the ceiling.
- The codec speaks in a monotone: spectral losses taught it no pitch, and most voices come out as
  if whispered. Melody cannot be judged on the miniature, and its reports say so.
- Synthetic voices differ more from each other than people do.

Speech synthesisers: espeak-ng (GPL-3.0, its output is not covered) and flite (BSD-like licence).
"""
    (data / "README.md").write_text(text, encoding="utf-8")

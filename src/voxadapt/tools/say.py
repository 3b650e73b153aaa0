"""Speaking a text with a trained model: `voxadapt say` and `voxadapt language say`."""

from __future__ import annotations

from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import read_json
from voxadapt.core.lineage import check_made
from voxadapt.core.params import Params
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult
from voxadapt.data.speakers import Speaker, choose_speakers
from voxadapt.data.text import special_tokens
from voxadapt.pipeline.candidates import BASE, check_name, check_weights, find_candidate
from voxadapt.pipeline.tracks import Track, language_track, speaker_track
from voxadapt.selection import wording

SOUND_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def say(
    params: Params,
    text: str,
    output: Path,
    candidate: str | None = None,
    seed: int = 0,
    speaker: str | None = None,
) -> StageResult:
    """Speak a text with the chosen checkpoint, or with a candidate that is named.

    Args:
        params: All parameters.
        text: What to say.
        output: File to write; `SOUND_FORMATS` by its name.
        candidate: A candidate; None asks `selection.json`.
        seed: Of the sampling.
        speaker: One of several speakers; None takes the first.

    Raises:
        UserError: When there is nothing to say, no such candidate or speaker, or no audio.
    """
    _require_words(text)
    _require_sound_file(output)
    track = speaker_track(params)
    note = ""
    if candidate is None:
        check_made([paths.SELECTION], params)
        name = read_record(paths.SELECTION, "select")["chosen"]
        note = _caution(paths.CONFIRM, name)
    else:
        fix = "Name one of them, or add it to params."
        name = check_name(candidate, track.candidates, fix=fix)
    wanted = (speaker,) if speaker is not None else None
    who = choose_speakers(track.speakers(), wanted, "--speaker")[0]
    return _say(params, track, name, who, text, output, track.tag, seed, note)


def say_language(
    params: Params, text: str, output: Path, candidate: str | None = None, seed: int = 0
) -> StageResult:
    """Speak a text in the language with the chosen model, or with a candidate.

    Raises:
        UserError: As `say`.
    """
    _require_words(text)
    _require_sound_file(output)
    track = language_track(params)
    if candidate is None:
        check_made([paths.LANGUAGE_SELECTION], params)
    name = candidate or read_record(paths.LANGUAGE_SELECTION, "language confirm")["chosen"]
    note = "" if candidate else _caution(paths.LANGUAGE_CONFIRM, name)
    tag = "auto" if name == BASE else track.tag
    return _say(params, track, name, track.speakers()[0], text, output, tag, seed, note)


def _say(
    params: Params,
    track: Track,
    name: str,
    speaker: Speaker,
    text: str,
    output: Path,
    tag: str,
    seed: int,
    note: str,
) -> StageResult:
    """Load a candidate, speak and write the file."""
    from voxadapt.core.files import write_atomic
    from voxadapt.data.audio import encode, write_wav
    from voxadapt.generation.decoding import frame_rate_hz, text_tokens, token_limit
    from voxadapt.generation.synthesis import check_voice, speak
    from voxadapt.pipeline.context import open_context
    from voxadapt.pipeline.speaking import load_speaking

    candidate = find_candidate(track, name)
    check_weights(candidate)
    one = next(load_speaking(track, candidate, (speaker,), open_context(params)))
    check_voice(one.tts, one.voice, tag)
    seconds_per_token = track.score.max_seconds_per_token
    limit = token_limit(text_tokens(one.tts, text), seconds_per_token, frame_rate_hz(one.tts))
    spoken = speak(
        one.tts, [text], one.voice, track.score, seeds=[seed], max_new_tokens=[limit], language=tag
    )[0]
    if spoken.samples is None:
        raise UserError(Problem("text", "audio", spoken.message, "Try another seed."))
    rate_hz = one.tts.model.speech_tokenizer.get_output_sample_rate()
    container = SOUND_FORMATS[output.suffix.lower()]
    if container == "WAV":
        write_wav(output, spoken.samples, rate_hz)
    else:
        write_atomic(output, encode(spoken.samples, rate_hz, container))
    cut = " It was cut off at the limit; try another seed." if spoken.hit_max_tokens else ""
    return StageResult(
        f"{output}: {len(spoken.samples) / rate_hz:.1f} s by {name}.{cut}{note}", output
    )


def _caution(path: Path, chosen: str) -> str:
    """Say what the confirmation of the choice leaves open; nothing before there is one."""
    if not path.is_file():
        return ""
    record = read_json(path)
    return wording.caution(record) if record["chosen"] == chosen else ""


def _require_sound_file(output: Path) -> None:
    """Refuse a name that says another format than could be written."""
    if output.suffix.lower() not in SOUND_FORMATS or output.is_dir():
        found = output.suffix or "no suffix"
        expected = f"a name that ends in {', '.join(SOUND_FORMATS)}"
        raise UserError(Problem(f"-o {output}", expected, found, "Choose one of them."))


def _require_words(text: str) -> None:
    if not any(letter.isalnum() for letter in text):
        raise UserError(Problem("text", "something to say", repr(text), "Give a sentence."))
    if tokens := special_tokens(text):
        expected, found = "text without special tokens", ", ".join(tokens[:4])
        raise UserError(Problem("text", expected, found, "Remove them."))

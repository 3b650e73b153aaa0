"""From clips to score rows, and from rows to a candidate's summary.

Candidates, held-out recordings (`real`) and their codec round trip (`codec`) go through the same
function. Nothing is dropped: a clip that could not be made or read keeps its row, with error 1.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxadapt.asr.letters import units
from voxadapt.asr.metrics import char_counts, word_counts
from voxadapt.asr.normalise import (
    Substitutions,
    characters,
    norm_id,
    normalise,
    normalise_pair,
)
from voxadapt.asr.transcript import Transcript
from voxadapt.asr.voice_prints import Embedder, VoicePrint, Wave
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.errors import raise_problems
from voxadapt.core.executor import LOCAL, Executor
from voxadapt.core.files import TORN, replacing, sha256_file
from voxadapt.core.params import ScoreParams, SelectParams
from voxadapt.core.problems import problem
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.data.audio import AudioError, read_audio
from voxadapt.scoring.flags import FLAGS, Shape, clip_flags, measure_shape, retranscribed_flags
from voxadapt.scoring.measures import Sample, fitting_metric
from voxadapt.scoring.naturalness import MosPredictor
from voxadapt.scoring.pitch import Pitch, PitchTracker
from voxadapt.scoring.prosody import prosody
from voxadapt.scoring.rows import SLICES, EvalClip, ScoreRow, evaluator_id, ranked, sort_rows
from voxadapt.scoring.similarity import SimilarityScale, VoiceReference, spoken_chars
from voxadapt.scoring.statistics import (
    DIGITS,
    Array,
    ratio_by_text,
    ratio_interval,
    resample_weights,
    rounded,
)
from voxadapt.scoring.windows import by_window

PSEUDO_CANDIDATES = ("real", "codec")
NO_REFERENCE = "none"  # identity of a similarity that was not measured
WORST_SHARE = 0.05
WINDOW_DIGITS = 3  # a second's similarity is not worth more
CLIPS_AT_ONCE = 64  # whose samples are in memory; enough to fill the speaker encoder's batches
Paths = Sequence[tuple[Path, str]]  # files, and what messages call them
Loaded = tuple[Wave, int] | str  # samples and rate, or why there are none
Sound = tuple[Shape, VoicePrint, Pitch, int]  # outline, voice, melody, samples a second
FROM_CLIP = (
    "candidate", "split", "text_id", "take", "seed", "lang", "text", "slice", "num_frames",
    "hit_max_tokens", "gen_sha", "checkpoint_sha", "message",
)  # fmt: skip
FROM_TRANSCRIPT = ("avg_logprob", "compression_ratio", "no_speech_prob", "lid", "lid_p")
SLICE_MEASURES = ("wer", "wer_raw", "cer", "cer_raw", "sim", "failure_rate")


def score_clips(
    clips: Sequence[EvalClip],
    transcriber: Transcriber,
    embedder: Embedder,
    reference: VoiceReference | None,
    scale: SimilarityScale | None,
    params: ScoreParams,
    *,
    root: Path,
    others: Mapping[str, VoiceReference] | None = None,
    executor: Executor = LOCAL,
    work_dir: Path | None = None,
) -> list[ScoreRow]:
    """Measure clips of one or several candidates, each heard in its own language.

    One row a clip, in canonical order. Samples are read in groups; what is held does not grow with
    their number. Without the speaker's reference similarity is unknown, without its scale the
    duration ratio; `real` and `codec` clips are compared without the recording of the same
    sentence. Each clip is compared to each of the `others`, references of several speakers. Paths
    start from `root`; a stopped run goes on from what `work_dir` keeps.
    """
    assert reference is None or reference.encoder_id == embedder.id, "another encoder's reference"
    failed: dict[int, str] = {
        i: clip.message for i, clip in enumerate(clips) if clip.status != "ok"
    }
    waiting = [index for index in range(len(clips)) if index not in failed]
    groups = [
        waiting[start : start + CLIPS_AT_ONCE] for start in range(0, len(waiting), CLIPS_AT_ONCE)
    ]
    shards = [[(root / clips[i].wav, clips[i].wav) for i in group] for group in groups]
    sounds: dict[int, Sound] = {}
    for number, measured in _measure(shards, embedder, executor, work_dir):
        for index, found in zip(groups[number], measured, strict=True):
            if isinstance(found, str):
                failed[index] = found
            else:
                sounds[index] = found
    usable = sorted(sounds)
    recognised = transcriber.transcribe_each(
        [root / clips[i].wav for i in usable],
        [clips[i].text for i in usable],
        [clips[i].lang for i in usable],
        executor,
    )
    transcripts = dict(zip(usable, recognised, strict=True))
    opinions: dict[int, float] = {}
    if params.mos:
        predictor = MosPredictor(embedder.device)
        opinions = {i: predictor.predict([read_audio(root / clips[i].wav)])[0] for i in usable}
    rows, own = [], transcriber.own
    asr_ids = {lang: transcriber.in_language(lang).asr_id for lang in {c.lang for c in clips}}
    for index, clip in enumerate(clips):
        values = _identity(clip, asr_ids[clip.lang], reference, own)
        if index in failed:
            rows.append(_failed_row(values, clip, failed[index]))
            continue
        shape, voice, pitch, sample_rate_hz = sounds[index]
        values |= {
            "wav": clip.wav,
            "wav_sha256": sha256_file(root / clip.wav),
            "sample_rate_hz": sample_rate_hz,
            **_similarity_values(clip, voice, reference, others, params.min_speech_s),
            "mos": opinions.get(index),
            **{f"f0_{name}": rounded(value) for name, value in asdict(pitch).items()},
        }
        rows.append(_measured_row(values, transcripts[index], shape, voice, scale, params, own))
    return sort_rows(rows)


def _measured_row(
    values: Record,
    transcript: Transcript,
    shape: Shape,
    voice: VoicePrint,
    scale: SimilarityScale | None,
    params: ScoreParams,
    own: Substitutions,
) -> ScoreRow:
    """Return the row of a clip that could be read, from what it holds of clip and similarity."""
    text_norm, lang = values["text_norm"], values["lang"]
    ratio = None
    if scale is not None:
        ratio = shape.spoken_s / scale.rate.expected_s(spoken_chars(text_norm))
    recognised = _transcript_values(values["text"], lang, transcript, own)
    flags = clip_flags(
        params,
        shape,
        transcript,
        hyp_norm=recognised["hyp_norm"],
        text_norm=text_norm,
        lang=lang,
        dur_ratio=ratio,
        speech_s=voice.speech_s,
        hit_max_tokens=values["hit_max_tokens"],
        voice=()
        if scale is None or scale.limits is None
        else scale.limits.flags(values["window_sims"], values["f0_jump_st"]),
    )
    outline = {name: rounded(value) for name, value in asdict(shape).items() if name != "end_db"}
    return ScoreRow(
        **values,
        **recognised,
        **outline,
        speech_s=rounded(voice.speech_s),
        dur_ratio=rounded(ratio),
        flags=flags,
        status="ok",
    )


def _measure(
    shards: Sequence[Paths], embedder: Embedder, executor: Executor, work_dir: Path | None
) -> Iterator[tuple[int, list[Sound | str]]]:
    """Yield each group's position, and what its clips sound like or why one cannot be measured."""
    files: dict[int, Path] = {}
    waiting = []
    for number, clips in enumerate(shards):
        if work_dir is not None and all(path.is_file() for path, _ in clips):
            hashes = [sha256_file(path) for path, _ in clips]
            key = fingerprint([embedder.id, embedder.device, hashes])
            files[number] = work_dir / f"{key}.npz"
            stored = _load(files[number], len(clips))
            if stored is not None:
                yield number, [*stored]
                continue
        waiting.append(number)
    left = [shards[number] for number in waiting]
    for position, measured in executor.run(left, _load_audio, _embed, embedder, embedder.reload):
        number = waiting[position]
        sounds = [item for item in measured if not isinstance(item, str)]
        if number in files and len(sounds) == len(measured):
            _store(files[number], sounds)
        yield number, measured


def _load_audio(clips: Paths) -> list[Loaded]:
    """Read the clips of one group: samples and rate, or why not."""
    loaded: list[Loaded] = []
    for path, name in clips:
        try:
            found = read_audio(path)
        except AudioError as error:
            loaded.append(f"cannot read {name}: {' '.join(str(error).split())}")
            continue
        fine = np.isfinite(found[0]).all()
        loaded.append(found if fine else f"{name} has samples that are no numbers")
    return loaded


def _embed(embedder: Embedder, loaded: Sequence[Loaded]) -> list[Sound | str]:
    """Measure the clips of one group that could be read."""
    speeches = [embedder.prepare(item) for item in loaded if not isinstance(item, str)]
    windows = embedder.embed_windows(speeches)
    voices = iter(zip(embedder.embed_speech(speeches), windows, strict=True))
    tracker = PitchTracker()
    found: list[Sound | str] = []
    for item in loaded:
        if isinstance(item, str):
            found.append(item)
            continue
        voice, seconds = next(voices)
        voice = replace(voice, windows=seconds)
        found.append((measure_shape(*item), voice, tracker.measure(*item), item[1]))
    return found


def _store(path: Path, sounds: Sequence[Sound]) -> None:
    """Keep what a group of clips sounds like: the numbers of each clip, and its vectors."""
    numbers = [(*astuple(s), *astuple(p), v.speech_s, rate) for s, v, p, rate in sounds]
    arrays: Record = {"numbers": np.array(numbers, float)}
    for i, (_, voice, _, _) in enumerate(sounds):
        nothing = np.zeros(0, np.float32)
        arrays[f"voice{i}"] = nothing if voice.embedding is None else voice.embedding
        arrays[f"windows{i}"] = voice.windows
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)


def _load(path: Path, count: int) -> list[Sound] | None:
    """Read what `_store` kept of so many clips; None where it is absent or torn."""
    found: list[Sound] = []
    try:
        with np.load(path, allow_pickle=False) as stored:
            for i, row in enumerate(stored["numbers"].tolist()):
                values: list[Any] = [None if np.isnan(value) else value for value in row]
                shape = Shape(*values[:8])
                shape = replace(shape, num_pauses=int(shape.num_pauses))
                voice, windows = stored[f"voice{i}"], stored[f"windows{i}"]
                vector = VoicePrint(voice if voice.size else None, values[-2], windows)
                found.append((shape, vector, Pitch(*values[8:-2]), int(values[-1])))
    except TORN:
        return None
    return found if len(found) == count else None


def retranscribe(
    rows: Sequence[ScoreRow], transcriber: Transcriber, *, root: Path, executor: Executor = LOCAL
) -> list[ScoreRow]:
    """Transcribe clips that are scored already with another recogniser, in canonical order.

    Transcripts, errors and flags are then those of the other one; a clip that failed stays failed.

    Raises:
        UserError: When a clip is not the one that was scored.
    """
    rows = sort_rows(rows)
    usable = [row for row in rows if row.status == "ok"]
    problems = [
        problem("scoring.another_clip", row.wav)
        for row in usable
        if sha256_file(root / row.wav) != row.wav_sha256
    ]
    raise_problems(problems[:50], "A second recogniser must hear the same clips.")
    transcripts = transcriber.transcribe_each(
        [root / row.wav for row in usable],
        [row.text for row in usable],
        [row.lang for row in usable],
        executor,
    )
    found = {}
    for row, transcript in zip(usable, transcripts, strict=True):
        values = _transcript_values(row.text, row.lang, transcript, transcriber.own)
        values["flags"] = retranscribed_flags(
            row.flags,
            transcript,
            hyp_norm=values["hyp_norm"],
            text_norm=row.text_norm,
            lang=row.lang,
        )
        found[row.candidate, *row.key] = values
    asr = {row.lang: {"asr_id": transcriber.in_language(row.lang).asr_id} for row in rows}
    return [
        ScoreRow.model_validate(
            row.model_dump() | asr[row.lang] | found.get((row.candidate, *row.key), {})
        )
        for row in rows
    ]


def _transcript_values(text: str, lang: str, transcript: Transcript, own: Substitutions) -> Record:
    """Return what a row holds of a transcript."""
    text_norm, hyp_norm = normalise_pair(text, transcript.text, lang, own)
    words, chars = word_counts(text_norm, hyp_norm), char_counts(text_norm, hyp_norm)
    return {
        "hyp": transcript.text,
        "hyp_norm": hyp_norm,
        **{f"word_{name}": value for name, value in asdict(words).items()},
        **{f"char_{name}": value for name, value in asdict(chars).items()},
        **{name: getattr(transcript, name) for name in FROM_TRANSCRIPT},
    }


def _similarity_values(
    clip: EvalClip,
    voice: VoicePrint,
    reference: VoiceReference | None,
    others: Mapping[str, VoiceReference] | None,
    min_speech_s: float,
) -> Record:
    """Compare a clip with its speaker's recordings, and with those of each of several speakers."""
    leave_out = clip.text_id if clip.candidate in PSEUDO_CANDIDATES else None
    if reference is None:
        return {"sim": None, "sim_ref_n": 0, "sim_to": None, "window_sims": None}
    values: Record = {"sim": None, "sim_ref_n": reference.num_clips(leave_out), "sim_to": None}
    values["window_sims"] = None
    if voice.windows is not None:
        found = reference.similarities(voice.windows, leave_out)
        values["window_sims"] = tuple(round(value, WINDOW_DIGITS) for value in found)
    if voice.embedding is None or voice.speech_s < min_speech_s:
        return values
    values["sim"] = rounded(reference.similarity(voice.embedding, leave_out))
    if others:
        values["sim_to"] = {
            name: round(other.similarity(voice.embedding, leave_out), DIGITS)
            for name, other in others.items()
        }
    return values


def _identity(
    clip: EvalClip, asr_id: str, reference: VoiceReference | None, own: Substitutions
) -> Record:
    """Return what a row holds whether or not the clip could be measured."""
    text_norm = normalise(clip.text, clip.lang, own)
    if not text_norm:
        raise ValueError(f"text {clip.text_id} ({clip.text!r}) has nothing to be scored")
    return {
        **{name: getattr(clip, name) for name in FROM_CLIP},
        "text_norm": text_norm,
        "norm_id": norm_id(clip.lang, own),
        "ref_words": len(units(text_norm)),
        "ref_chars": len(characters(text_norm)),
        "asr_id": asr_id,
        "sim_id": NO_REFERENCE if reference is None else reference.sim_id,
    }


def _failed_row(values: Record, clip: EvalClip, message: str) -> ScoreRow:
    """Return the row of a clip that is not there: every word and character is lost."""
    measured = [name for name, field in ScoreRow.model_fields.items() if field.is_required()]
    counts = {name: 0 for name in measured if name.startswith(("word_", "char_"))}
    lost = {
        "word_deletions": values["ref_words"],
        "char_deletions": values["ref_chars"],
        "wav": clip.wav,
        "wav_sha256": "",
        "hyp": "",
        "hyp_norm": "",
        "sim_ref_n": 0,
        "flags": ("hit_max_tokens",) if clip.hit_max_tokens else (),
        "status": "failed",
        "message": message or "no audio",
    }
    return ScoreRow.model_validate(dict.fromkeys(measured) | counts | values | lost)


def summarise(
    rows: Sequence[ScoreRow], params: SelectParams, scale: SimilarityScale | None = None
) -> Record:
    """Summarise all rows of one candidate on one split; see the README for every key.

    What is ranked on is measured on sentences without digits alone; `slices` holds both kinds
    apart. Intervals resample texts with all their takes.
    """
    everything = sort_rows(rows)
    assert everything and len({(row.candidate, row.split) for row in everything}) == 1
    rows = ranked(everything)
    spoken = sorted({row.lang for row in rows})
    by_language = {lang: summarise([row for row in everything if row.lang == lang], params, scale)
                   for lang in spoken if len(spoken) > 1}  # fmt: skip
    floor = None if scale is None else scale.floor.point
    sample = Sample(rows, params.error_metric, floor)
    weights = resample_weights(len(sample.text_ids), params.num_bootstrap, params.seed)
    measured = [row for row in rows if row.status == "ok"]
    similarities = sorted(row.sim for row in rows if row.sim is not None)
    worst = similarities[: max(1, round(WORST_SHARE * len(similarities)))]
    speech = [row.speech_s for row in measured if row.speech_s is not None]
    durations = [row.duration_s for row in measured if row.duration_s is not None]
    median_speech = float(np.median(speech)) if speech else None
    matched = None
    if scale is not None and median_speech is not None:
        matched = scale.ceiling_at(median_speech)
    counts = Counter(flag for row in rows for flag in row.flags)
    ceiling = None if scale is None else scale.top.point
    intervals = sample.intervals(weights, params.confidence, ceiling, floor)
    return {
        "schema": "voxadapt-summary/1",
        "candidate": rows[0].candidate,
        "split": rows[0].split,
        "lang": rows[0].lang,
        "error_metric": fitting_metric((row.lang, row.text_norm) for row in rows),
        "num_texts": len(sample.text_ids),
        "takes": max(row.take for row in rows) + 1,
        "n_expected": len(rows),
        "n_measured": len(measured),
        "n_failed": len(rows) - len(measured),
        "evaluator": evaluator_id(everything),
        "checkpoint_sha": rows[0].checkpoint_sha,
        **{name: value.as_dict() for name, value in intervals.items()},
        "sim_missing": len(rows) - len(similarities),
        "sim_worst_5pct": rounded(float(np.mean(worst))) if similarities else None,
        "sim_ceiling_matched": rounded(matched),
        "median_duration_s": rounded(float(np.median(durations))) if durations else None,
        "median_speech_s": rounded(median_speech),
        "flags": {flag: counts[flag] for flag in FLAGS},
        "slices": slices(everything, params, floor),
        "windows": by_window(rows, params),
        "prosody": prosody(rows, (), params),
        **_naturalness(sample, weights, params),
        **({"languages": by_language} if by_language else {}),
        "confidence": params.confidence,
        "num_bootstrap": params.num_bootstrap,
        "bootstrap_seed": params.seed,
    }


def _naturalness(sample: Sample, weights: Array, params: SelectParams) -> Record:
    """Return the mean predicted opinion, `mos`; nothing where none was predicted."""
    found = [(row.text_id, row.mos) for row in sample.rows if row.mos is not None]
    if not found:
        return {}
    ratio = ratio_by_text(sample.text_ids, [key for key, _ in found], [mos for _, mos in found])
    return {"mos": ratio_interval(ratio, weights, len(found), params.confidence).as_dict()}


def slices(
    rows: Sequence[ScoreRow], params: SelectParams, floor: float | None
) -> dict[str, Record]:
    """Measure each slice that one candidate's rows on one split have."""
    found: dict[str, Record] = {}
    for name in SLICES:
        kept = [row for row in rows if row.slice == name]
        if not kept:
            continue
        sample = Sample(kept, params.error_metric, floor)
        weights = resample_weights(len(sample.text_ids), params.num_bootstrap, params.seed)
        intervals = sample.intervals(weights, params.confidence, None, floor)
        found[name] = {
            "num_texts": len(sample.text_ids),
            "n_expected": len(kept),
            "n_measured": sum(row.status == "ok" for row in kept),
            **{key: intervals[key].as_dict() for key in SLICE_MEASURES},
        }
    return found


def metrics_row(summary: Record, source: Record | None = None) -> dict[str, float | int | None]:
    """Flatten a summary to what `dvc metrics show` tabulates: one row, within 120 columns.

    `source` is the summary of the source language, where another one is adapted to. Intervals are
    in the table of epochs and on the page.
    """
    names = {"wer": "wer", "cer": "cer", "sim": "sim", "duration": "duration_ratio",
             "failures": "failure_rate"}  # fmt: skip
    points = {name: summary[key]["point"] for name, key in names.items()}
    if source is not None:
        points["source_cer"] = source["cer"]["point"]
    row = {name: None if value is None else round(value, 5) for name, value in points.items()}
    return row | {"n": summary["n_expected"]}

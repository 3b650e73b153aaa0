"""The stages: here the rooms meet, and only here.

Each function reads what earlier stages wrote (`paths.py`), calls the rooms and writes its own
files. Notebooks, the command line and DVC all call these functions; run from the project folder.
"""

from __future__ import annotations

import functools
import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxadapt.core import launch as processes
from voxadapt.core import paths
from voxadapt.core.errors import (
    Problem,
    UserError,
    is_out_of_memory,
    out_of_memory,
    storage_problem,
)
from voxadapt.core.executor import LOCAL, Executor, RayData, worker_device
from voxadapt.core.files import read_json, read_jsonl, sha256_file, sha256_folder, write_json
from voxadapt.core.locks import file_lock
from voxadapt.core.params import Params, candidate_name, epoch_number
from voxadapt.core.paths import SPEAKER, Corpus
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audit import audit_corpus, write_audit
from voxadapt.data.manifest import MAX_REPEATS, Utterance, read_manifest, read_raw_manifest
from voxadapt.data.speakers import Speaker, choose_speakers, list_speakers
from voxadapt.data.voices import read_other_voices

ROOT = Path()
HELD_OUT = ("selection", "confirmation")


#: What takes the memory of a stage.
MEMORY = {
    "audit": "asr.batch_size",
    "codes": "codes.batch_seconds",
    "train": "train.batch_size",
    "stage1": "language.stage1.batch_size",
    "stage2": "language.stage2.batch_size",
}


def guarded(stage: Callable[..., StageResult]) -> Callable[..., StageResult]:
    """Have a second run of a stage wait for the first; explain what the machine cannot give.

    The same stage of the same corpus and candidate runs once at a time; stages that write other
    files run side by side. A full disk and a lack of memory become user errors.
    """
    shape = inspect.signature(stage)
    room = stage.__module__.rpartition(".")[2].removesuffix("stages")

    @functools.wraps(stage)
    def run(*args: Any, **options: Any) -> StageResult:
        given = shape.bind(*args, **options)
        given.apply_defaults()
        parts = [room + stage.__name__]
        if "candidate" in given.arguments:
            parts.append(candidate_name(given.arguments["candidate"]))
        if given.arguments.get("at", SPEAKER) != SPEAKER:
            parts.append("language")
        if processes.num_processes() > 1 and parts[0] != "train":
            raise UserError(
                Problem(f"the launch of {parts[0]}", "one process",
                        f"{processes.num_processes()} processes",
                        "Only `voxadapt train` shares its work; run this one without a launcher.")
            )  # fmt: skip
        lock = file_lock(paths.work_dir() / "locks", "-".join(parts))
        with lock if processes.is_main() else nullcontext():
            try:
                return stage(*args, **options)
            except Exception as error:
                if is_out_of_memory(error):
                    setting = MEMORY.get(stage.__name__, "score.batch_size and asr.batch_size")
                    raise out_of_memory(error, setting) from None
                where = str(getattr(error, "filename", None) or parts[0])
                if problem := storage_problem(error, where):
                    raise UserError(problem, "A file could not be written.") from None
                raise

    return run


@dataclass(frozen=True)
class StageResult:
    """What a stage says when it is done.

    Attributes:
        sentence: The outcome, for people.
        values: The main record that was written.
    """

    sentence: str
    values: Any = None


# --- data and codes ------------------------------------------------------------------------------


@guarded
def audit(params: Params, at: Corpus = SPEAKER) -> StageResult:
    """Check the corpus, accept its clips and split them by text.

    Args:
        params: All parameters.
        at: Where the corpus' files are kept.

    Raises:
        UserError: With every error in the corpus.
    """
    rows, problems = read_raw_manifest(params.data.manifest)
    if at != SPEAKER:
        problems += [
            Problem(row.where, "recordings of one voice", f"the speaker {row.speaker!r}",
                    "Drop the key: a language is measured with a single voice.")
            for row in rows if row.speaker is not None
        ][:MAX_REPEATS]  # fmt: skip

    def transcribe(clips: list[Path], texts: list[str]) -> list[str]:
        found = _transcriber(params).transcribe(clips, texts, executor_of(params))
        return [heard.text for heard in found]

    result = audit_corpus(
        rows, params.audit, params.split, params.data.manifest, problems, transcribe
    )
    write_audit(result, at.manifest, at.clips, at.audit_metrics)
    return StageResult(result.sentence, result.metrics)


@guarded
def codes(params: Params, at: Corpus = SPEAKER) -> StageResult:
    """Extract the corpus' codes; score held-out recordings and their codec round trip.

    The round trip is the ceiling of everything that follows: no talker can sound better than the
    codec through which it speaks.

    Args:
        params: All parameters.
        at: Where the corpus' files are kept.
    """
    from voxadapt.codec.extract import decode_codes, extract_codes
    from voxadapt.codec.store import write_codes
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.data.audio import write_wav
    from voxadapt.model.load import load_speech_tokenizer
    from voxadapt.scoring.planning import plan_power
    from voxadapt.scoring.rows import EvalClip, write_rows
    from voxadapt.scoring.score_clips import score_clips, summarise
    from voxadapt.scoring.similarity import Embedder, build_scale

    device = device_of(params)
    utterances = accepted(at)
    model_path = resolve_model(params.model)
    tokenizer = load_speech_tokenizer(model_path, device)
    codec_sha256 = sha256_folder(model_path / "speech_tokenizer")
    executor = executor_of(params)
    arrays = extract_codes(
        utterances,
        tokenizer,
        params.codes.batch_seconds,
        paths.work_dir(),
        codec_sha256,
        executor=executor,
        load=functools.partial(load_speech_tokenizer, model_path, worker_device(str(device))),
    )
    write_codes(at.codes, at.codes_index, arrays, utterances, codec_sha256)

    held_out = [row for row in utterances if row.split in HELD_OUT]
    embedder = Embedder(str(device))
    clips: dict[str, list[EvalClip]] = {
        "real": [_clip(row, "real", row.audio, params) for row in held_out]
    }
    others = {}
    if params.data.other_voices is not None:
        others = read_other_voices(params.data.other_voices)
    talkers = speakers_of(params, at)
    excluded = _never_in_the_reference(utterances)
    if not talkers:
        reference, scale = build_scale(
            embedder,
            clips["real"],
            others,
            params.select,
            root=ROOT,
            min_speech_s=params.score.min_speech_s,
            excluded_sha256=excluded,
        )
    folder = at.reference / "codec" / "wavs"
    waves = decode_codes({row.id: arrays[row.id] for row in held_out}, tokenizer)
    clips["codec"] = []
    for row in held_out:
        path = folder / f"{row.id}.wav"
        write_wav(path, _pcm16(waves[row.id]), tokenizer.get_output_sample_rate())
        clips["codec"].append(_clip(row, "codec", path.as_posix(), params))

    transcriber = _transcriber(params)
    summaries: dict[str, Any] = {}
    shutil.rmtree(at.reference / "speakers", ignore_errors=True)
    if talkers:
        rows, scale, voices = _recordings_of(
            params, at, talkers, clips, others, excluded, embedder, transcriber, executor
        )
    else:
        rows, voices = {}, {}
        for name, listed in clips.items():
            rows[name] = score_clips(
                listed,
                transcriber,
                embedder,
                reference,
                scale,
                params.score,
                root=ROOT,
                executor=executor,
                work_dir=_sounds_dir(params),
            )
        scale = scale.with_codec(rows["codec"], params.select)
    for name, scored in rows.items():
        write_rows(at.reference / name, scored)
    for name, scored in rows.items():
        per_split = {
            split: summarise([row for row in scored if row.split == split], params.select, scale)
            for split in HELD_OUT
            if any(row.split == split for row in scored)
        }
        write_json(at.reference / name / "summary.json", per_split["selection"])
        summaries[name] = per_split
    if talkers:
        at.voice.unlink(missing_ok=True)
        write_json(at.scale, scale.as_dict() | {"speakers": voices["scales"]})
    else:
        reference.write(at.voice)
        scale.write(at.scale)
    planned = plan_power(
        rows["real"],
        rows["codec"],
        {
            split: sum(item.slice == "ranked" for item in sentences(params, split, at))
            for split in HELD_OUT
            if any(row.split == split for row in held_out)
        },
        params.score.takes * max(1, len(talkers)),
        params.select,
    )
    write_json(at.planning, planned)
    frames = {name: len(array) for name, array in arrays.items()}
    metrics = {
        "codec_sha256": codec_sha256,
        "num_clips": len(arrays),
        "num_codebooks": int(next(iter(arrays.values())).shape[1]),
        "num_frames": sum(frames.values()),
        "num_train_frames": sum(frames[row.id] for row in utterances if row.split == "train"),
        **summaries,
        **({"speakers": voices} if voices else {}),
    }
    write_json(at.codes_metrics, metrics)
    real, codec = summaries["real"]["selection"], summaries["codec"]["selection"]
    return StageResult(
        f"{len(arrays)} clips, {metrics['num_frames']} frames of {metrics['num_codebooks']} codes. "
        f"Held-out recordings: WER {percent(real['wer'])}, similarity {_number(scale.ceiling)}; "
        f"through the codec: WER {percent(codec['wer'])}, "
        f"similarity {_number(scale.codec_ceiling)}. {planned['text']}",
        metrics,
    )


def _recordings_of(
    params: Params,
    at: Corpus,
    talkers: Sequence[Speaker],
    clips: Mapping[str, Sequence[Any]],
    others: Mapping[str, Sequence[Path]],
    excluded: set[str],
    embedder: Any,
    transcriber: Any,
    executor: Executor,
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Measure several speakers' recordings and round trips, each against its own reference.

    Who sounds like whom is asked of recordings against recordings, and of coded ones against coded
    ones, as of everything that a model says: the codec's colour is common to all of them.

    Returns:
        Rows of `real` and `codec`, the scale of all speakers, and for the records: the scale of
        each and who is taken for whom.
    """
    from voxadapt.scoring.score_clips import score_clips
    from voxadapt.scoring.similarity import build_reference, build_scale, pooled_scale
    from voxadapt.scoring.speakers import confusion, pool, pooled_sim_id

    own = {key: speaker.name for speaker in talkers for key in speaker.ids}
    references, coded, scales = {}, {}, {}
    for speaker in talkers:
        voices = {name: list(found) for name, found in others.items()}
        voices |= {who.name: [] for who in talkers}
        for clip in clips["real"]:
            voices[own[clip.text_id]].append(ROOT / clip.wav)
        real = [clip for clip in clips["real"] if clip.text_id in speaker.ids]
        del voices[speaker.name]
        try:
            references[speaker.name], scales[speaker.name] = build_scale(
                embedder,
                real,
                voices,
                params.select,
                root=ROOT,
                min_speech_s=params.score.min_speech_s,
                excluded_sha256=excluded,
            )
        except UserError as error:
            problems = [
                replace(problem, where=f"speaker {speaker.name}: {problem.where}")
                for problem in error.problems
            ]
            raise UserError(problems, error.title) from None
        coded[speaker.name] = build_reference(
            embedder, [clip for clip in clips["codec"] if clip.text_id in speaker.ids], ROOT
        )
    sim_id = pooled_sim_id({name: reference.sim_id for name, reference in references.items()})
    rows = {}
    for name, listed in clips.items():
        by_speaker = {
            speaker.name: score_clips(
                [clip for clip in listed if clip.text_id in speaker.ids],
                transcriber,
                embedder,
                references[speaker.name],
                scales[speaker.name],
                params.score,
                root=ROOT,
                others=references if name == "real" else coded,
                executor=executor,
                work_dir=_sounds_dir(params),
            )
            for speaker in talkers
        }
        if name == "codec":
            scales = {
                speaker: scale.with_codec(by_speaker[speaker], params.select)
                for speaker, scale in scales.items()
            }
        rows[name] = pool(by_speaker, own, 1, sim_id)
    for speaker in talkers:
        references[speaker.name].write(at.voice_of(speaker.folder))
        coded[speaker.name].write(at.coded_voice_of(speaker.folder))
        scales[speaker.name].write(at.scale_of(speaker.folder))
    voices_record = {
        "scales": {
            name: {
                "sim_id": scale.sim_id,
                "ceiling": scale.ceiling.as_dict(),
                "codec_ceiling": scale.codec_ceiling.as_dict(),
                "floor": scale.floor.as_dict(),
            }
            for name, scale in scales.items()
        },
        "confusion": {name: confusion(found, params.select) for name, found in rows.items()},
    }
    return rows, pooled_scale(scales, sim_id), voices_record


# --- training ------------------------------------------------------------------------------------


@guarded
def train(params: Params, num_epochs: int | None = None) -> StageResult:
    """Fine-tune the Base on the speaker; publish one checkpoint per epoch.

    Args:
        params: All parameters.
        num_epochs: Epochs in all; the last candidate's when None.
    """
    from voxadapt.core.model_folder import resolve_model
    from voxadapt.training.trainer import train as run

    utterances = accepted(SPEAKER)
    model_path = resolve_model(params.model)
    arrays = corpus_codes(model_path, utterances, SPEAKER)
    base_sha256 = sha256_folder(model_path)
    learnt = _learnt_speakers(params, model_path)
    if learnt:
        utterances = [row for row in utterances if any(row.id in who.ids for who in learnt)]
    result = run(
        params.train,
        model_path=model_path,
        utterances=utterances,
        codes=arrays,
        ref_audio=utterances[0].ref_audio,
        speakers={who.name: who.ref_audio for who in learnt} or None,
        out_dir=paths.CHECKPOINTS,
        work_dir=paths.work_dir(),
        num_epochs=num_epochs or params.num_epochs,
        log_path=paths.TRAIN_LOG,
        device=device_of(params),
        attention=params.model.attention,
        base_sha256=base_sha256,
    )
    # What the zero-shot candidate is, so that every candidate has a folder here.
    if processes.is_main():
        write_json(
            paths.CHECKPOINTS / "base" / "meta.json",
            {"epoch": 0, "model": params.model.base, "base_sha256": base_sha256},
        )
        write_json(paths.TRAIN_METRICS, result.metrics)
    processes.destroy_process_group()
    last = result.checkpoints[-1].name
    whose = ", ".join(who.name for who in learnt) or params.train.speaker_name
    return StageResult(
        f"{len(result.checkpoints)} checkpoints of speaker{'s' if len(learnt) > 1 else ''} "
        f"{whose}, the last one {paths.CHECKPOINTS / last}.",
        result.metrics,
    )


def _learnt_speakers(params: Params, model_path: Path) -> tuple[Speaker, ...]:
    """List the speakers that are trained; none where the manifest names none.

    Raises:
        UserError: When a speaker is neither trained nor in the model already.
    """
    talkers = speakers_of(params)
    learnt = choose_speakers(talkers, params.train.speakers)
    names = {who.name for who in learnt}
    there = _speakers_of_model(model_path)
    missing = [who.name for who in talkers if who.name not in names]
    problems = [
        Problem(f"speaker {name}", "a speaker that is learnt, or that model.base has",
                f"a model with {', '.join(sorted(there)) or 'no speakers'}",
                "Add the name to train.speakers, or drop its rows from the manifest.")
        for name in missing if name.lower() not in there
    ]  # fmt: skip
    if problems:
        raise UserError(problems, "Not every speaker of the manifest can be spoken.")
    return learnt


# --- scores and decision -------------------------------------------------------------------------


@guarded
def score(params: Params, candidate: str | int) -> StageResult:
    """Speak the selection sentences with one candidate and measure every clip."""
    from voxadapt.scoring.score_clips import metrics_row

    name = _known(params, candidate)
    summary = _score(params, name, "selection", paths.SCORES / name)
    write_json(paths.SCORE_METRICS / f"{name}.json", metrics_row(summary))
    return StageResult(score_sentence(name, summary), summary)


@guarded
def select(params: Params) -> StageResult:
    """Choose the epoch by the rule in `params.select`, or keep the Base.

    Raises:
        UserError: When a candidate's scores are missing, stale or by another evaluator, or when
            there are scores of a candidate that is not listed.
    """
    from voxadapt.scoring.rows import read_scores
    from voxadapt.selection import select as selection

    _refuse_unlisted(params)
    spoken = sentences(params, "selection")
    talkers = speakers_of(params)
    takes = params.score.takes * max(1, len(talkers))
    rows = {
        name: read_scores(
            paths.SCORES / name,
            [(item.text_id, take) for item in spoken for take in range(takes)],
            texts={item.text_id: item.text for item in spoken},
            split="selection",
            checkpoint_sha=_checkpoint_sha(params, name),
            fix=f"Run `voxadapt score {name}` again.",
        )
        for name in params.candidate_names
    }
    held_out = held_out_keys(SPEAKER)
    pseudo = {name: read_scores(paths.REFERENCE / name, held_out) for name in ("real", "codec")}
    decision = selection.select(
        rows,
        params.select,
        scale=read_record(SPEAKER.scale, "codes"),
        real=pseudo["real"],
        codec=pseudo["codec"],
        kept=_kept_speakers(params, talkers),
    )
    write_json(paths.SELECTION, decision)
    _write_epochs_table(decision)
    return StageResult(decision["reason"], decision)


@guarded
def confirm(params: Params) -> StageResult:
    """Compare the chosen candidate with the Base on the split that nothing has touched."""
    from voxadapt.scoring.rows import read_scores
    from voxadapt.selection.confirm import confirm as compare_with_base

    decision = _selection()
    chosen = decision["chosen"]
    wanted = finalists(paths.CONFIRMATION, chosen)
    rows = {}
    for name in wanted:
        _score(params, name, "confirmation", paths.CONFIRMATION / name)
        rows[name] = read_scores(paths.CONFIRMATION / name, split="confirmation")
    record = compare_with_base(
        rows["base"],
        rows[chosen],
        params.select,
        scale=read_record(SPEAKER.scale, "codes"),
        selection=decision,
    )
    folders = {name: paths.CONFIRMATION / name for name in wanted}
    record["second_asr"] = second_opinion(params, rows, folders, chosen)
    write_json(paths.CONFIRM, record)
    return StageResult(record["sentence"], record)


def listen(
    params: Params,
    pairs: Sequence[tuple[str, str]] | None = None,
    num_sentences: int | None = None,
    out: Path = paths.LISTEN,
) -> StageResult:
    """Write the blind listening pages and their key.

    Args:
        params: All parameters.
        pairs: Whom to compare; the parameters' pairs when None.
        num_sentences: How many sentences; the parameters' number when None.
        out: Folder to write.
    """
    from voxadapt.listening.pages import write_listening

    key = write_listening(params, ROOT, out=out, pairs=pairs, num_sentences=num_sentences)
    compared = ", ".join(f"{first} with {second}" for first, second in key.pairs)
    return StageResult(
        f"{out / 'ab.html'} compares {compared} on {key.split} sentences in "
        f"{len(key.pages['ab'].trials)} trials, {out / 'mos.html'} has "
        f"{len(key.pages['mos'].trials)} clips to rate. Send the pages, keep {out / 'key.json'}.",
        key,
    )


def votes(params: Params, files: Sequence[Path], key: Path) -> StageResult:
    """Read votes that listeners exported; show them in the report, where there is one.

    Args:
        params: All parameters.
        files: Exported files.
        key: The key that was written with the pages.
    """
    from voxadapt.listening.pages import write_votes
    from voxadapt.listening.votes import VOTES_FILE

    summary = write_votes(files, key, params.select.confidence)
    lines = [entry["sentence"] for entry in summary["comparisons"]]
    lines.append(
        f"{summary['num_votes']} votes of {summary['num_listeners']} listeners: "
        f"{key.parent / VOTES_FILE}."
    )
    if key.parent == paths.LISTEN and paths.REPORT.is_file():
        lines.append(_write_report(params).sentence)
    return StageResult("\n".join(lines), summary)


@guarded
def report(params: Params) -> StageResult:
    """Write the listening pages and the report page from what the other stages wrote."""
    listen(params)
    return _write_report(params)


def _write_report(params: Params) -> StageResult:
    from voxadapt.reporting.speaker_page import write_report

    write_report(params)
    return StageResult(f"The report is {paths.REPORT}.", paths.REPORT)


def run_all(params: Params) -> Iterator[str]:
    """Run every stage in order, without DVC; yield one line a stage."""
    yield f"audit: {audit(params).sentence}"
    yield f"codes: {codes(params).sentence}"
    yield f"train: {train(params).sentence}"
    for name in params.candidate_names:
        yield f"score {name}: {score(params, name).sentence}"
    yield f"select: {select(params).sentence}"
    yield f"confirm: {confirm(params).sentence}"
    yield f"report: {report(params).sentence}"


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
        output: WAV file to write.
        candidate: A candidate; None asks `selection.json`.
        seed: Of the sampling.
        speaker: One of several speakers; None takes the first.
    """
    _require_words(text)
    name = _known(params, candidate) if candidate is not None else _selection()["chosen"]
    wanted = (speaker,) if speaker is not None else None
    talkers = choose_speakers(speakers_of(params), wanted, "--speaker")
    tts, voice = next(_voices(params, name, talkers[:1]))[1:3] if talkers else _voice(params, name)
    return say_with(params, tts, voice, text, output, name, params.train.language, seed)


def say_with(
    params: Params,
    tts: Any,
    voice: Any,
    text: str,
    output: Path,
    name: str,
    language: str,
    seed: int,
) -> StageResult:
    """Speak a text with a loaded model and write it.

    Args:
        params: All parameters.
        tts: Stock `Qwen3TTSModel`.
        voice: What it speaks with.
        text: What to say.
        output: WAV file to write.
        name: Name of the candidate, for the sentence.
        language: Language given to the model, or auto.
        seed: Of the sampling.
    """
    from voxadapt.data.audio import write_wav
    from voxadapt.generation.decoding import text_tokens, token_limit
    from voxadapt.generation.synthesis import frame_rate_hz, speak

    _require_words(text)
    seconds_per_token = params.score.max_seconds_per_token
    limit = token_limit(text_tokens(tts, text), seconds_per_token, frame_rate_hz(tts))
    spoken = speak(
        tts,
        [text],
        voice,
        params.score,
        seeds=[seed],
        max_new_tokens=[limit],
        language=language,
    )[0]
    if spoken.samples is None:
        raise UserError(Problem("text", "audio", spoken.message, "Try another seed."))
    rate_hz = tts.model.speech_tokenizer.get_output_sample_rate()
    write_wav(output, spoken.samples, rate_hz)
    cut = " It was cut off at the limit; try another seed." if spoken.hit_max_tokens else ""
    return StageResult(f"{output}: {len(spoken.samples) / rate_hz:.1f} s by {name}.{cut}", output)


def _require_words(text: str) -> None:
    if not any(letter.isalnum() for letter in text):
        raise UserError(Problem("text", "something to say", repr(text), "Give a sentence."))


# --- what the stages share -----------------------------------------------------------------------


def finalists(confirmation: Path, chosen: str) -> list[str]:
    """Name who is confirmed, the Base and the choice; drop the scores of earlier choices."""
    wanted = list(dict.fromkeys(["base", chosen]))
    for folder in confirmation.glob("*"):
        if folder.is_dir() and folder.name not in wanted:
            shutil.rmtree(folder)
    return wanted


def second_opinion(
    params: Params, rows: Mapping[str, Any], folders: Mapping[str, Path], chosen: str
) -> dict[str, Any] | None:
    """Let a second recogniser hear the finalists, if the parameters name one.

    Args:
        params: All parameters.
        rows: Rows of the Base and the chosen candidate as the first recogniser heard them.
        folders: Where each candidate's scores lie; the second transcripts are written beside.
        chosen: The candidate that is kept.

    Returns:
        What `evaluation.agreement.second_opinion` says; None when `asr.second` is null.
    """
    from voxadapt.core.files import write_atomic
    from voxadapt.scoring.rows import SECOND_FILE, serialise_rows
    from voxadapt.scoring.score_clips import rehear
    from voxadapt.selection.second_opinion import second_opinion as compare

    if params.asr.second is None:
        for folder in folders.values():
            (folder / SECOND_FILE).unlink(missing_ok=True)
        return None
    transcriber = _transcriber(params, params.asr.second)
    executor = executor_of(params)
    heard = {
        name: rehear(found, transcriber, root=ROOT, executor=executor)
        for name, found in rows.items()
    }
    for name, found in heard.items():
        write_atomic(folders[name] / SECOND_FILE, serialise_rows(found))
    return compare(rows, heard, params.select, chosen=chosen)


def _score(params: Params, name: str, split: str, folder: Path) -> dict[str, Any]:
    """Speak and measure one candidate on one split; write its rows, clips and summary."""
    from voxadapt.model.load import load_tts

    if talkers := speakers_of(params):
        return _score_speakers(params, name, split, folder, talkers)
    tts, voice = _voice(params, name)
    return score_voice(
        params,
        tts,
        voice,
        name,
        sentences(params, split),
        folder,
        checkpoint_sha=_checkpoint_sha(params, name),
        language=params.train.language,
        load=functools.partial(
            load_tts, _model_folder(params, name), attention=params.model.attention
        ),
    )


def _score_speakers(
    params: Params, name: str, split: str, folder: Path, talkers: Sequence[Speaker]
) -> dict[str, Any]:
    """Have every speaker of a candidate speak the sentences; write them as one candidate's."""
    from voxadapt.generation.synthesis import speak_candidate
    from voxadapt.scoring.rows import write_rows
    from voxadapt.scoring.score_clips import score_clips, summarise
    from voxadapt.scoring.similarity import Embedder, SimilarityScale
    from voxadapt.scoring.speakers import confusion, pool

    spoken = sentences(params, split)
    references = {who.name: _read_voice(SPEAKER.voice_of(who.folder)) for who in talkers}
    coded = {who.name: _read_voice(SPEAKER.coded_voice_of(who.folder)) for who in talkers}
    scales = {
        who.name: SimilarityScale.from_dict(read_record(SPEAKER.scale_of(who.folder), "codes"))
        for who in talkers
    }
    embedder, transcriber = Embedder(str(device_of(params))), _transcriber(params)
    executor, checkpoint_sha = executor_of(params), _checkpoint_sha(params, name)
    rows = {}
    for who, tts, voice, load in _voices(params, name, talkers):
        clips = speak_candidate(
            tts,
            f"{name}, {who.name}",
            spoken,
            voice,
            params.score,
            out_dir=folder / "wavs" / who.folder,
            work_dir=paths.work_dir() / "speech",
            root=ROOT,
            checkpoint_sha=checkpoint_sha,
            lang=params.asr.language,
            language=params.train.language,
            executor=executor,
            load=functools.partial(load, worker_device(str(device_of(params)))),
        )
        rows[who.name] = score_clips(
            [clip.model_copy(update={"candidate": name}) for clip in clips],
            transcriber,
            embedder,
            references[who.name],
            scales[who.name],
            params.score,
            root=ROOT,
            others=coded,
            executor=executor,
            work_dir=_sounds_dir(params),
        )
    scale = scale_of(SPEAKER)
    own = {key: who.name for who in talkers for key in who.ids}
    pooled = pool(rows, own, params.score.takes, scale.sim_id)
    write_rows(folder, pooled)
    summary = summarise(pooled, params.select, scale)
    summary["speakers"] = {
        speaker: summarise(found, params.select, scales[speaker]) for speaker, found in rows.items()
    }
    summary["confusion"] = confusion(pooled, params.select)
    write_json(folder / "summary.json", summary)
    return summary


def score_voice(
    params: Params,
    tts: Any,
    voice: Any,
    name: str,
    spoken: Sequence[Any],
    folder: Path,
    *,
    checkpoint_sha: str,
    language: str,
    at: Corpus = SPEAKER,
    load: Callable[[Any], Any],
) -> dict[str, Any]:
    """Speak sentences with a loaded model and measure them; write rows, clips and summary.

    Args:
        params: All parameters; `asr.language` is what Whisper is told to hear.
        tts: Stock `Qwen3TTSModel`.
        voice: What it speaks with.
        name: Name of the candidate.
        spoken: Sentences.
        folder: Receives `rows.jsonl`, `wavs/` and `summary.json`.
        checkpoint_sha: Identity of the model.
        language: Language given to the model, or auto.
        at: Corpus whose recordings are the reference for similarity and rate.
        load: How a worker elsewhere loads the model to a device.
    """
    from voxadapt.generation.synthesis import speak_candidate
    from voxadapt.scoring.rows import write_rows
    from voxadapt.scoring.score_clips import score_clips, summarise
    from voxadapt.scoring.similarity import Embedder

    executor = executor_of(params)
    clips = speak_candidate(
        tts,
        name,
        spoken,
        voice,
        params.score,
        out_dir=folder / "wavs",
        work_dir=paths.work_dir() / "speech",
        root=ROOT,
        checkpoint_sha=checkpoint_sha,
        lang=params.asr.language,
        language=language,
        executor=executor,
        load=functools.partial(load, worker_device(str(device_of(params)))),
    )
    scale = scale_of(at)
    rows = score_clips(
        clips,
        _transcriber(params),
        Embedder(str(device_of(params))),
        voice_of(at),
        scale,
        params.score,
        root=ROOT,
        executor=executor,
        work_dir=_sounds_dir(params),
    )
    write_rows(folder, rows)
    summary = summarise(rows, params.select, scale)
    write_json(folder / "summary.json", summary)
    return summary


def corpus_codes(
    model_path: Path, utterances: Sequence[Utterance], at: Corpus
) -> Mapping[str, Any]:
    """Read a corpus' codes and hold them to the model: codec, number and size of codebooks."""
    from voxadapt.codec.store import read_codes
    from voxadapt.core.model_folder import read_config

    talker = read_config(model_path)["talker_config"]
    return read_codes(
        at.codes,
        at.codes_index,
        utterances,
        num_codebooks=talker["num_code_groups"],
        codebook_size=talker["code_predictor_config"]["vocab_size"],
        codec_sha256=sha256_folder(model_path / "speech_tokenizer"),
    )


def _voice(params: Params, name: str) -> tuple[Any, Any]:
    """Load a candidate and the voice it speaks with."""
    from voxadapt.generation.synthesis import Voice, clone_voice
    from voxadapt.model.load import load_tts

    tts = load_tts(
        _model_folder(params, name),
        device_of(params),
        speaking_dtype(params),
        attention=params.model.attention,
        as_base=name == "base",  # an earlier run's checkpoint can be one
    )
    if name != "base":
        return tts, Voice(speaker=params.train.speaker_name)
    ref_audio = accepted(SPEAKER)[0].ref_audio
    return tts, clone_voice(tts, ref_audio, params.data.ref_text, params.score.base_prompt)


def _voices(
    params: Params, name: str, talkers: Sequence[Speaker]
) -> Iterator[tuple[Speaker, Any, Any, Callable[[Any], Any]]]:
    """Load a candidate; yield each speaker with the model, its voice, and how to load the model.

    The Base speaks by name for speakers that it has already, and clones the others.
    """
    from voxadapt.generation.synthesis import Voice, clone_voice
    from voxadapt.model.load import load_tts

    folder = _model_folder(params, name)
    kept = _kept_speakers(params, talkers) if name == "base" else {who.name for who in talkers}
    cloned = [who for who in talkers if who.name not in kept]
    if cloned and params.score.base_prompt == "icl":
        raise UserError(
            Problem("score.base_prompt", "x_vector with several speakers", "icl",
                    "Set it: there is a transcript of one reference clip only.")
        )  # fmt: skip
    for as_base, members in ((False, [who for who in talkers if who.name in kept]), (True, cloned)):
        if not members:
            continue
        load = functools.partial(
            load_tts, folder, dtype=speaking_dtype(params), attention=params.model.attention,
            as_base=as_base,
        )  # fmt: skip
        tts = load(device_of(params))
        for who in members:
            voice = clone_voice(tts, who.ref_audio, None, "x_vector") if as_base else None
            yield who, tts, voice or Voice(speaker=who.name), load
        del tts


def speakers_of(params: Params, at: Corpus = SPEAKER) -> tuple[Speaker, ...]:
    """List the speakers that the accepted manifest names; none where there is a single one."""
    return list_speakers(accepted(at), params.train.speaker_name)


def _kept_speakers(params: Params, talkers: Sequence[Speaker]) -> set[str]:
    """Name the speakers that the model to be adapted has already."""
    if not talkers:
        return set()
    there = _speakers_of_model(_model_folder(params, "base"))
    return {who.name for who in talkers if who.name.lower() in there}


def _speakers_of_model(folder: Path) -> set[str]:
    """Name the speakers that a model folder speaks for, in lower case; a Base has none."""
    from voxadapt.core.model_folder import read_config

    config = read_config(folder)
    if config["tts_model_type"] != "custom_voice":
        return set()
    return {name.lower() for name in config["talker_config"].get("spk_id") or {}}


def _model_folder(params: Params, name: str) -> Path:
    from voxadapt.core.model_folder import resolve_model

    if name == "base":
        return resolve_model(params.model)
    folder = paths.CHECKPOINTS / name
    if not (folder / "meta.json").is_file():
        raise UserError(
            Problem(str(folder), f"the checkpoint of epoch {epoch_number(name)}", "nothing",
                    "Run `voxadapt train` first.")
        )  # fmt: skip
    return folder


def _checkpoint_sha(params: Params, name: str) -> str:
    return sha256_folder(_model_folder(params, name))


def sentences(params: Params, split: str, at: Corpus = SPEAKER) -> list[Any]:
    """Return the sentences of a split: all of them, or as many as the parameters say, by hash.

    Sentences with digits are among them, but in a slice of their own that decides nothing.

    Raises:
        UserError: When the split has no utterances, or only sentences with digits.
    """
    from voxadapt.scoring.rows import Sentence, slice_of

    rows = [row for row in accepted(at) if row.split == split]
    if not rows:
        raise UserError(
            Problem(str(at.manifest), f"utterances of the {split} split", "none",
                    f"Raise split.{split}_share, or add recordings.")
        )  # fmt: skip
    if any(row.speaker for row in rows):  # all speakers say a text that several have recorded
        rows = list({row.text: row for row in sorted(rows, key=lambda row: row.id)}.values())
    rows = sorted(rows, key=lambda row: fingerprint([params.split.salt, row.id]))
    rows = rows[: params.score.max_sentences]
    found = [
        Sentence(text_id=row.id, text=row.text, split=split, slice=slice_of(row.text))
        for row in sorted(rows, key=lambda row: row.id)
    ]
    if all(item.slice != "ranked" for item in found):
        raise UserError(
            Problem(str(at.manifest), f"a sentence without digits in the {split} split",
                    f"{len(found)} with digits",
                    "Write numbers in words, as they are spoken, or raise score.max_sentences.")
        )  # fmt: skip
    return found


def accepted(at: Corpus) -> list[Utterance]:
    """Read a corpus' accepted utterances and hold them to the audit's list of clips.

    Raises:
        UserError: When the manifest is absent or a file torn, or when the two do not name the
            same clips: a manifest cut between two lines would otherwise be a smaller corpus.
    """
    utterances = read_manifest(at.manifest)
    if not at.clips.is_file():
        return utterances
    fix = "Run the audit again: `voxadapt audit`, or `voxadapt language data`."
    try:
        listed = {row["id"] for row in read_jsonl(at.clips)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = " ".join(str(error).split())
        raise UserError(Problem(str(at.clips), "every clip of the audit", found, fix)) from None
    if listed != {row.id for row in utterances}:
        expected = f"the {len(listed)} clips of {at.clips.name}"
        found = f"{len(utterances)} clips, or others"
        raise UserError(Problem(str(at.manifest), expected, found, fix))
    return utterances


def held_out_keys(at: Corpus) -> list[tuple[str, int]]:
    """Name the rows that the scores of recordings must have: one for each held-out clip."""
    return [(row.id, 0) for row in accepted(at) if row.split in HELD_OUT]


def voice_of(at: Corpus) -> Any:
    """Read the embeddings that similarity is measured against.

    Raises:
        UserError: When the file is absent or torn.
    """
    return _read_voice(at.voice)


def _read_voice(path: Path) -> Any:
    import zipfile

    from voxadapt.scoring.similarity import VoiceReference

    try:
        return VoiceReference.read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            Problem(str(path), "the voice's embeddings", " ".join(str(error).split())[:160],
                    "Run `voxadapt codes`, or `voxadapt language data`.")
        ) from None  # fmt: skip


def _clip(row: Utterance, candidate: str, wav: str, params: Params) -> Any:
    from voxadapt.scoring.rows import EvalClip, slice_of

    return EvalClip(
        candidate=candidate,
        split=row.split,
        text_id=row.id,
        lang=params.asr.language,
        text=row.text,
        slice=slice_of(row.text),
        wav=wav,
    )


def _never_in_the_reference(utterances: Sequence[Utterance]) -> set[str]:
    """Hash the files that must not measure similarity: the reference clip and training clips."""
    trained = {row.audio_sha256 for row in utterances if row.split == "train"}
    return trained | {sha256_file(row) for row in {u.ref_audio for u in utterances}}


def _transcriber(params: Params, model: str | None = None) -> Any:
    from voxadapt.asr.whisper import Transcriber

    return Transcriber(
        model or params.asr.model,
        params.asr.language,
        str(device_of(params)),
        params.asr.batch_size,
        paths.work_dir() / "transcripts",
    )


def executor_of(params: Params) -> Executor:
    """Return where extraction and scoring run."""
    import torch

    if params.executor.kind == "local":
        return LOCAL
    on_gpu = device_of(params).type == "cuda"
    gpus = params.executor.gpus_per_worker if on_gpu else 0.0
    return RayData(params.executor, gpus, torch.get_num_threads())


def _sounds_dir(params: Params) -> Path | None:
    """Where embeddings are kept for a run that goes on; on one machine they are soon made again."""
    return None if params.executor.kind == "local" else paths.work_dir() / "sounds"


def device_of(params: Params) -> Any:
    """Return the device, and hold torch to the number of threads that the parameters give."""
    import torch

    from voxadapt.core.device import resolve_device

    if params.model.num_threads is not None:
        torch.set_num_threads(params.model.num_threads)
    return resolve_device(params.model.device)


def speaking_dtype(params: Params) -> Any:
    """Return the type of the weights that speak: on a GPU usually that in which they are used."""
    from voxadapt.model import load

    return load.speaking_dtype(params.score.dtype, device_of(params))


def scale_of(at: Corpus) -> Any:
    """Read the similarity scale of a corpus."""
    from voxadapt.scoring.similarity import SimilarityScale

    return SimilarityScale.from_dict(read_record(at.scale, "codes"))


def _selection() -> dict[str, Any]:
    return read_record(paths.SELECTION, "select")


def read_record(path: Path, stage: str) -> Any:
    """Read a JSON record that an earlier stage wrote."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(
            Problem(str(path), f"what `voxadapt {stage}` writes", found, f"Run `voxadapt {stage}`.")
        ) from None


def _known(params: Params, candidate: str | int) -> str:
    name = candidate_name(candidate)
    if name not in params.candidate_names:
        listed = ", ".join(params.candidate_names)
        raise UserError(
            Problem("candidate", f"one of {listed}", name, "Name one of them, or add it to params.")
        )
    return name


def _refuse_unlisted(params: Params) -> None:
    """Refuse scores of candidates that are not listed: nothing is left out silently."""
    found = sorted(path.name for path in paths.SCORES.glob("*") if path.is_dir())
    extra = [name for name in found if name not in params.candidate_names]
    if extra:
        raise UserError(
            [
                Problem(str(paths.SCORES / name), "only candidates of params.yaml", name,
                        "Delete the folder, or list the candidate.")
                for name in extra
            ],
            "There are scores of candidates that are not compared.",
        )  # fmt: skip


def _write_epochs_table(decision: Mapping[str, Any]) -> None:
    """Write the per-epoch table that `dvc plots` and the report draw."""
    import csv
    import io

    from voxadapt.core.files import write_atomic

    stream = io.StringIO()
    columns = ["candidate", "epoch"]
    for measure in ("wer", "cer", "sim"):
        columns += [measure, f"{measure}_low", f"{measure}_high"]
    columns += ["duration_ratio", "failure_rate", "p_best", "eligible", "chosen"]
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for item in decision["candidates"]:
        row = {"candidate": item["name"], "epoch": epoch_number(item["name"])}
        for measure in ("wer", "cer", "sim"):
            interval = item[measure]
            row[measure] = interval["point"]
            row[f"{measure}_low"], row[f"{measure}_high"] = interval["low"], interval["high"]
        row["duration_ratio"] = item["duration_ratio"]["point"]
        row["failure_rate"] = item["failure_rate"]["point"]
        row["p_best"] = item["p_best"]
        row["eligible"] = int(item["eligible"])
        row["chosen"] = int(item["name"] == decision["chosen"])
        writer.writerow(row)
    write_atomic(paths.EPOCHS_TABLE, stream.getvalue())


def score_sentence(name: str, summary: Mapping[str, Any]) -> str:
    """Sum up a candidate's scores for people."""
    return (
        f"{name}: {summary['n_measured']} of {summary['n_expected']} clips; "
        f"WER {percent(summary['wer'])}, CER {percent(summary['cer'])}, "
        f"similarity {_number(summary['sim'])}, "
        f"failures {percent(summary['failure_rate'])}."
    )


def percent(interval: Any) -> str:
    """Write a share with its interval in percent."""
    if interval["point"] is None:
        return "not measured"
    point = f"{100 * interval['point']:.1f} %"
    if interval["low"] is None:  # a single sentence has no interval
        return point
    return f"{point} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _number(interval: Any) -> str:
    value = interval["point"] if isinstance(interval, Mapping) else interval.point
    return "not measured" if value is None else f"{value:.3f}"


def _pcm16(samples: Any) -> Any:
    import numpy as np

    return np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)

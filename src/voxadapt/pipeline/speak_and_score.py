"""Speaking sentences with a candidate and measuring every clip."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from voxadapt.core.files import write_json
from voxadapt.core.params import SelectParams
from voxadapt.core.records import Record
from voxadapt.data.speakers import Speaker
from voxadapt.generation.synthesis import Prompt, speak_candidate
from voxadapt.pipeline.candidates import BASE, Candidate, find_candidate
from voxadapt.pipeline.context import ROOT, Context
from voxadapt.pipeline.measuring import Measuring
from voxadapt.pipeline.references import read_references, read_scale, voices_to_tell_apart
from voxadapt.pipeline.sentences import SentenceSet, selection_sentences, track_sentences
from voxadapt.pipeline.speaking import Speaking, load_speaking
from voxadapt.pipeline.tracks import Track
from voxadapt.scoring.rows import ROWS_FILE, ScoreRow, write_rows
from voxadapt.scoring.score_clips import summarise
from voxadapt.scoring.speakers import confusion, pool

CLOSE = 0.02  # no parameter of the rule: a change of the rule shall not speak again
PROMPTS: tuple[Prompt, ...] = ("x_vector", "icl")


def score_split(track: Track, context: Context, name: str, split: str, folder: Path) -> Record:
    """Score a candidate on a split of the track's corpus; see `speak_and_score`.

    With `score.base_prompt: both` the Base is scored twice at selection, and what is kept as its
    score is that of the better way to clone, by `better_prompt`.
    """
    if name == BASE and split == "selection" and track.score.base_prompt == "both":
        return _score_prompts(track, context, folder)
    candidate, speakers = find_candidate(track, name), track.speakers()
    spoken = selection_sentences(track) if split == "selection" else track_sentences(track, split)
    sentences = SentenceSet(spoken, track.asr, track.tag)
    speaking = load_speaking(track, candidate, speakers, context)
    return speak_and_score(track, context, candidate, speaking, sentences, folder)


def _score_prompts(track: Track, context: Context, folder: Path) -> Record:
    """Score the Base with either prompt, each in a folder of its own; copy the better one's."""
    summaries: dict[Prompt, Record] = {}
    for prompt in PROMPTS:
        score = track.score.model_copy(update={"base_prompt": prompt})
        one = replace(track, score=score)
        summaries[prompt] = score_split(one, context, BASE, "selection", folder / prompt)
    chosen = better_prompt(summaries, track.rule)
    shown = (track.rule.error_metric, "sim", "failure_rate")
    record: Record = {"chosen": chosen}
    for name, found in summaries.items():
        record[name] = {key: found[key] for key in shown}
    summary = {**summaries[chosen], "base_prompt": record}
    shutil.copyfile(folder / chosen / ROWS_FILE, folder / ROWS_FILE)
    write_json(folder / "summary.json", summary)
    return summary


def better_prompt(summaries: Mapping[Prompt, Record], rule: SelectParams) -> Prompt:
    """Name the way to clone that is harder to beat.

    The better one by the primary measure, among those whose error is within `CLOSE` of the lowest:
    a voice that is like the speaker's and says something else is no bar.
    """
    errors = {name: found[rule.error_metric]["point"] for name, found in summaries.items()}
    least = min(errors.values())
    if rule.primary == "error":
        return min(errors, key=lambda name: errors[name])

    def similarity(name: Prompt) -> float:
        point = (summaries[name]["sim"] or {}).get("point")
        return -1.0 if point is None else float(point)

    return max((name for name in errors if errors[name] <= least + CLOSE), key=similarity)


def speak_and_score(
    track: Track,
    context: Context,
    candidate: Candidate,
    speaking: Iterable[Speaking],
    sentences: SentenceSet,
    folder: Path,
) -> Record:
    """Have every speaker of a candidate speak sentences; measure the clips and sum them up.

    The track's recordings are the reference for similarity and rate; the folder receives
    `rows.jsonl`, `wavs/` and `summary.json`.
    """
    speakers = track.speakers()
    references = read_references(track.corpus, speakers)
    others = voices_to_tell_apart(references, speakers)
    measuring = Measuring(context, sentences.asr, track.score)
    rows: dict[str, list[ScoreRow]] = {}
    for one in speaking:
        who = one.speaker
        name = f"{candidate.name}, {who.name}" if who.is_named else candidate.name
        clips = speak_candidate(
            one.tts, name, sentences.sentences, one.voice, track.score,
            out_dir=folder / "wavs" / who.folder, work_dir=context.work_dir / "speech", root=ROOT,
            checkpoint_sha=candidate.sha, lang=sentences.asr.language, language=sentences.tag,
            executor=context.executor, load=partial(one.load, context.worker_device),
        )  # fmt: skip
        clips = [clip.model_copy(update={"candidate": candidate.name}) for clip in clips]
        reference = references[who.name]
        rows[who.name] = measuring.rows(clips, reference.voice, reference.scale, others)
    return _write(track, speakers, rows, folder)


def _write(
    track: Track, speakers: Sequence[Speaker], rows: dict[str, list[ScoreRow]], folder: Path
) -> Record:
    """Write a candidate's rows and their summary: of all speakers together, then of each."""
    scale = read_scale(track.corpus.scale)
    [together, *_] = rows.values()
    if speakers[0].is_named:
        own = {key: who.name for who in speakers for key in who.ids}
        together = pool(rows, own, track.score.takes, scale.sim_id)
    write_rows(folder, together)
    summary = summarise(together, track.rule, scale)
    if speakers[0].is_named:
        scales = {who.name: read_scale(track.corpus.scale_of(who.folder)) for who in speakers}
        summary["speakers"] = {
            name: summarise(found, track.rule, scales[name]) for name, found in rows.items()
        }
        summary["confusion"] = confusion(together, track.rule)
    write_json(folder / "summary.json", summary)
    return summary

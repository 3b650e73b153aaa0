"""Stage `codes`: turn recordings into codes; score recordings and their codec round trip.

The round trip is the ceiling of everything that follows: no talker can sound better than the
codec through which it speaks.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from voxadapt.codec.extract import decode_codes, extract_codes
from voxadapt.codec.store import write_codes
from voxadapt.core.errors import UserError
from voxadapt.core.files import sha256_file, sha256_folder, write_json
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import Params
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.audio import write_wav
from voxadapt.data.manifest import Utterance
from voxadapt.data.speakers import Speaker
from voxadapt.data.voices import read_other_voices
from voxadapt.model.load import load_speech_tokenizer
from voxadapt.pipeline.context import ROOT, Context, open_context
from voxadapt.pipeline.measuring import Measuring
from voxadapt.pipeline.references import Reference, coded_voices
from voxadapt.pipeline.sentences import track_sentences
from voxadapt.pipeline.tracks import HELD_OUT, Track, speaker_track
from voxadapt.scoring.planning import plan_power
from voxadapt.scoring.recogniser import judge
from voxadapt.scoring.rows import EvalClip, ScoreRow, ranked, slice_of, write_rows
from voxadapt.scoring.score_clips import summarise
from voxadapt.scoring.similarity import SimilarityScale, build_reference, build_scale, pooled_scale
from voxadapt.scoring.speakers import confusion, pool, pooled_sim_id
from voxadapt.scoring.wording import number, percent


@stage("codes", memory="codes.batch_seconds")
def run(params: Params) -> StageResult:
    """Extract the codes of the speaker's corpus; measure recordings and round trip."""
    batch_seconds = params.codes.batch_seconds
    return encode_track(speaker_track(params), open_context(params), batch_seconds)


def encode_track(
    track: Track, context: Context, batch_seconds: float, graphemes: Sequence[str] = ()
) -> StageResult:
    """Extract a corpus' codes; score held-out recordings and their codec round trip.

    Args:
        track: The corpus.
        context: Where it runs.
        batch_seconds: Padded audio of a codec batch.
        graphemes: Groups of letters that are one sound of the language.

    Raises:
        UserError: When a clip cannot be encoded, or too few can measure similarity.
    """
    corpus = track.corpus
    utterances = track.accepted()
    speakers = track.speakers()
    model_path = resolve_model(track.model)
    tokenizer = load_speech_tokenizer(model_path, context.device)
    codec_sha256 = sha256_folder(model_path / "speech_tokenizer")
    load = partial(load_speech_tokenizer, model_path, context.worker_device)
    arrays = extract_codes(
        utterances,
        tokenizer,
        batch_seconds,
        context.work_dir,
        codec_sha256,
        executor=context.executor,
        load=load,
    )
    write_codes(corpus.codes, corpus.codes_index, arrays, utterances, codec_sha256)

    held_out = [row for row in utterances if row.split in HELD_OUT]
    measuring = Measuring(context, track.asr, track.score)
    real = [_clip(track, row, "real", row.audio) for row in held_out]
    references = _measure_voices(track, measuring, utterances, speakers, real)
    held_out_codes = {row.id: arrays[row.id] for row in held_out}
    waves = decode_codes(held_out_codes, tokenizer, context.executor, load)
    codec = []
    for row in held_out:
        path = corpus.reference / "codec" / "wavs" / f"{row.id}.wav"
        write_wav(path, _pcm16(waves[row.id]), tokenizer.get_output_sample_rate())
        codec.append(_clip(track, row, "codec", path.as_posix()))
    measured = _measure_recordings(track, measuring, speakers, references, real, codec)
    speakers_record = _speakers_record(track, measured) if speakers[0].is_named else None
    summaries = _write_reference(track, measured, speakers_record)
    planned = plan_power(
        measured.rows["real"],
        measured.rows["codec"],
        {
            split: sum(item.slice == "ranked" for item in track_sentences(track, split))
            for split in HELD_OUT
            if any(row.split == split for row in held_out)
        },
        track.score.takes * len(speakers),
        track.rule,
    )
    write_json(corpus.planning, planned)
    judged = {
        name: judge(ranked(rows), track.rule, graphemes) for name, rows in measured.rows.items()
    }
    write_json(corpus.recogniser, judged)
    frames = {name: len(array) for name, array in arrays.items()}
    metrics = {
        "codec_sha256": codec_sha256,
        "num_clips": len(arrays),
        "num_codebooks": int(next(iter(arrays.values())).shape[1]),
        "num_frames": sum(frames.values()),
        "num_train_frames": sum(frames[row.id] for row in utterances if row.split == "train"),
        **{
            name: {split: _averages(summary) for split, summary in by_split.items()}
            for name, by_split in summaries.items()
        },
        **({"speakers": speakers_record} if speakers_record else {}),
    }
    write_json(corpus.codes_metrics, metrics)
    scale = measured.scale
    plain, coded = summaries["real"]["selection"], summaries["codec"]["selection"]
    return StageResult(
        f"{len(arrays)} clips, {metrics['num_frames']} frames of {metrics['num_codebooks']} codes. "
        f"Held-out recordings: WER {percent(plain['wer'])}, "
        f"similarity {number(scale.ceiling.point)}; "
        f"through the codec: WER {percent(coded['wer'])}, "
        f"similarity {number(scale.codec_ceiling.point)}. {planned['text']} "
        f"{judged['real']['text']}",
        metrics,
    )


@dataclass(frozen=True)
class _Measured:
    """Recordings and round trips as they were measured.

    Attributes:
        rows: Rows of `real` and `codec`, of all speakers together.
        references: Reference of each speaker by name, with the ceiling of its round trip.
        scale: Of all speakers together.
        speakers: The speakers.
    """

    rows: dict[str, list[ScoreRow]]
    references: dict[str, Reference]
    scale: SimilarityScale
    speakers: Sequence[Speaker]


def _measure_voices(
    track: Track,
    measuring: Measuring,
    utterances: Sequence[Utterance],
    speakers: Sequence[Speaker],
    real: Sequence[EvalClip],
) -> dict[str, Reference]:
    """Build each speaker's reference, ceiling and floor; the others' recordings are other voices.

    The reference clips and training clips must not measure similarity.
    """
    excluded = {row.audio_sha256 for row in utterances if row.split == "train"}
    excluded |= {sha256_file(path) for path in {row.ref_audio for row in utterances}}
    others: Mapping[str, Sequence[Path]] = {}
    if track.data.other_voices is not None:
        others = read_other_voices(track.data.other_voices)
    own = {who.name: [clip for clip in real if clip.text_id in who.ids] for who in speakers}
    found = {}
    for who in speakers:
        voices = {name: list(paths) for name, paths in others.items()}
        if who.is_named:
            voices |= {name: [ROOT / clip.wav for clip in clips] for name, clips in own.items()}
            del voices[who.name]
        try:
            found[who.name] = Reference(
                *build_scale(
                    measuring.embedder,
                    own[who.name],
                    voices,
                    track.rule,
                    root=ROOT,
                    min_speech_s=track.score.min_speech_s,
                    excluded_sha256=excluded,
                )
            )
        except UserError as error:
            if not who.is_named:
                raise
            problems = [
                replace(problem, where=f"speaker {who.name}: {problem.where}")
                for problem in error.problems
            ]
            raise UserError(problems, error.title) from None
    return found


def _measure_recordings(
    track: Track,
    measuring: Measuring,
    speakers: Sequence[Speaker],
    references: Mapping[str, Reference],
    real: Sequence[EvalClip],
    codec: Sequence[EvalClip],
) -> _Measured:
    """Measure recordings and round trips, each speaker's against its own reference.

    Who sounds like whom is asked of recordings against recordings, and of coded ones against
    coded ones, as of everything that a model says: the codec's colour is common to all of them.
    """
    named = speakers[0].is_named
    found = dict(references)
    if named:
        for who in speakers:
            own_codec = [clip for clip in codec if clip.text_id in who.ids]
            coded = build_reference(measuring.embedder, own_codec, ROOT)
            found[who.name] = replace(found[who.name], coded=coded)
    plain = {name: reference.voice for name, reference in found.items()} if named else None
    sim_id = pooled_sim_id({name: reference.voice.sim_id for name, reference in found.items()})
    own = {key: who.name for who in speakers for key in who.ids}
    rows = {}
    for name, clips, others in (("real", real, plain), ("codec", codec, coded_voices(found))):
        by_speaker = {
            who.name: measuring.rows(
                [clip for clip in clips if clip.text_id in who.ids],
                found[who.name].voice,
                found[who.name].scale,
                others,
            )
            for who in speakers
        }
        rows[name] = pool(by_speaker, own, 1, sim_id) if named else by_speaker[speakers[0].name]
    for who in speakers:
        scale = found[who.name].scale.with_codec(by_speaker[who.name], track.rule)
        found[who.name] = replace(found[who.name], scale=scale)
    scales = {name: reference.scale for name, reference in found.items()}
    scale = pooled_scale(scales, sim_id) if named else scales[speakers[0].name]
    return _Measured(rows, found, scale, speakers)


def _speakers_record(track: Track, measured: _Measured) -> Record:
    """Return each speaker's scale, and who is taken for whom."""
    return {
        "scales": {
            name: {
                "sim_id": reference.scale.sim_id,
                "ceiling": reference.scale.ceiling.as_dict(),
                "codec_ceiling": reference.scale.codec_ceiling.as_dict(),
                "floor": reference.scale.floor.as_dict(),
            }
            for name, reference in measured.references.items()
        },
        "confusion": {name: confusion(rows, track.rule) for name, rows in measured.rows.items()},
    }


def _write_reference(
    track: Track, measured: _Measured, speakers_record: Record | None
) -> dict[str, dict[str, Record]]:
    """Write rows, summaries, references and scales; return the summaries by split."""
    corpus = track.corpus
    summaries = {}
    for name, rows in measured.rows.items():
        write_rows(corpus.reference / name, rows)
        summaries[name] = {
            split: summarise(found, track.rule, measured.scale)
            for split in HELD_OUT
            if (found := [row for row in rows if row.split == split])
        }
        write_json(corpus.reference / name / "summary.json", summaries[name]["selection"])
    shutil.rmtree(corpus.speakers, ignore_errors=True)
    record = measured.scale.as_dict()
    if speakers_record is not None:
        corpus.voice.unlink(missing_ok=True)
        record |= {"speakers": speakers_record["scales"]}
    for who in measured.speakers:
        reference = measured.references[who.name]
        reference.voice.write(corpus.voice_of(who.folder))
        if reference.coded is not None:
            reference.coded.write(corpus.coded_voice_of(who.folder))
            reference.scale.write(corpus.scale_of(who.folder))
    write_json(corpus.scale, record)
    return summaries


def _averages(summary: Record) -> Record:
    """Leave out what is measured within clips: metrics are a table of figures."""
    return {key: value for key, value in summary.items() if key not in ("windows", "prosody")}


def _clip(track: Track, row: Utterance, candidate: str, wav: str) -> EvalClip:
    return EvalClip(
        candidate=candidate,
        split=row.split,
        text_id=row.id,
        lang=track.asr.language,
        text=row.text,
        slice=slice_of(row.text),
        wav=wav,
    )


def _pcm16(samples: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = np.round(np.clip(samples, -1.0, 1.0) * 32767)
    return scaled.astype(np.int16)

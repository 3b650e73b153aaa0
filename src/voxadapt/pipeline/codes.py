"""Stage `codes`: turn recordings into codes; score recordings and their codec round trip.

The round trip is the ceiling of everything that follows: no talker can sound better than the
codec through which it speaks.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from voxadapt.asr.normalise import normalise
from voxadapt.asr.voice_prints import Audio
from voxadapt.codec.extract import decode_codes, extract_codes
from voxadapt.codec.store import Codes, write_codes
from voxadapt.core.errors import UserError, raise_problems
from voxadapt.core.files import sha256_file, sha256_folder, write_json
from voxadapt.core.lineage import check_made, write_made
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import Params
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.audio import AudioError, probe, to_pcm16, write_wav
from voxadapt.data.clips import read_other_voices
from voxadapt.data.manifest import Utterance
from voxadapt.data.speakers import Speaker
from voxadapt.model.load import load_speech_tokenizer
from voxadapt.model.stock import SpeechTokenizer
from voxadapt.pipeline.context import ROOT, Context, open_context
from voxadapt.pipeline.measuring import Measuring
from voxadapt.pipeline.references import Reference
from voxadapt.pipeline.sentences import track_sentences
from voxadapt.pipeline.tracks import HELD_OUT, Track, check_recordings, speaker_track
from voxadapt.scoring.measurable import measurable
from voxadapt.scoring.measures import refuse_words
from voxadapt.scoring.planning import plan_power
from voxadapt.scoring.recogniser import judge
from voxadapt.scoring.rows import EvalClip, ScoreRow, ranked, slice_of, write_rows
from voxadapt.scoring.score_clips import summarise
from voxadapt.scoring.similarity import MeasuredVoice, SimilarityScale, build_scale, pooled_scale
from voxadapt.scoring.speakers import confusion, pool, pooled_sim_id
from voxadapt.scoring.statistics import NOTHING
from voxadapt.scoring.wording import number, percent


@stage("codes", memory="codes.batch_seconds")
def run(params: Params) -> StageResult:
    """Extract the codes of the speaker's corpus; measure recordings and round trip."""
    return encode_corpus(params, speaker_track(params), ("asr.language", "train.speaker_name"))


def encode_corpus(
    params: Params, track: Track, keys: Sequence[str], graphemes: Sequence[str] = ()
) -> StageResult:
    """Extract a corpus' codes and measure its recordings, from what the audit left.

    `keys` are parameters of this corpus alone that shape what is measured; `graphemes` are groups
    of letters that are one sound of the language.
    """
    corpus = track.corpus
    check_made([corpus.made_by_audit], params)
    check_recordings(track)
    result = encode_track(track, open_context(params), params.codes.batch_seconds, graphemes)
    voices = track.data.other_voices
    inputs = [corpus.made_by_audit, *([] if voices is None else [Path(voices)])]
    base, command = ("model.base", "model.revision"), track.codes_command
    write_made(corpus.made_by_codes, command, [corpus.codes.parent], inputs, params, base)
    written = [corpus.reference, corpus.codes_metrics, corpus.planning]
    shaping = ("asr.model", "data.other_voices", "score.min_speech_s", "score.rate_ratio",
               "score.max_silence_s")  # fmt: skip
    write_made(corpus.made_reference, command, written, inputs, params, (*base, *shaping, *keys))
    return result


def encode_track(
    track: Track, context: Context, batch_seconds: float, graphemes: Sequence[str] = ()
) -> StageResult:
    """Extract a corpus' codes; score held-out recordings and their codec round trip.

    A codec batch has at most `batch_seconds` of padded audio.
    """
    corpus = track.corpus
    utterances = track.accepted()
    speakers = track.speakers()
    texts = [(lang := track.code_of(row), normalise(row.text, lang)) for row in utterances]
    raise_problems(refuse_words(texts, track.rule.error_metric), "There are no words to count.")
    model_path = resolve_model(track.model)
    tokenizer = load_speech_tokenizer(model_path, context.device)
    codec_sha256 = sha256_folder(model_path / "speech_tokenizer")
    load = partial(load_speech_tokenizer, model_path, context.worker_device)
    encode = partial(
        extract_codes, tokenizer=tokenizer, batch_seconds=batch_seconds,
        work_dir=context.work_dir, codec_sha256=codec_sha256, executor=context.executor, load=load,
    )  # fmt: skip
    arrays = encode(utterances)
    write_codes(corpus.codes, corpus.codes_index, arrays, utterances, codec_sha256)

    held_out = [row for row in utterances if row.split in HELD_OUT]
    measuring = Measuring(context, track.asr, track.score)
    real = [_clip(track, row, "real", row.audio) for row in held_out]
    held_out_codes = {row.id: arrays[row.id] for row in held_out}
    decode = partial(decode_codes, tokenizer=tokenizer, executor=context.executor, load=load)
    waves = decode(held_out_codes)
    rate_hz = tokenizer.get_output_sample_rate()
    codec = []
    for row in held_out:
        path = corpus.reference / "codec" / "wavs" / f"{row.id}.wav"
        write_wav(path, to_pcm16(waves[row.id]), rate_hz)
        codec.append(_clip(track, row, "codec", path.as_posix()))
    voices = _coded_voices(track, tokenizer, encode, decode)
    found = _measure_voices(track, measuring, utterances, speakers, real, codec, voices)
    measured = _measure_recordings(measuring, speakers, found, real, codec)
    speakers_record = _speakers_record(track, measured) if speakers[0].is_named else None
    summaries = _write_reference(track, measured, speakers_record)
    num_ranked = {
        split: sum(item.slice == "ranked" for item in track_sentences(track, split))
        for split in HELD_OUT
        if any(row.split == split for row in held_out)
    }
    takes, rows = track.score.takes * len(speakers), measured.rows
    planned = plan_power(rows["real"], rows["codec"], num_ranked, takes, track.rule)
    write_json(corpus.planning, planned)
    judged = {
        name: judge(ranked(rows), track.rule, graphemes) for name, rows in measured.rows.items()
    }
    write_json(corpus.recogniser, judged)
    frames = {name: len(array) for name, array in arrays.items()}
    can = measurable(
        measured.rows, measured.scale.separation, track.rule.error_metric, track.limits
    )
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
        "measurable": can,
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
        f"similarity {number(scale.codec_ceiling.point)}. {can['sentence'] or planned['text']} "
        f"{judged['real']['text']}",
        metrics,
    )


@dataclass(frozen=True)
class _Measured:
    """Recordings and round trips as they were measured."""

    rows: dict[str, list[ScoreRow]]  # rows of `real` and `codec`, of all speakers together
    references: dict[str, Reference]  # reference of each speaker by name
    scale: SimilarityScale  # of all speakers together
    speakers: Sequence[Speaker]  # the speakers


def _coded_voices(
    track: Track,
    tokenizer: SpeechTokenizer,
    encode: Callable[[Sequence[Utterance]], Codes],
    decode: Callable[[Codes], Mapping[str, np.ndarray]],
) -> dict[str, Sequence[Audio]]:
    """Send the clips of other voices through the codec, as all that they are compared with."""
    if track.data.other_voices is None:
        return {}
    voices = read_other_voices(track.data.other_voices)
    clips = []
    for path in dict.fromkeys(path for paths in voices.values() for path in paths):
        try:
            info = probe(path)
        except AudioError as error:
            raise user_error("pipeline.other_voice", path, error=error) from None
        clips.append(
            Utterance(
                id=path.as_posix(), audio=path.as_posix(), text="-", ref_audio=path.as_posix(),
                language=None, duration_s=info.duration_s, sample_rate_hz=info.sample_rate_hz,
                audio_sha256=sha256_file(path), split="train", speaker=None,
            )
        )  # fmt: skip
    waves = decode(encode(clips))
    rate_hz = tokenizer.get_output_sample_rate()
    return {
        name: [(waves[path.as_posix()].astype(np.float32), rate_hz) for path in paths]
        for name, paths in voices.items()
    }


def _measure_voices(
    track: Track,
    measuring: Measuring,
    utterances: Sequence[Utterance],
    speakers: Sequence[Speaker],
    real: Sequence[EvalClip],
    codec: Sequence[EvalClip],
    voices: Mapping[str, Sequence[Audio]],
) -> dict[str, MeasuredVoice]:
    """Build each speaker's reference, ceiling and floor; the others' recordings are other voices.

    The reference clips and training clips must not measure similarity.
    """
    excluded = {row.audio_sha256 for row in utterances if row.split == "train"}
    excluded |= {sha256_file(path) for path in {row.ref_audio for row in utterances}}
    coded: dict[str, Path] = {clip.text_id: ROOT / clip.wav for clip in codec}
    found = {}
    for who in speakers:
        others = dict(voices)
        if who.is_named:
            others |= {
                other.name: [coded[key] for key in sorted(other.ids & coded.keys())]
                for other in speakers
                if other.name != who.name
            }
        try:
            own = [clip for clip in real if clip.text_id in who.ids]
            found[who.name] = build_scale(
                measuring.embedder, own, others, track.rule, root=ROOT,
                min_speech_s=track.score.min_speech_s, excluded_sha256=excluded, coded=coded,
            )  # fmt: skip
        except UserError as error:
            if not who.is_named:
                raise
            whose = f"speaker {who.name}: "
            problems = [replace(item, where=f"{whose}{item.where}") for item in error.problems]
            raise UserError(problems, error.title) from None
    return found


def _measure_recordings(
    measuring: Measuring,
    speakers: Sequence[Speaker],
    voices: Mapping[str, MeasuredVoice],
    real: Sequence[EvalClip],
    codec: Sequence[EvalClip],
) -> _Measured:
    """Measure recordings against recordings, and round trips against round trips.

    What a model says has passed the codec, whose colour is common to all such clips.
    """
    named = speakers[0].is_named
    own = {key: who.name for who in speakers for key in who.ids}
    rows = {}
    for name, clips in (("real", real), ("codec", codec)):
        references = {
            key: item.recordings if name == "real" else item.voice for key, item in voices.items()
        }
        by_speaker = {
            who.name: measuring.rows(
                [clip for clip in clips if clip.text_id in who.ids],
                references[who.name],
                voices[who.name].scale,
                references if named else None,
            )
            for who in speakers
        }
        sim_id = pooled_sim_id({key: item.sim_id for key, item in references.items()})
        rows[name] = pool(by_speaker, own, 1, sim_id) if named else by_speaker[speakers[0].name]
    scales = {name: item.scale.with_limits(by_speaker[name]) for name, item in voices.items()}
    scale = pooled_scale(scales, sim_id) if named else scales[speakers[0].name]
    kept = {name: Reference(item.voice, scales[name]) for name, item in voices.items()}
    return _Measured(rows, kept, scale, speakers)


def _speakers_record(track: Track, measured: _Measured) -> Record:
    """Return each speaker's scale, and who is taken for whom."""
    return {
        "scales": {
            name: {
                "sim_id": reference.scale.sim_id,
                "ceiling": reference.scale.ceiling.as_dict(),
                "codec_ceiling": reference.scale.codec_ceiling.as_dict(),
                "floor": reference.scale.floor.as_dict(),
                "separation": reference.scale.separation,
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
        scale = measured.scale
        if name == "real":  # has passed no codec: it has no place between floor and ceiling
            scale = replace(scale, ceiling=NOTHING, codec_ceiling=NOTHING, ceiling_by_duration=())
        summaries[name] = {
            split: summarise(found, track.rule, scale)
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
        if who.is_named:
            reference.scale.write(corpus.scale_of(who.folder))
    write_json(corpus.scale, record)
    return summaries


def _averages(summary: Record) -> Record:
    """Leave out what is measured within clips: metrics are a table of figures."""
    return {key: value for key, value in summary.items() if key not in ("windows", "prosody")}


def _clip(track: Track, row: Utterance, candidate: str, wav: str) -> EvalClip:
    lang = track.code_of(row)
    return EvalClip(
        candidate=candidate, split=row.split, text_id=row.id, lang=lang, text=row.text,
        slice=slice_of(row.text, lang), wav=wav,
    )  # fmt: skip

"""Stage `audit`: check the corpus, accept its clips and split them by text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxadapt.core.files import read_json
from voxadapt.core.languages import MODEL_LANGUAGES
from voxadapt.core.lineage import write_made
from voxadapt.core.params import Params
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.problems import problem
from voxadapt.core.progress import Progress
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.audit import audit_corpus, write_audit
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.pipeline.tracks import Track, speaker_track

EMBEDDED_AT_ONCE = 64  # clips


@stage("audit", memory="asr.batch_size")
def run(params: Params) -> StageResult:
    """Check the speaker's corpus."""
    track = speaker_track(params)
    result = audit_track(params, track)
    record_audit(params, track, "audit", ("audit", "split", "asr.language", "data.manifest"))
    return result


def record_audit(
    params: Params,
    track: Track,
    command: str,
    keys: Sequence[str],
    inputs: Sequence[Path] = (),
    files: Sequence[Path] = (),
) -> None:
    """Record what the audit of a corpus wrote, and from what.

    `keys` are parameters of this corpus alone; `inputs` and `files` are what was read and written
    besides its own.
    """
    corpus = track.corpus
    spoken = {Path(row.ref_audio) for row in track.accepted()}
    written = [corpus.manifest.parent, corpus.audit_metrics, *files]
    whisper = [path for path in (Path(track.asr.model),) if path.is_file()]
    read = [Path(track.data.manifest), *sorted(spoken), *inputs, *whisper]
    write_made(corpus.made_by_audit, command, written, read, params, ("asr.model", *keys))


def audit_track(params: Params, track: Track, learnt: Sequence[str] = ()) -> StageResult:
    """Check a corpus, accept its clips and split them by text.

    `learnt` are languages that the model is to learn, besides its own.

    Raises:
        UserError: With every error in the corpus.
    """
    rows, problems = read_raw_manifest(track.data.manifest, {*_model_languages(track), *learnt})
    if track.corpus is LANGUAGE:
        named = [row for row in rows if row.speaker is not None]
        problems += [problem("pipeline.several_voices", r.where, speaker=r.speaker) for r in named]
    published = MODEL_LANGUAGES.values()  # the recogniser's setting is for all others
    own = {row.audio_path: row.language for row in rows if row.language in published}

    def transcribe(clips: Sequence[Path], texts: Sequence[str]) -> list[str]:
        # torch and Whisper are loaded only for a corpus that can be used.
        from voxadapt.asr.whisper import Transcriber
        from voxadapt.pipeline.context import open_context

        context = open_context(params)
        whisper = Transcriber.from_params(track.asr, str(context.device), context.work_dir)
        languages = [own.get(clip) or whisper.language for clip in clips]
        found = whisper.transcribe_each(clips, texts, languages, context.executor)
        return [transcript.text for transcript in found]

    def embed(clips: Sequence[Path]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        from voxadapt.asr.voice_prints import Embedder
        from voxadapt.pipeline.context import open_context

        embedder = Embedder(str(open_context(params).device))
        progress = Progress("voices", len(clips), "clips")
        vectors, speech_s = np.zeros((len(clips), 256), np.float32), np.zeros(len(clips))
        for start in range(0, len(clips), EMBEDDED_AT_ONCE):
            some = embedder.embed(clips[start : start + EMBEDDED_AT_ONCE])
            for number, voice in enumerate(some, start=start):
                speech_s[number] = voice.speech_s
                if voice.embedding is not None:
                    vectors[number] = voice.embedding
            progress.advance(len(some))
        return vectors, speech_s

    limit = track.limits.max_error
    result = audit_corpus(
        rows, track.audit, track.split, track.data.manifest, problems, transcribe, limit, embed
    )
    corpus = track.corpus
    write_audit(result, corpus.manifest, corpus.clips, corpus.audit_metrics)
    return StageResult(result.sentence, result.metrics)


def _model_languages(track: Track) -> frozenset[str]:
    """Return the languages of the model that is adapted, or the published ones without it."""
    try:
        talker = read_json(Path(track.model.base) / "config.json")["talker_config"]
        return frozenset(talker["codec_language_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset(MODEL_LANGUAGES.values())

"""Stage `train`: fine-tune the Base on the speaker; one checkpoint an epoch."""

from collections.abc import Sequence
from pathlib import Path

from voxadapt.core import launch, paths
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import sha256_folder, write_json
from voxadapt.core.lineage import check_made, write_made
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import Params
from voxadapt.core.problems import problem
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.speakers import Speaker, choose_speakers
from voxadapt.pipeline.candidates import speakers_of_model
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.corpus_codes import read_corpus_codes
from voxadapt.pipeline.tracks import speaker_track
from voxadapt.training.trainer import train


@stage("train", memory="train.batch_size")
def run(params: Params, num_epochs: int | None = None) -> StageResult:
    """Fine-tune the Base on the speaker; publish one checkpoint per epoch.

    Without a number of epochs it is that of the last candidate.
    """
    track, context = speaker_track(params), open_context(params)
    inputs = [track.corpus.made_by_audit, track.corpus.made_by_codes]
    check_made(inputs, params)
    utterances = track.accepted()
    model_path = resolve_model(track.model)
    arrays = read_corpus_codes(model_path, utterances, track.corpus)
    base_sha256 = sha256_folder(model_path)
    speakers = _trained_speakers(track.speakers(), params.train.speakers, model_path)
    utterances = [row for row in utterances if any(row.id in who.ids for who in speakers)]
    result = train(
        params.train,
        model_path=model_path,
        utterances=utterances,
        codes=arrays,
        ref_audio=utterances[0].ref_audio,
        speakers={who.name: who.ref_audio for who in speakers if who.is_named} or None,
        out_dir=paths.CHECKPOINTS,
        work_dir=context.work_dir,
        num_epochs=num_epochs or params.num_epochs,
        tags={row.id: own for row in utterances if (own := track.language_of(row))},
        log_path=paths.TRAIN_LOG,
        device=context.device,
        attention=track.model.attention,
        base_sha256=base_sha256,
    )
    # What the zero-shot candidate is, so that every candidate has a folder here.
    if launch.is_main():
        write_json(
            paths.CHECKPOINTS / "base" / "meta.json",
            {"epoch": 0, "model": track.model.base, "base_sha256": base_sha256},
        )
        write_json(paths.TRAIN_METRICS, result.metrics)
        written = [paths.CHECKPOINTS, paths.TRAIN_LOG, paths.TRAIN_METRICS]
        keys = ("model.base", "model.revision", "model.speaker_encoder", "train")
        write_made(paths.MADE_BY_TRAIN, "train", written, inputs, params, keys)
    launch.destroy_process_group()
    last = result.checkpoints[-1].name
    whose = ", ".join(who.name for who in speakers)
    return StageResult(
        f"{len(result.checkpoints)} checkpoints of speaker{'s' if len(speakers) > 1 else ''} "
        f"{whose}, the last one {paths.CHECKPOINTS / last}.",
        result.metrics,
    )


def _trained_speakers(
    speakers: Sequence[Speaker], wanted: Sequence[str] | None, model_path: Path
) -> tuple[Speaker, ...]:
    """List the speakers that are trained."""
    trained = choose_speakers(speakers, wanted)
    there = speakers_of_model(model_path)
    missing = [who.name for who in speakers if who not in trained]
    known = ", ".join(sorted(there)) or "no speakers"
    problems = [
        problem("pipeline.unspoken_speaker", f"speaker {name}", there=known)
        for name in missing
        if name.lower() not in there
    ]
    raise_problems(problems, "Not every speaker of the manifest can be spoken.")
    return trained

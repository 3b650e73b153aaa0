"""Stage `language_stage2`: adapt the code predictor, if the decision says so."""

import shutil

from voxadapt.core import paths
from voxadapt.core.files import write_atomic, write_json
from voxadapt.core.lineage import check_made, write_made
from voxadapt.core.params import Params, Stage2Params, language_section
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.records import Record, read_record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import BASE, find_candidate
from voxadapt.pipeline.language.training import Output, train_on_recordings, train_params
from voxadapt.pipeline.tracks import language_track


@stage("language_stage2", memory="language.stage2.batch_size")
def run(params: Params) -> StageResult:
    """Adapt the code predictor from the best epoch of Stage 1, if the decision says so.

    Where it is not run, a record says why.
    """
    check_made([paths.LANGUAGE_DECISION], params)
    decision = read_record(paths.LANGUAGE_DECISION, "language decide")
    result = _adapt(params, decision) if decision["acts"] == "run" else _skip(decision)
    # Another gap alone does not run this stage again: what it was made from is whether it acts.
    written = [paths.LANGUAGE_STAGE2, paths.LANGUAGE_STAGE2_METRICS, paths.LANGUAGE_STAGE2_LOG]
    inputs = [LANGUAGE.made_by_audit, LANGUAGE.made_by_codes]
    decided = {"mode", "max_gap", "if_undecided"}
    trained = sorted(Stage2Params.model_fields.keys() - decided)
    keys = ("model.base", "model.revision", *(f"language.stage2.{name}" for name in trained))
    write_made(paths.MADE_BY_STAGE2, "language stage2", written, inputs, params, keys)
    return result


def _adapt(params: Params, decision: Record) -> StageResult:
    """Train every epoch of Stage 2."""
    paths.LANGUAGE_STAGE2_SKIPPED.unlink(missing_ok=True)
    track, options = language_track(params), language_section(params).stage2
    chosen = decision["stage1"]["candidate"]
    trainer = train_params(params, options, options.lr)
    metrics = train_on_recordings(
        params,
        trainer.model_copy(update={"weight_decay": options.weight_decay}),
        "stage 2",
        options.num_epochs,
        Output(paths.LANGUAGE_STAGE2, paths.LANGUAGE_STAGE2_LOG),
        modules=("talker.code_predictor",),
        start=None if chosen == BASE else find_candidate(track, chosen).delta,
    )
    write_json(paths.LANGUAGE_STAGE2_METRICS, metrics | {"skipped": False})
    return StageResult(
        f"Stage 2: {metrics['num_trainable']:,} of {metrics['num_params']:,} parameters.", metrics
    )


def _skip(decision: Record) -> StageResult:
    """Write why Stage 2 is not run; drop what an earlier run left.

    The numbers stay in decision.json: a change in them alone does not run this stage again.
    """
    record = {"skipped": True, "reason": f"{paths.LANGUAGE_DECISION} says {decision['acts']}."}
    shutil.rmtree(paths.LANGUAGE_STAGE2, ignore_errors=True)
    write_json(paths.LANGUAGE_STAGE2_SKIPPED, record)
    write_json(paths.LANGUAGE_STAGE2_METRICS, record)
    write_atomic(paths.LANGUAGE_STAGE2_LOG, "step,epoch,loss\n")
    return StageResult(decision["reason"], None)

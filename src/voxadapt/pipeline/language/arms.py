"""`voxadapt compare`: other parts of the model, trained and scored with the same harness."""

import time
from collections.abc import Sequence
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import write_json
from voxadapt.core.lineage import sealed
from voxadapt.core.params import Params, in_stage2, language_scoring, language_section
from voxadapt.core.problems import problem
from voxadapt.core.records import Record, read_record
from voxadapt.core.stage import StageResult, stage
from voxadapt.pipeline.candidates import BASE, find_delta
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.language.choosing import read_language_scores
from voxadapt.pipeline.language.readings import read_texts
from voxadapt.pipeline.language.sentences import SOURCE, TARGET
from voxadapt.pipeline.language.speak_and_score import score_languages
from voxadapt.pipeline.language.stage1 import train_rows
from voxadapt.pipeline.language.training import Output, train_on_recordings, train_params
from voxadapt.training.adaptations.language import TALKER

#: How arms are named on the command line and in tables.
ARM_TITLES = {
    "audio_rows": "text rows from audio",
    "init_rows": "text rows set from the respelling",
    "text_projection": "text_projection and language row",
    "talker_lora": "LoRA on the talker",
    "full_talker": "talker without code predictor",
}


@stage("language_arms")
def run(params: Params, names: Sequence[str] | None = None) -> StageResult:
    """Train and score other parts of the model with the same harness; write one table.

    Without names they are those that `language.arms` switches on.
    """
    wanted = language_section(params).arms.enabled if names is None else tuple(names)
    problems = [
        problem("pipeline.no_arm", "arm", known=", ".join(ARM_TITLES), name=name)
        for name in wanted
        if name not in ARM_TITLES
    ]
    raise_problems(problems)
    if not wanted:
        return StageResult(
            f"No arm is switched on in language.arms, so {paths.LANGUAGE_ARMS_TABLE} stays as it "
            f"is. There are: {', '.join(ARM_TITLES)}."
        )
    listed = [_stages_entry()] if paths.LANGUAGE_SELECTION.is_file() else []
    for name in wanted:
        listed.append(_run_arm(params, name))
    compared = {"arms": listed, "base": _entry(BASE, paths.LANGUAGE_SCORES / BASE)}
    table = sealed(compared, f"compare {' '.join(wanted)}")
    write_json(paths.LANGUAGE_ARMS_TABLE, table)
    best = min(listed, key=lambda item: item["cer"]["point"])
    return StageResult(
        f"{len(wanted)} arms; lowest CER {100 * best['cer']['point']:.1f} % by {best['title']}.",
        table,
    )


def _run_arm(params: Params, name: str) -> Record:
    """Train one arm, score its epochs, and describe the one that the rule chooses."""
    folder = paths.LANGUAGE_ARMS / name
    began = time.monotonic()
    metrics = _train_arm(params, name, Output(folder / "deltas"))
    seconds = time.monotonic() - began
    context = open_context(params)
    candidates = {paths.LANGUAGE_SCORES / BASE: find_delta(params.model, BASE)}
    for delta in sorted((folder / "deltas").glob("epoch-*"), key=lambda p: int(p.name[6:])):
        candidate = find_delta(params.model, delta.name, delta)
        scores = folder / "scores" / delta.name
        score_languages(params, context, candidate, "selection", scores)
        candidates[scores] = candidate
    read = read_language_scores(params, candidates)
    choice = read.choose("language.arms.num_epochs")
    chosen = choice["chosen"]
    if chosen == BASE:  # every arm is shown by its best epoch, also when none beats the Base
        epochs = [item for item in choice["candidates"] if item["name"] != BASE]
        chosen = min(epochs, key=lambda item: item["cer"]["point"])["name"]
    return _entry(name, folder / "scores" / chosen) | {
        "title": ARM_TITLES[name],
        "epoch": chosen,
        "beats_base": choice["chosen"] != BASE,
        "forgetting": read.forgotten(chosen)["candidates"][chosen],
        "num_trainable": metrics["num_trainable"],
        "share": metrics["num_trainable"] / metrics["num_params"],
        "delta_bytes": metrics["delta_bytes"],
        "data": "text" if name == "init_rows" else "audio and text",
        "seconds": round(seconds, 1),
    }


def _train_arm(params: Params, name: str, output: Output) -> Record:
    """Train one arm and return its metrics."""
    language = language_section(params)
    arm = language.arms
    if name in ("audio_rows", "init_rows"):
        objective = "audio" if name == "audio_rows" else "rows"
        stage1 = language.stage1.model_copy(update={"objective": objective})
        names = (BASE, *(f"epoch-{n}" for n in range(1, arm.num_epochs + 1)))
        changed = language.model_copy(update={"stage1": stage1, "candidates": names})
        return train_rows(params, changed, output, read_texts(params, changed))
    modules = {"text_projection": ("talker.text_projection",), "full_talker": TALKER}
    return train_on_recordings(
        params,
        train_params(params, language.stage1, arm.lr),
        ARM_TITLES[name],
        arm.num_epochs,
        output,
        modules=modules.get(name, ()),
        lora_rank=arm.lora_rank if name == "talker_lora" else 0,
        with_rows=name == "full_talker",
    )


def _stages_entry() -> Record:
    """Describe the path that the pipeline took as a row of the arms' table."""
    decision = read_record(paths.LANGUAGE_SELECTION, "language confirm")
    chosen = decision["chosen"]
    folder = paths.LANGUAGE_STAGE2_SCORES if in_stage2(chosen) else paths.LANGUAGE_SCORES
    first = read_record(paths.LANGUAGE_STAGE1_METRICS, "language stage1")
    title, with_audio = f"Stage 1, {first['objective']}", first["objective"] == "audio"
    num_trainable, delta_bytes = first["num_trainable"], first["delta_bytes"]
    if in_stage2(chosen):
        second = read_record(paths.LANGUAGE_STAGE2_METRICS, "language stage2")
        kept = decision["stage1_choice"] != BASE
        title, with_audio = f"{title}; Stage 2" if kept else "Stage 2 alone", True
        num_trainable = second["num_trainable"] + (num_trainable if kept else 0)
        delta_bytes = second["delta_bytes"]
    return _entry("stages", folder / chosen) | {
        "title": title,
        "epoch": chosen,
        "beats_base": chosen != BASE,
        "forgetting": decision["forgetting"]["candidates"].get(chosen),
        "num_trainable": num_trainable,
        "share": num_trainable / first["num_params"],
        "delta_bytes": delta_bytes,
        "data": "audio and text" if with_audio else "text",
        "seconds": None,
    }


def _entry(name: str, folder: Path) -> Record:
    """Return what the arms' table shows of scores."""
    command = f"compare {name}" if name in ARM_TITLES else language_scoring(folder.name)
    found = {
        part: read_record(folder / part / "summary.json", command) for part in (TARGET, SOURCE)
    }
    shown = ("cer", "wer", "sim", "duration_ratio", "failure_rate")
    return {
        "name": name,
        **{key: found[TARGET][key] for key in shown},
        "source_cer": found[SOURCE]["cer"],
        "evaluator": found[TARGET]["evaluator"],
    }

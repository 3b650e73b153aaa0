"""A synthetic project whose language was adapted; decisions are the evaluation's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from reporting.world import SCALE, interval, make_params, write_corpus, write_log, write_rows
from voxadapt.core import paths
from voxadapt.core.files import write_json, write_jsonl
from voxadapt.core.params import LanguageParams, Params
from voxadapt.data.respelling import load_respelling
from voxadapt.reporting.records import language_scores
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow
from voxadapt.scoring.statistics import resample_weights
from voxadapt.selection import select as selection
from voxadapt.selection.confirm import confirm
from voxadapt.selection.forgetting import forgetting
from voxadapt.selection.stage2 import decide_stage2

MAP = Path("profiles/respelling/malay.yaml")
TEXTS = (
    "Saya beli payung di kedai.", "Merah itu bunga di taman.", "Dia pulang malam tadi.",
    "Kami makan nasi dan ikan.", "Hujan turun sepanjang hari.", "Rumah mereka dekat sungai.",
    "Kucing itu tidur di kerusi.", "Budak lari ke sekolah.",
)  # fmt: skip
SOURCE_TEXTS = (
    "The harbour was quiet before the storm.", "She counted the steps twice.",
    "A small lamp burned all night.", "Nobody had told the driver.",
)  # fmt: skip
QUALITY = {  # word loss, similarity
    "base": (0.75, 0.70), "epoch-1": (0.50, 0.71), "epoch-2": (0.30, 0.71),
    "epoch-3": (0.30, 0.71), "stage2-epoch-1": (0.16, 0.72), "stage2-epoch-2": (0.18, 0.60),
    "real": (0.01, 0.88), "codec": (0.05, 0.81),
}  # fmt: skip
SOURCE_QUALITY = {name: (0.08, sim) for name, (_, sim) in QUALITY.items()}
FORGETFUL = SOURCE_QUALITY | {"stage2-epoch-1": (0.8, 0.7)}


def make_language_params(max_gap: float = 0.05, **changes: Any) -> Params:
    """Make parameters of a language with three epochs of Stage 1 and two of Stage 2."""
    language = {
        "name": "malay", "asr_language": "ms", "text": "data/language/malay/text_only.jsonl",
        "audio": "data/language/malay/train_raw.jsonl", "respelling": MAP.as_posix(),
        "source": {"text": "data/speaker/train_raw.jsonl"},
        "candidates": ["base", "epoch-1", "epoch-2", "epoch-3"],
        "stage2": {"num_epochs": 2, "max_gap": max_gap},
        "select": {"primary": "error", "error_metric": "cer", "num_bootstrap": 200,
                   "similarity_margin": 0.05, "max_wrong_language": 1.0},
    } | changes  # fmt: skip
    base = make_params(max_grid_sentences=4)
    return base.model_copy(update={"language": LanguageParams.model_validate(language)})


def summarise(rows: list[ScoreRow], params: Params) -> dict[str, Any]:
    """Make a summary as `evaluation.scoring` does, without what the page does not show."""
    sample = Sample(rows, "cer", SCALE["floor"])
    weights = resample_weights(len(sample.text_ids), 200, 0)
    found = sample.intervals(weights, 0.95, SCALE["ceiling"], SCALE["floor"])
    flags = {flag: sum(flag in row.flags for row in rows) for flag in ("rate_high", "rate_low")}
    return {
        "schema": "voxadapt-summary/1", "candidate": rows[0].candidate, "flags": flags,
        **{name: value.as_dict() for name, value in found.items()},
        "n_expected": len(rows), "n_measured": len(rows), "n_failed": 0,
    }  # fmt: skip


def _counts(trained: dict[str, int]) -> list[dict[str, Any]]:
    present = {"talker.model.text_embedding": 78336, "talker.model.codec_embedding": 327680,
               "talker.model.layers": 3935360, "talker.code_predictor": 1811840}  # fmt: skip
    return [
        {"module": name, "num_params": count, "num_trainable": trained.get(name, 0)}
        for name, count in present.items()
    ]


def make_training(trained: dict[str, int], epochs: int, **more: Any) -> dict[str, Any]:
    """Make the metrics of a stage."""
    modules = _counts(trained)
    return {
        "run": "0123456789abcdef", "lr": 1e-3, "base_sha256": "b" * 64, "modules": modules,
        "num_params": sum(m["num_params"] for m in modules), "num_trainable": sum(trained.values()),
        "language_row": {"id": 617, "norm_before": 0.0066, "code_norm": 1.87, "near_zero": True,
                         "source": "mean of english, chinese", "init": "mean"},
        "epochs": [
            {"epoch": epoch, "step": 20 * epoch, "train": {"loss": 5.0 - 0.2 * epoch},
             "heldout": {"loss": 5.5 - 0.1 * epoch}, "lost_update_share": 0.0,
             "drift": {name: {"relative": 0.01 * epoch} for name in trained}}
            for epoch in range(1, epochs + 1)
        ],
        **more,
    }  # fmt: skip


def write_language_world(
    root: Path, params: Params, quality: dict[str, tuple[float, float]] = QUALITY,
    source_quality: dict[str, tuple[float, float]] = SOURCE_QUALITY, arms: bool = False,
) -> Path:  # fmt: skip
    """Write every file that the language's report reads, and return the root."""
    language = params.language
    assert language is not None
    rule, at = language.select, paths.LANGUAGE
    (root / MAP).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parents[2] / MAP, root / MAP)
    respelling = load_respelling(root / MAP)
    write_corpus(root, at, TEXTS, "data/language/malay")
    write_jsonl(root / paths.LANGUAGE_TEXTS, (
        {"id": f"line-{n}", "text": text, "respelling": respelling.respell(text), "findings": [
            {"severity": "warning", "rule": "digits", "message": "Expected words; found 3.",
             "value": "3", "limit": None}] if n == 2 else []}
        for n, text in enumerate(TEXTS)
    ))  # fmt: skip
    write_json(root / paths.LANGUAGE_TEXT_METRICS, {
        "num_lines": 10, "num_accepted": 8, "num_duplicates": 1, "num_held_out": 1,
        "num_warnings": 4, "warnings_by_rule": {"digits": 1, "duplicate_text": 1, "held_out": 1,
                                                "few_texts": 1},
        "file_warnings": [{"severity": "warning", "rule": "few_texts", "value": 8,
                           "message": "Expected 100 to 500 texts; found 8.", "limit": 100}],
        "num_words": 36, "num_distinct_words": 30, "median_words": 4.5, "num_tokens": 88,
        "longest_tokens": 14, "max_tokens": 4096, "script": "LATIN", "texts_sha256": "e" * 64,
    })  # fmt: skip

    rows: dict[str, list[ScoreRow]] = {}
    source: dict[str, list[ScoreRow]] = {}

    def write(name: str) -> None:
        for part, texts, known, lang, found in (
            ("target", TEXTS, quality, "ms", rows), ("source", SOURCE_TEXTS, source_quality, "en",
                                                     source),
        ):  # fmt: skip
            pseudo = name in ("real", "codec")
            if pseudo and part == "source":
                continue
            folder = at.reference / name if pseudo else language_scores(name, part)
            made = write_rows(root, folder, name, texts, 1 if pseudo else 3, known, lang)
            found[name] = [ScoreRow.model_validate_json(json.dumps(row)) for row in made]
            write_json(root / folder / "summary.json", summarise(found[name], params))

    for name in (*language.candidates, "real", "codec"):
        write(name)
    references = {
        "scale": {key: interval(value) for key, value in SCALE.items()},
        "real": rows["real"], "codec": rows["codec"],
    }  # fmt: skip
    first = {name: rows[name] for name in language.candidates}
    choice = selection.select(first, rule, what="adapt", **references)
    start = choice["chosen"]
    choice["forgetting"] = forgetting(source["base"], source, rule, chosen=start)
    write_json(root / paths.LANGUAGE_CHOICE1, choice)
    decision = decide_stage2(rows[start], rows["codec"], language.stage2, rule)
    write_json(root / paths.LANGUAGE_DECISION, decision)
    text_rows = {"talker.model.text_embedding": 12288, "talker.model.codec_embedding": 256}
    write_json(root / paths.LANGUAGE_STAGE1_METRICS, make_training(
        text_rows, 3, num_rows=49, delta_bytes=26112, objective="respelling"))  # fmt: skip
    write_log(root / paths.LANGUAGE_STAGE1_LOG)

    kept = ["base", start]
    if decision["acts"] == "run":
        second = [f"stage2-epoch-{n}" for n in range(1, language.stage2.num_epochs + 1)]
        kept += second
        for name in second:
            write(name)
        ranked = {name: rows[name] for name in kept}
        final = selection.select(ranked, rule, start=start, **references)
        predictor = {"talker.code_predictor": 1811840}
        write_json(root / paths.LANGUAGE_STAGE2_METRICS, make_training(
            predictor, 2, num_rows=0, delta_bytes=3649792, skipped=False))  # fmt: skip
        write_log(root / paths.LANGUAGE_STAGE2_LOG)
    else:
        final = dict(choice)
        reason = {"reason": decision["reason"]}
        write_json(root / paths.LANGUAGE_STAGE2 / "skipped.json", reason)
        write_json(root / paths.LANGUAGE_STAGE2_METRICS, {"skipped": True} | reason)
        path = root / paths.LANGUAGE_STAGE2_LOG
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("step,epoch,loss\n")
    chosen = final["chosen"]
    heard = {name: source[name] for name in dict.fromkeys(kept)}
    final["forgetting"] = forgetting(source["base"], heard, rule, chosen=chosen)
    write_json(root / paths.LANGUAGE_SELECTION, final)
    unseen = {
        name: [row.model_copy(update={"split": "confirmation"}) for row in rows[name]]
        for name in {"base", chosen}
    }
    write_json(root / paths.LANGUAGE_CONFIRM, confirm(
        unseen["base"], unseen[chosen], rule, scale=references["scale"], selection=final
    ))  # fmt: skip
    if arms:
        write_json(root / paths.LANGUAGE_ARMS_TABLE, make_arms(final))
    return root


def make_arms(final: dict[str, Any]) -> dict[str, Any]:
    """Make the table of arms."""
    scores = {"cer": interval(0.3), "wer": interval(0.5), "sim": interval(0.7),
              "duration_ratio": interval(1.0), "failure_rate": interval(0.01),
              "source_cer": interval(0.05)}  # fmt: skip
    known = final["forgetting"]["candidates"][final["chosen"]]
    arm = scores | {
        "name": "talker_lora", "title": "LoRA on the talker", "epoch": "epoch-3",
        "beats_base": True, "forgetting": known, "num_trainable": 90112, "share": 0.0146,
        "delta_bytes": 361000, "data": "audio and text", "seconds": 93.5,
    }  # fmt: skip
    stages = arm | {"name": "stages", "title": "Stage 1, respelling", "seconds": None}
    return {"base": scores | {"name": "base"}, "arms": [stages, arm]}

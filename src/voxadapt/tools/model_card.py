"""The model card of an exported folder: metadata for the Hub, then Markdown."""

import json
import re
from html import escape
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData

from voxadapt.core.records import Record
from voxadapt.core.templating import new_environment
from voxadapt.tools.exported import MEASURES, describe_consent

TEMPLATES = Path(__file__).parent / "templates"


def render_card(facts: Record) -> str:
    """Render the model card from the facts of an export: front matter, then Markdown."""
    # Markdown, so values are escaped for it and not for HTML.
    environment = new_environment(
        TEMPLATES, autoescape=False, keep_trailing_newline=True, finalize=_markdown
    )
    recorded, consent = describe_consent(facts)
    return environment.get_template("model_card.md.j2").render(
        facts=facts,
        front_matter=_Plain(front_matter(facts)),
        measures=MEASURES,
        interval=_with_interval,
        metric=facts["scores"]["error_metric"],
        consent=consent,
        consent_recorded=recorded,
        percent=f"{100 * facts['scores']['confidence']:g} %",
        speaker=_quoted(facts.get("speaker")),
        language=_quoted(str(facts.get("language", facts.get("spoken_as"))).capitalize()),
    )


class _Plain(str):
    """Text that goes into the card as it is."""


def _quoted(value: object) -> _Plain:
    """Write a value as a literal of Python."""
    return _Plain(json.dumps(value, ensure_ascii=False))


def _markdown(value: object) -> object:
    """Escape what would be Markdown or HTML in a value."""
    if not isinstance(value, str) or isinstance(value, _Plain):
        return value
    text = escape(" ".join(value.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)


def front_matter(facts: Record) -> str:
    """Return the card's metadata as YAML: what the Hub reads."""
    scores = facts["scores"]
    results = []
    if scores["confirmed"]:
        for key, kind, title, factor, unit in MEASURES[:4]:
            found = scores["measures"][key]["chosen"]
            if found["point"] is None:
                continue
            low, high = (_times(found[end], factor) for end in ("low", "high"))
            results.append(
                EvalResult(
                    task_type="text-to-speech", task_name="Text to speech", dataset_type="private",
                    dataset_name="held-out sentences of the corpus (confirmation split)",
                    dataset_split="confirmation", metric_type=kind,
                    metric_name=f"{title}{', ' + unit if unit else ''}",
                    metric_value=_times(found["point"], factor),
                    metric_args={"confidence": scores["confidence"], "low": low, "high": high,
                                 "num_clips": found["n"], "num_sentences": scores["num_texts"]},
                )
            )  # fmt: skip
    data = ModelCardData(
        license=facts["licence"]["model"] or "unknown",
        base_model=facts["base"]["hub_id"],
        language=facts["languages"],
        library_name="qwen-tts",
        pipeline_tag="text-to-speech",
        tags=["voxadapt", "qwen3-tts", "text-to-speech", f"{facts['kind']}-adaptation"],
        model_name=facts["name"],
        eval_results=results or None,
        base_model_relation=("adapter" if facts["form"] == "delta" else "finetune")
        if facts["base"]["hub_id"]
        else None,
    )
    return str(yaml.safe_dump(data.to_dict(), sort_keys=False, allow_unicode=True))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 4)


def _with_interval(found: Record | None, factor: float, unit: str, signed: bool = False) -> _Plain:
    if found is None or found["point"] is None:
        return _Plain("–" if found is None else "not measured")
    digits, sign = (1 if factor > 1 else 3), ("+" if signed else "")
    unit = {"%": " points" if signed else " %"}.get(unit, unit)
    point = f"{factor * found['point']:{sign}.{digits}f}{unit}"
    if found["low"] is None:
        return _Plain(point)
    low, high = (f"{factor * found[end]:{sign}.{digits}f}" for end in ("low", "high"))
    return _Plain(f"{point} [{low}, {high}]")

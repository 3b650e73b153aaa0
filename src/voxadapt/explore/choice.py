"""Why this epoch: the decision taken apart, from the rows that made it.

What `reports/selection.json` says is computed again here, with the same resamples, so that the
steps between the rows and the decision can be looked at, and the rule be changed to see how near
the decision was. Nothing is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from matplotlib.axes import Axes
from pydantic import ValidationError

from voxadapt.core import paths
from voxadapt.core.errors import UserError, raise_problems
from voxadapt.core.params import Params, SelectParams
from voxadapt.core.problems import problem
from voxadapt.core.records import Record, with_wav_paths
from voxadapt.explore.project import read_decision, require_files
from voxadapt.explore.selects import Selects
from voxadapt.reporting import decision
from voxadapt.reporting.figures import LIGHT, Plot, draw_front, remove_frame
from voxadapt.reporting.players import Html, clip_list, diff_html
from voxadapt.reporting.tables import NONE, frame, number, percent, title, typeset
from voxadapt.scoring.measures import Sample
from voxadapt.scoring.rows import ScoreRow, ranked, read_scores, rows_sha
from voxadapt.scoring.statistics import Array, Ratio, resample_weights

STATES = {"passed": "#0b6e63", "undecided": "#94630f", "failed": "#a8322a"}
PAIRED = {  # gates on a difference to the Base: key in the record, label, factor
    "error": ("error minus the Base's, points", 100.0),
    "failure_rate": ("failures minus the Base's, points", 100.0),
    "similarity": ("similarity minus the Base's", 1.0),
    "duration_ratio": ("spoken / expected duration", 1.0),
}
MARKERS = "sovD^P<X>"  # of candidates, the Base's first
FEWER_BOOTSTRAP = 400  # resamples of each decision on fewer sentences


@dataclass(frozen=True)
class Choice:
    """A decision and the rows that it was made from."""

    record: Record  # what `selection.json` holds
    rule: SelectParams
    rows: Mapping[str, Sequence[ScoreRow]]  # by candidate, sentences with digits included
    samples: Mapping[str, Sample]  # sums per text, of the sentences that decide
    weights: Array  # how often each of T texts is drawn in each of B resamples, [B, T]

    @property
    def eligible(self) -> list[str]:
        """Candidates that passed the gates, the Base first."""
        return [c["name"] for c in self.record["candidates"] if c["eligible"]]

    @property
    def sentence(self) -> str:
        """The decision in words."""
        return typeset(str(self.record["reason"]))

    @property
    def measure(self) -> str:
        """What the rule ranks by, in words."""
        similarity = self.rule.primary == "similarity"
        return "similarity" if similarity else self.rule.error_metric.upper()

    def colour(self, name: str, other: str) -> str:
        """Return the colour of a candidate, `other` for those that are neither chosen nor Base."""
        if name == self.record["chosen"]:
            return LIGHT.chosen
        return LIGHT.base if name == "base" else other

    def primary(self, name: str) -> Ratio:
        """Return what the rule ranks a candidate by."""
        sample = self.samples[name]
        return sample.sim if self.rule.primary == "similarity" else sample.error


def read_choice(params: Params) -> Choice:
    """Read the decision and the rows of its candidates; refuse rows that it was not made from."""
    record = read_decision()
    names = [candidate["name"] for candidate in record["candidates"]]
    require_files({paths.SCORES / name / "rows.jsonl": f"score@{name}" for name in names})
    rows = {name: read_scores(paths.SCORES / name) for name in names}
    stale = [name for name in names if rows_sha(rows[name]) != record["inputs"][name]]
    problems = [problem("explore.other_rows", paths.SCORES / name) for name in stale]
    raise_problems(problems, "The decision is older than the scores.")
    rule = SelectParams(**{k: v for k, v in record["rule"].items() if k != "text"})
    floor = None if record["scale"] is None else record["scale"]["floor"]
    samples = {name: Sample(ranked(rows[name]), rule.error_metric, floor) for name in names}
    num_texts = len(samples[names[0]].text_ids)
    return Choice(record, rule, rows, samples,
                  resample_weights(num_texts, rule.num_bootstrap, rule.seed))  # fmt: skip


# --- the steps -----------------------------------------------------------------------------------


def steps(found: Choice) -> pandas.DataFrame:
    """Walk through the rule: who was left after each step, and who went."""
    rows = [
        {"step": row["step"], "left": _named(row["left"]), "went": _named(row["went"])}
        for row in decision.steps(found.record)
    ]
    return frame(rows, "step")


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(title, names)) or NONE


def gates(found: Choice) -> Plot:
    """Draw each gate: a candidate's value with its interval, and the limit it must keep to."""
    listed = found.record["candidates"]
    shown = {gate["name"] for candidate in listed for gate in candidate["gates"]}
    panels = [name for name in PAIRED if name in shown]
    figure = Plot(figsize=(3.0 * len(panels), 0.34 * len(listed) + 1.3), layout="constrained",
                  facecolor=LIGHT.card)  # fmt: skip
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels,
                           strict=True):  # fmt: skip
        label, factor = PAIRED[panel]
        for y, candidate in enumerate(listed):
            for gate in candidate["gates"]:
                if gate["name"] != panel or gate["value"] is None:
                    continue
                colour = STATES[gate["state"]]
                if gate["low"] is not None:
                    axes.plot((factor * gate["low"], factor * gate["high"]), (y, y), color=colour,
                              linewidth=1.8)  # fmt: skip
                axes.plot(factor * gate["value"], y, "o", color=colour, markersize=6.5)
                limits = gate["limit"] if isinstance(gate["limit"], list) else [gate["limit"]]
                for limit in limits:
                    axes.axvline(factor * limit, color=LIGHT.ink, linewidth=0.9, linestyle=":")
        axes.set_xlabel(label, fontsize=8.5)
        axes.set_yticks(range(len(listed)), [title(c["name"]) for c in listed])
        _plain(axes)
    figure.axes[0].invert_yaxis()
    handles = [figure.axes[0].plot([], [], "o", color=c, label=s)[0] for s, c in STATES.items()]
    figure.legend(handles=handles, loc="outside upper left", frameon=False, fontsize=8.5, ncols=3,
                  labelcolor=LIGHT.ink)  # fmt: skip
    return figure


def differences(found: Choice) -> Plot:
    """Draw the bootstrap of each eligible candidate's difference to the best, pair by pair.

    All candidates said the same sentences, so that each resample gives one difference, not two
    numbers to be compared. Grey: closer than the tie of the rule.
    """
    best = found.record["best"]
    others = [name for name in found.eligible if name != best]
    figure, axes = _new_axes(7.0, 0.62 * max(1, len(others)) + 1.1)
    reference = found.primary(best).draws(found.weights)
    for y, name in enumerate(others):
        draws = found.primary(name).draws(found.weights) - reference
        counts, edges = np.histogram(draws, bins=48)
        colour = found.colour(name, LIGHT.other)
        tops = y - 0.82 * counts / max(1, counts.max())
        axes.fill_between(edges[:-1], tops, y, step="post", color=colour, alpha=0.7, linewidth=0)
        point = found.primary(name).point - found.primary(best).point
        axes.plot((point, point), (y - 0.86, y), color=LIGHT.ink, linewidth=1.2)
    axes.axvline(0.0, color=LIGHT.ink, linewidth=0.9)
    if found.rule.primary == "similarity":
        tie = found.rule.similarity_tie
        axes.axvspan(-tie, tie, color=LIGHT.ink, alpha=0.07, linewidth=0)
    axes.set_yticks(range(len(others)), [title(name) for name in others])
    axes.invert_yaxis()
    axes.set_xlabel(
        f"{found.measure} minus that of {title(best).lower()}, resampled sentences", fontsize=9
    )
    return figure


def front(found: Choice, clouds: int = 400) -> Plot:
    """Draw error against similarity, `clouds` resamples of each candidate, the Pareto front."""
    figure, axes = _new_axes(7.0, 4.4)
    record, metric = found.record, found.rule.error_metric
    palette = ("#5b8fc7", "#8d98a3", "#7a5ea8", "#c0695e", "#5d8a4a", "#b88a2b", "#3d6f8e")
    for index, candidate in enumerate(record["candidates"]):
        name, sample = candidate["name"], found.samples[candidate["name"]]
        chosen = name == record["chosen"]
        colour = found.colour(name, palette[index % 7])
        weights = found.weights[:clouds]
        axes.plot(sample.sim.draws(weights), 100 * sample.error.draws(weights), ".", color=colour,
                  markersize=2.5, alpha=0.25, zorder=1)  # fmt: skip
        share = "gated out"
        if candidate["eligible"]:
            share = percent(candidate["pareto_probability"], 0)
        axes.plot(
            sample.sim.point, 100 * sample.error.point, MARKERS[index % 9], color=colour, zorder=3,
            markersize=10 if chosen else 7, label=f"{title(name)}, {share}",
            markerfacecolor=colour if candidate["eligible"] else LIGHT.card,
        )  # fmt: skip
    best = [found.samples[c["name"]] for c in record["candidates"] if c["pareto"]]
    draw_front(axes, [(sample.sim.point, 100 * sample.error.point) for sample in best], LIGHT)
    axes.set_xlabel("similarity to the voice (right is better)", fontsize=9)
    axes.set_ylabel(f"{metric.upper()}, % (lower is better)", fontsize=9)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=LIGHT.ink, loc="center left",
                bbox_to_anchor=(1.0, 0.5), title="on the front", title_fontsize=8.5)  # fmt: skip
    return figure


def telling_sentences(
    found: Choice, first: str = "chosen", second: str | None = None, limit: int = 2
) -> Html:
    """Play the sentences on which two candidates differ the most, `limit` in either direction.

    The first may be `chosen`; without a second it is the best, or its runner-up, or the Base.
    """
    record = found.record
    first = record["chosen"] if first == "chosen" else first
    if second is None:
        rivals = (record["best"], record["runner_up"], *found.samples)
        second = next(name for name in rivals if name not in (None, first))
    known = ", ".join(found.samples)
    problems = [problem("explore.unknown_candidate", "candidate", known=known, found=name)
                for name in (first, second) if name not in found.samples]  # fmt: skip
    raise_problems(problems, "They cannot be compared.")
    ours, theirs = found.primary(first), found.primary(second)
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = ours.numerator / ours.denominator - theirs.numerator / theirs.denominator
    order = np.argsort(gains, kind="stable")
    picked = list(dict.fromkeys([*order[: -limit - 1 : -1], *order[:limit]]))
    texts = found.samples[first].text_ids
    items = []
    for index in picked:
        clips = {title(name): _middle(found, name, texts[index]) for name in (first, second)}
        said = [f"{name}: {diff_html(clip['text_norm'], clip['hyp_norm'])}"
                for name, clip in clips.items()]  # fmt: skip
        similar = found.measure == "similarity"
        gain = number(gains[index] if similar else 100 * gains[index], 3 if similar else 1, True)
        text = clips[title(first)]["text"]
        items.append(
            {
                "title": f"{text} {texts[index]}: {found.measure} {gain}"
                + ("" if similar else " points"),
                "html": "<br>".join(said),
                "note": f"{title(first)} minus {title(second).lower()}, mean of the takes",
                "audio": [(name, clip.get("wav")) for name, clip in clips.items()],
            }
        )
    return clip_list(items)


def hear_any(found: Choice) -> None:
    """Play any clip that was scored: selects of candidate, utterance and take."""
    chosen = found.record["chosen"]
    names = sorted(found.rows, key=lambda name: name != chosen)
    takes = sorted({row.take for row in found.rows[chosen]})

    def show(candidate: str, utterance: str, take: str) -> Html:
        [row] = [row for row in found.rows[candidate]
                 if (row.text_id, row.take) == (utterance, int(take) - 1)]  # fmt: skip
        folder = paths.SCORES / candidate
        [clip] = with_wav_paths([row.model_dump()], folder, folder.parents[2])
        facts = [f"WER {percent(row.wer, 0)}", f"CER {percent(row.cer, 0)}",
                 f"similarity {number(row.sim)}", *row.flags]  # fmt: skip
        item = {"title": f"{utterance}, take {take}, {title(candidate)}", "text": row.text,
                "html": diff_html(row.text_norm, row.hyp_norm),
                "note": "; ".join(facts).replace("_", " "), "audio": clip.get("wav")}  # fmt: skip
        return clip_list([item])

    Selects(
        candidate=names,
        utterance=sorted({row.text_id for row in found.rows[chosen]}),
        take=[str(take + 1) for take in takes],
    ).draw(show)


def _middle(found: Choice, name: str, text_id: str) -> Record:
    """Return the take of a sentence whose similarity is in the middle, with an openable path."""
    takes = [row for row in found.rows[name] if row.text_id == text_id]
    takes.sort(key=lambda row: (-1.0 if row.sim is None else row.sim, row.take))
    folder = paths.SCORES / name
    [row] = with_wav_paths([takes[len(takes) // 2].model_dump()], folder, folder.parents[2])
    return row


# --- what if -------------------------------------------------------------------------------------


def what_if(found: Choice, *changes: Record) -> pandas.DataFrame:
    """Decide again by other rules, one mapping of `select` in `params.yaml` a line of the table.

    A rule that is changed after looking is no rule any more: this shows how near the decision was,
    and decides nothing.
    """
    lines = [_line("as written", found.record)]
    for change in changes:
        rule = _changed(found.rule, change)
        words = ", ".join(
            f"{key}: {value:g}" if isinstance(value, float) else f"{key}: {value}"
            for key, value in change.items()
        )
        lines.append(_line(words, decision.decide_again(found.record, found.rows, rule)))
    return frame(lines, "rule")


def _changed(rule: SelectParams, change: Record) -> SelectParams:
    try:
        return SelectParams.model_validate(rule.model_dump() | dict(change))
    except ValidationError as error:
        problems = [
            problem("explore.wrong_value", "select." + ".".join(map(str, item["loc"])),
                    expected=item["msg"], found=repr(item.get("input")))
            for item in error.errors()
        ]  # fmt: skip
        raise UserError(problems) from None


def _line(rule: str, record: Record) -> dict[str, str]:
    gone = [c["name"] for c in record["candidates"] if not c["eligible"]]
    return {
        "rule": rule,
        "chosen": title(record["chosen"]),
        "best": title(record["best"]),
        "cannot be told from it": _named([n for n in record["tied"] if n != record["best"]]),
        "gated out": _named(gone),
    }


def fewer_sentences(
    found: Choice, sizes: Sequence[int] = (10, 20, 40), repeats: int = 20
) -> pandas.DataFrame:
    """Decide again on random parts of the sentences: how often would each candidate be chosen?

    `repeats` parts are drawn of each size; sizes that are not fewer than there are, are left out.
    """
    names = list(found.samples)
    texts = found.samples[names[0]].text_ids
    rule = found.rule.model_copy(update={"num_bootstrap": FEWER_BOOTSTRAP})
    generator = np.random.default_rng(found.rule.seed)
    lines = []
    for size in (size for size in sizes if 2 <= size < len(texts)):
        counts = dict.fromkeys(names, 0)
        for _ in range(repeats):
            part = set(generator.choice(texts, size, replace=False))
            rows = {name: [row for row in found.rows[name] if row.text_id in part]
                    for name in names}  # fmt: skip
            counts[decision.decide_again(found.record, rows, rule)["chosen"]] += 1
        shares = {title(name): percent(count / repeats, 0) for name, count in counts.items()}
        lines.append({"sentences": str(size), **shares})
    chosen = {title(n): "chosen" if n == found.record["chosen"] else NONE for n in names}
    lines.append({"sentences": f"{len(texts)}, all", **chosen})
    return frame(lines, "sentences")


def _new_axes(width_in: float, height_in: float) -> tuple[Plot, Axes]:
    figure = Plot(figsize=(width_in, height_in), layout="constrained", facecolor=LIGHT.card)
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    """Set the colours of the axes, with lines across."""
    axes.set_facecolor(LIGHT.card)
    remove_frame(axes, LIGHT, label_size=8.5)
    axes.grid(axis="x", color=LIGHT.line, linewidth=0.8)
    axes.set_axisbelow(True)

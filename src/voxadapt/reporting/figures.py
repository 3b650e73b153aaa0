"""Matplotlib figures, made without pyplot so that nothing depends on a backend or on order.

Notebooks show them as PNG. The pages hold them as SVG whose colours are the page's variables and
whose text is text: one drawing serves light and dark paper and any zoom.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist

# Every artist's class gets a help text when it is made: a third of matplotlib's import.
if hasattr(Artist, "_update_set_signature_and_docstring"):
    Artist._update_set_signature_and_docstring = classmethod(lambda artist: None)

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from voxadapt.core import paths
from voxadapt.core.files import read_json, read_jsonl
from voxadapt.core.params import candidate_name, in_stage2
from voxadapt.core.paths import SPEAKER, Corpus
from voxadapt.core.records import Record
from voxadapt.reporting.records import read_log
from voxadapt.reporting.tables import percent, title


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours and width of a figure; the colours' names are variables of the pages' style."""

    ink: str
    quiet: str
    line: str
    card: str
    base: str
    other: str
    chosen: str
    width_in: float = 5.4


LIGHT = Theme("#22211f", "#6b6862", "#e3dfd5", "#ffffff", "#94630f", "#8d98a3", "#0b6e63")
NARROW = replace(LIGHT, width_in=3.5)  # for phones, where a wide figure's words would be too small


class Plot(Figure):
    """A figure that notebooks show as PNG whether or not `%matplotlib inline` was called."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Render a figure to PNG bytes that are equal for equal figures."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, prefix: str) -> str:
    """Render a figure as an `<svg>` element, equal for equal figures.

    Args:
        figure: Drawn with the colours of `LIGHT`, which become variables.
        prefix: Of its elements' ids, different for every figure of a page.

    Returns:
        The element: as wide as the place it is put in, without a font family of its own.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "voxadapt"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"(font: (?:[a-z0-9]+ )*[\d.]+px) [^;\"]*", r"\1 inherit", text)
    used = set(re.findall(r"(?:href=\"|url\()#([\w.]+)", text))
    text = re.sub(
        r' id="([\w.]+)"',
        lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "",
        text,
    )
    text = re.sub(r"(?:xlink:)?href=\"#", f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    for name in ("ink", "quiet", "line", "card", "base", "other", "chosen"):
        text = text.replace(getattr(LIGHT, name), f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", text)


def _axes(theme: Theme, height_in: float = 3.2) -> tuple[Plot, Axes]:
    figure = Plot(figsize=(theme.width_in, height_in), layout="constrained", facecolor=theme.card)
    axes = figure.subplots()
    _dress(axes, theme)
    return figure, axes


def _dress(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.card)
    axes.grid(axis="y", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.quiet)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0, pad=5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.quiet, fontsize=9)


def remove_frame(axes: Axes, theme: Theme, label_size: float) -> None:
    """Take the frame off and set the colours and the size of the words."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(colors=theme.ink, labelsize=label_size, length=0, pad=4)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.quiet)


def _legend(axes: Axes, theme: Theme, num_columns: int) -> None:
    """Put the legend above the axes."""
    axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.ink, ncols=num_columns,
                loc="lower center", bbox_to_anchor=(0.5, 1.0))  # fmt: skip


def _note(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    coordinates: str | tuple[str, str] = "data",
    **style: object,
) -> None:
    """Write a few words `offset` points away from a place."""
    axes.annotate(text, at, xycoords=coordinates, xytext=offset, textcoords="offset points",
                  **style)  # type: ignore[arg-type]  # fmt: skip


def _colour(name: str, chosen: str, theme: Theme) -> str:
    return theme.chosen if name == chosen else theme.base if name == "base" else theme.other


def _word_colour(name: str, chosen: str, theme: Theme) -> str:
    colour = _colour(name, chosen, theme)
    return theme.quiet if colour == theme.other else colour  # grey enough to be read


def _per_candidate(
    selection: Record,
    key: str,
    label: str,
    lines: Sequence[tuple[str, float | None, str]],
    theme: Theme,
    factor: float = 1.0,
) -> Plot:
    """Draw one measure per candidate: points, bands of their intervals, labelled reference lines.

    The Base's interval is drawn across the whole figure: what lies beyond it is a change.
    """
    figure, axes = _axes(theme)
    listed, chosen = selection["candidates"], selection["chosen"]
    for stage in (False, True):
        _band(
            axes,
            [
                (x, *(factor * c[key][end] for end in ("low", "point", "high")))
                for x, c in enumerate(listed)
                if c["name"] != "base"
                and in_stage2(c["name"]) == stage
                and c[key]["low"] is not None
            ],
            theme,
        )
    for x, candidate in enumerate(listed):
        value = candidate[key]
        if value["point"] is None:
            continue
        colour = _colour(candidate["name"], chosen, theme)
        if value["low"] is not None:
            low, high = factor * value["low"], factor * value["high"]
            axes.plot((x, x), (low, high), color=colour, linewidth=1.6, zorder=3)
            if candidate["name"] == "base":
                axes.axhspan(low, high, color=theme.base, alpha=0.14, linewidth=0, zorder=0)
        _mark(axes, x, factor * value["point"], candidate, chosen, theme, sizes=(6.5, 9))
    for _, level, style in lines:
        if level is not None:
            axes.axhline(factor * level, color=theme.ink, linewidth=0.9, linestyle=style, zorder=2)
    axes.set_ylabel(label)
    names = [c["name"] for c in listed]
    axes.set_xticks(range(len(names)), [_tick(name) for name in names])
    hollow = "; hollow: gated out" if any(not c["eligible"] for c in listed) else ""
    axes.set_xlabel(f"epoch{_second(names)}{hollow}")
    for tick, candidate in zip(axes.get_xticklabels(), listed, strict=True):
        tick.set_color(_word_colour(candidate["name"], chosen, theme))
        tick.set_fontweight("bold" if candidate["name"] == chosen else "normal")
    axes.set_xlim(-0.5, len(listed) - 0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.08 * (high - low))
    _name_lines(
        axes,
        [(text, factor * level) for text, level, _ in lines if level is not None],
        [None if c[key]["point"] is None else factor * c[key]["point"] for c in listed],
        theme,
    )
    return figure


def _mark(
    axes: Axes,
    x: float,
    y: float,
    candidate: Record,
    chosen: str,
    theme: Theme,
    sizes: tuple[float, float],
) -> None:
    """Draw a candidate's point: the chosen one larger, one that failed a gate hollow."""
    colour = _colour(candidate["name"], chosen, theme)
    face = colour if candidate["eligible"] else theme.card
    axes.plot(x, y, "o", color=colour, markersize=sizes[candidate["name"] == chosen],
              markerfacecolor=face, markeredgewidth=1.6, zorder=4)  # fmt: skip


def _band(axes: Axes, points: Sequence[tuple[float, float, float, float]], theme: Theme) -> None:
    """Join candidates by a line and the ends of their intervals by a band."""
    if len(points) < 2:
        return
    xs, lows, middles, highs = zip(*points, strict=True)
    axes.fill_between(xs, lows, highs, color=theme.other, alpha=0.22, linewidth=0, zorder=1)
    axes.plot(xs, middles, color=theme.other, linewidth=1.0, zorder=2)


def _name_lines(
    axes: Axes,
    lines: Sequence[tuple[str, float]],
    values: Sequence[float | None],
    theme: Theme,
) -> None:
    """Write the names of horizontal lines where no point is near, and not over one another."""
    low, high = axes.get_ylim()
    above = None
    for text, level in sorted(lines, key=lambda line: -line[1]):
        room = [1.0 if v is None else abs(v - level) / (high - low) for v in values]
        third = max(1, len(room) // 3)
        right = min(room[-third:]) > min(room[:third])
        tight = above is not None and above - level < 0.07 * (high - low)
        _note(
            axes, text, (1.0 if right else 0.0, level), (-2 if right else 2, -3 if tight else 3),
            ("axes fraction", "data"), ha="right" if right else "left",
            va="top" if tight else "bottom", fontsize=8.5, color=theme.quiet, zorder=5,
        )  # fmt: skip
        above = level


def _tick(name: str) -> str:
    """Name a candidate below an axis: `Base`, `3`, `S2·1`."""
    return title(name).removeprefix("Epoch ").replace("Stage 2, epoch ", "S2·")


def _second(names: Sequence[str]) -> str:
    return "; S2: Stage 2" if any(map(in_stage2, names)) else ""


def similarity(selection: Record | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw speaker similarity per candidate between floor and ceiling."""
    selection = selection or read_json(paths.SELECTION)
    scale = selection["scale"] or {}
    lines = [
        ("ceiling: real recordings", scale.get("ceiling"), "--"),
        ("after the codec", scale.get("codec_ceiling"), "-."),
        ("floor: other voices", scale.get("floor"), ":"),
    ]
    return _per_candidate(selection, "sim", "similarity (SIM-resemblyzer)", lines, theme)


def errors(selection: Record | None = None, metric: str = "wer", theme: Theme = LIGHT) -> Plot:
    """Draw word or character error per candidate, with what recordings score as a line."""
    selection = selection or read_json(paths.SELECTION)
    lines = [
        (label, (selection[key] or {}).get(metric, {}).get("point"), style)
        for key, label, style in (
            ("codec_floor", "recordings after the codec", "-."),
            ("asr_floor", "recordings", "--"),
        )
    ]
    figure = _per_candidate(selection, metric, ERRORS[metric], lines, theme, factor=100.0)
    axes = figure.axes[0]
    axes.set_ylim(-0.02 * axes.get_ylim()[1], axes.get_ylim()[1])
    return figure


def rate(selection: Record | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw the drift of the speaking rate: spoken / expected duration and the gate's band."""
    selection = selection or read_json(paths.SELECTION)
    low, high = selection["rule"]["duration_ratio"]
    lines = [
        (f"gate: at most {high:g}", high, ":"),
        ("", 1.0, "-"),
        (f"gate: at least {low:g}", low, ":"),
    ]
    label = "spoken / expected duration"
    figure = _per_candidate(selection, "duration_ratio", label, lines, theme)
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    margin = 0.12 * (high - low)
    bottom, top = min(bottom, low - margin), max(top, high + margin)
    axes.axhspan(high, top, color=theme.ink, alpha=0.06, linewidth=0, zorder=0)
    axes.axhspan(bottom, low, color=theme.ink, alpha=0.06, linewidth=0, zorder=0)
    axes.set_ylim(bottom, top)
    return figure


ERRORS = {"wer": "word error rate (%)", "cer": "character error rate (%)"}


def trade_off(selection: Record | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw error against similarity with both intervals, and the Pareto front.

    The front joins the candidates that no other beats in both; what lies in the shade is beaten in
    both. A label's share says how often the candidate is on the front when the sentences are
    redrawn. Candidates that failed a gate are hollow and have no share.
    """
    selection = selection or read_json(paths.SELECTION)
    metric, chosen = selection["rule"]["error_metric"], selection["chosen"]
    figure, axes = _axes(theme, height_in=0.3 * theme.width_in + 2.2)
    axes.grid(axis="x", color=theme.line, linewidth=0.8)
    listed = [
        c
        for c in selection["candidates"]
        if c["sim"]["point"] is not None and c[metric]["point"] is not None
    ]
    for c in listed:
        colour = _colour(c["name"], chosen, theme)
        x, y = c["sim"]["point"], 100 * c[metric]["point"]
        if c["sim"]["low"] is not None:
            axes.plot((c["sim"]["low"], c["sim"]["high"]), (y, y), color=colour, linewidth=1.3)
        if c[metric]["low"] is not None:
            ends = (100 * c[metric]["low"], 100 * c[metric]["high"])
            axes.plot((x, x), ends, color=colour, linewidth=1.3)
        _mark(axes, x, y, c, chosen, theme, sizes=(7, 10))
    second = _second([c["name"] for c in listed])
    axes.set_xlabel(f"similarity to the voice (right is better{second})")
    axes.locator_params(axis="x", nbins=6)
    axes.set_ylabel(f"{ERRORS[metric]}, lower is better")
    if not listed:
        return figure
    left, right = axes.get_xlim()
    bottom, top = max(0.0, axes.get_ylim()[0]), axes.get_ylim()[1]
    right += (0.36 if theme.width_in > NARROW.width_in else 0.55) * (right - left)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    _name_points(figure, listed, metric, chosen, theme)
    front = [(c["sim"]["point"], 100 * c[metric]["point"]) for c in listed if c["pareto"]]
    draw_front(axes, front, theme)
    return figure


def draw_front(axes: Axes, points: Sequence[tuple[float, float]], theme: Theme) -> None:
    """Draw the front as steps: the border of what is beaten in similarity and in error."""
    if not points:
        return
    axes.set_xlim(axes.get_xlim())  # the steps begin and end at the border
    axes.set_ylim(axes.get_ylim())
    xs: list[float] = [axes.get_xlim()[0]]
    ys: list[float] = []
    for x, y in sorted(points):
        xs += [x, x]
        ys += [y, y]
    top = axes.get_ylim()[1]
    ys.append(top)
    axes.plot(xs, ys, color=theme.chosen, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)
    axes.fill_between(xs, ys, top, color=theme.chosen, alpha=0.06, linewidth=0, zorder=0)


def _name_points(
    figure: Plot, listed: Sequence[Record], metric: str, chosen: str, theme: Theme
) -> None:
    """Write names to the right of the points, neighbours' in a column, none over another."""
    [axes] = figure.axes
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide = right - left
    line_high = 13 * (top - bottom) / (72 * figure.get_figheight() - 50)
    groups: list[list[Record]] = []
    for c in sorted(listed, key=lambda c: float(c["sim"]["point"])):
        if groups and c["sim"]["point"] - groups[-1][-1]["sim"]["point"] < 0.08 * wide:
            groups[-1].append(c)
        else:
            groups.append([c])
    taken: list[tuple[float, float]] = []
    for group in groups:
        column = max(c["sim"]["high"] or c["sim"]["point"] for c in group) + 0.035 * wide
        for c in sorted(group, key=lambda c: float(c[metric]["point"])):
            place = 100 * c[metric]["point"]
            for x, y in sorted(taken, key=lambda at: at[1]):
                if abs(x - column) < 0.28 * wide and abs(y - place) < line_high:
                    place = y + line_high
            taken.append((column, place))
            share = f", {percent(c['pareto_probability'], 0)}" if c["eligible"] else ""
            axes.annotate(
                (_tick(c["name"]) if in_stage2(c["name"]) else title(c["name"])) + share,
                (c["sim"]["point"], 100 * c[metric]["point"]),
                xytext=(column, place),
                textcoords="data",
                va="center",
                fontsize=9,
                fontweight="bold" if c["name"] == chosen else "normal",
                color=_word_colour(c["name"], chosen, theme),
                arrowprops={"arrowstyle": "-", "color": theme.other, "linewidth": 0.6,
                            "shrinkA": 0, "shrinkB": 6},
                zorder=5,
            )  # fmt: skip
    axes.set_ylim(bottom, max(top, max(place for _, place in taken) + line_high))


def p_best(selection: Record | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw how often each candidate is best when the sentences are resampled."""
    selection = selection or read_json(paths.SELECTION)
    figure, axes = _axes(theme, height_in=2.6)
    for x, candidate in enumerate(selection["candidates"]):
        value = candidate["p_best"]
        axes.bar(x, 100 * value, 0.62, color=_colour(candidate["name"], selection["chosen"], theme))
        _note(axes, percent(value, 0), (x, 100 * value), (0, 3), ha="center", fontsize=9,
              color=theme.ink)  # fmt: skip
    names = [_tick(c["name"]) for c in selection["candidates"]]
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("P(best), %")
    axes.set_ylim(0, 112)
    axes.set_yticks((0, 50, 100))
    return figure


LOSSES = {  # column: (label, held-out column)
    "loss": ("total", "heldout_loss"),
    "c0_loss": ("codebook 0 (talker)", "heldout_c0_loss"),
    "sub_loss": ("other codebooks (predictor)", "heldout_sub_loss"),
}


def losses(log: Sequence[dict[str, float | None]] | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw the losses per step, smoothed, and the held-out losses after each epoch as points."""
    log = read_log(paths.TRAIN_LOG) if log is None else log
    figure, axes = _axes(theme, height_in=3.6)
    window = max(1, len(log) // 40)
    for (key, (label, heldout)), colour in zip(
        LOSSES.items(), (theme.ink, theme.chosen, theme.base), strict=True
    ):
        steps, values = _series(log, key)
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.28)
        axes.plot(steps, _smooth(values, window), color=colour, linewidth=1.9, label=label)
        axes.plot(*_series(log, heldout), "o", color=colour, markersize=4.5,
                  markerfacecolor=theme.card)  # fmt: skip
    for epoch, step in _epoch_edges(log):
        axes.axvline(step, color=theme.line, linewidth=0.8, zorder=0)
        _note(axes, str(epoch), (step, 0.0), (-3, 4), ("data", "axes fraction"), ha="right",
              fontsize=8, color=theme.quiet)  # fmt: skip
    axes.plot([], [], "o", color=theme.quiet, markerfacecolor=theme.card, label="held out")
    axes.set_xlabel("optimizer step (small numbers: epoch)")
    axes.set_ylabel("loss, nats per token")
    _legend(axes, theme, 2)
    return figure


def confusion(tables: Mapping[str, Record], theme: Theme = LIGHT) -> Plot:
    """Draw who sounds like whom: rows ask for a speaker, columns are whose recordings it is near.

    Args:
        tables: What `evaluation.speakers.confusion` returns, by title.
        theme: Colours and width; on narrow pages the tables stand below one another.
    """
    names = list(next(iter(tables.values()))["speakers"])
    wide = theme.width_in > NARROW.width_in
    columns = 2 if wide else 1
    rows = -(-len(tables) // columns)
    counted, size = len(names) <= 4, min(9.0, 45.0 / len(names))  # what a cell has room for
    figure = Plot(
        figsize=(theme.width_in, rows * (0.5 + 0.85 * theme.width_in / columns)),
        layout="constrained",
        facecolor=theme.card,
    )
    points = [
        value["point"]
        for table in tables.values()
        for row in table["rows"]
        for value in row["similarity"]
        if value["point"] is not None
    ]
    low, high = min(points, default=0.0), max(points, default=1.0)
    places = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in places[len(tables) :]:
        axes.set_axis_off()
    for number, (axes, (heading, table)) in enumerate(zip(places, tables.items(), strict=False)):
        _dress(axes, theme)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        for y, row in enumerate(table["rows"]):
            for x, value in enumerate(row["similarity"]):
                point = value["point"]
                share = 0.0 if point is None else (point - low) / max(high - low, 1e-9)
                axes.add_patch(
                    Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, linewidth=0,
                              facecolor=theme.chosen, alpha=round(0.05 + 0.5 * share, 3))
                )  # fmt: skip
                axes.text(
                    x, y - (0.08 if counted else 0.0), "–" if point is None else f"{point:.2f}",
                    ha="center", va="center", fontsize=size, color=theme.ink,
                )  # fmt: skip
                if counted:
                    axes.text(
                        x, y + 0.26, f"{row['nearest'][x]} of {row['n']}",
                        ha="center", va="center", fontsize=6.5, color=theme.ink,
                    )  # fmt: skip
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_title(heading, fontsize=9, color=theme.ink, loc="left")
        shown = [name if len(name) <= 12 else f"{name[:11]}…" for name in names]
        axes.set_xticks(range(len(names)), shown, fontsize=8)
        axes.set_yticks(range(len(names)), shown if number % columns == 0 else [], fontsize=8)
    return figure


def _series(log: Sequence[dict[str, float | None]], key: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of a column, without its blanks."""
    points = [
        (step, value)
        for row in log
        if (value := row.get(key)) is not None and (step := row["step"]) is not None
    ]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Average each value with up to `window` neighbours on both sides."""
    near = [values[max(0, i - window) : i + window + 1] for i in range(len(values))]
    return [sum(some) / len(some) for some in near]


def _epoch_edges(log: Sequence[dict[str, float | None]]) -> list[tuple[int, float]]:
    last: dict[int, float] = {}
    for row in log:
        epoch, step = row.get("epoch"), row.get("step")
        if epoch and step is not None:  # epoch 0 is the Base
            last[int(epoch)] = step
    return sorted(last.items())


def weight_change(theme: Theme = LIGHT, path: Path = paths.TRAIN_METRICS) -> Plot:
    """Draw how far each part of the model moved from the Base, ||dW|| / ||W||, per epoch."""
    epochs = read_json(path)["epochs"]
    series: dict[str, list[tuple[int, float]]] = {}
    for epoch in epochs:
        for module, drift in epoch["drift"].items():
            series.setdefault(module, []).append((epoch["epoch"], 100 * drift["relative"]))
    figure, axes = _axes(theme)
    for module, points in sorted(series.items(), key=lambda item: -item[1][-1][1]):
        axes.plot(*zip(*points, strict=True), "o-", markersize=4, linewidth=1.6, label=module)
    axes.set_xlabel("epoch")
    axes.set_ylabel("||dW|| / ||W||, %")
    axes.locator_params(axis="x", integer=True)
    if series:
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)
    return figure


def durations(theme: Theme = LIGHT, at: Corpus = SPEAKER) -> Plot:
    """Draw the lengths of the accepted clips, stacked by split."""
    rows = read_jsonl(at.manifest)
    figure, axes = _axes(theme, height_in=2.8)
    named = {"train": theme.other, "selection": theme.chosen, "confirmation": theme.base}
    values = [[row["duration_s"] for row in rows if row["split"] == split] for split in named]
    labels = [f"{split} ({len(clips)})" for split, clips in zip(named, values, strict=True)]
    axes.hist(values, bins=16, stacked=True, color=list(named.values()), label=labels, rwidth=0.9)
    axes.set_xlabel("clip duration, s")
    axes.set_ylabel("clips")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
    return figure


def histogram(
    candidate: str,
    theme: Theme = LIGHT,
    folder: Path | None = None,
    at: Corpus = SPEAKER,
) -> Plot:
    """Draw a candidate's clips by similarity, with floor and ceiling as lines.

    Args:
        candidate: Name, or number of an epoch.
        theme: Colours.
        folder: Where its scores are; None: with those of the speaker's candidates.
        at: Corpus of the recordings.
    """
    folder = folder or paths.SCORES / candidate_name(candidate)
    rows = read_jsonl(folder / "rows.jsonl")
    values = [row["sim"] for row in rows if row["sim"] is not None]
    figure, axes = _axes(theme, height_in=2.6)
    axes.hist(values, bins=16, color=theme.chosen, rwidth=0.9)
    scale = read_json(at.scale)
    for name, style in (("floor", ":"), ("codec_ceiling", "-."), ("ceiling", "--")):
        if scale[name]["point"] is not None:
            axes.axvline(scale[name]["point"], color=theme.ink, linewidth=1.1, linestyle=style,
                         label=name.replace("_", " "))  # fmt: skip
    axes.set_xlabel("similarity to the speaker")
    axes.set_ylabel("clips")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.ink)
    return figure


# --- a language --------------------------------------------------------------------------------


def two_errors(
    names: Sequence[str],
    languages: Mapping[str, Mapping[str, Record]],
    chosen: str,
    metric: str = "cer",
    floor: float | None = None,
    theme: Theme = LIGHT,
) -> Plot:
    """Draw the error in the new language and in the source language, candidate by candidate.

    Args:
        names: Candidates in order.
        languages: Interval by candidate for each language, the new one first.
        chosen: Drawn larger.
        metric: `wer` or `cer`.
        floor: Error of recordings after the codec in the new language.
        theme: Colours.
    """
    figure, axes = _axes(theme)
    step = 0.16
    for index, (label, values) in enumerate(languages.items()):
        colour = (theme.chosen, theme.base)[index % 2]
        shift = step * (index - (len(languages) - 1) / 2)
        for stage in (False, True):
            line = [
                (x + shift, 100 * values[name]["point"])
                for x, name in enumerate(names)
                if in_stage2(name) == stage and values[name]["point"] is not None
            ]
            if line:
                axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.0, alpha=0.45)
        for x, name in enumerate(names):
            value = values[name]
            if value["point"] is None:
                continue
            if value["low"] is not None:
                ends = (100 * value["low"], 100 * value["high"])
                axes.plot((x + shift, x + shift), ends, color=colour, linewidth=2.2, zorder=3)
            axes.plot(x + shift, 100 * value["point"], "o", color=colour, zorder=4,
                      markersize=9.5 if name == chosen else 6)  # fmt: skip
        axes.plot([], [], "o-", color=colour, markersize=5, label=label)
    if floor is not None:
        axes.axhline(100 * floor, color=theme.ink, linewidth=1.0, linestyle="-.", zorder=2,
                     label="recordings after the codec")  # fmt: skip
    axes.set_xticks(range(len(names)), [_tick(name) for name in names])
    for tick, name in zip(axes.get_xticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name == chosen else "normal")
    axes.set_ylabel(ERRORS[metric])
    axes.set_xlabel(f"epoch (Base: zero-shot{_second(names)})")
    axes.set_ylim(-0.02 * axes.get_ylim()[1], axes.get_ylim()[1])
    _legend(axes, theme, 3)
    return figure


def gap(decision: Record | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw how far Stage 1 stays behind the codec, and the gap beyond which Stage 2 runs."""
    decision = decision or read_json(paths.LANGUAGE_DECISION)
    found, limit = decision["gap"], 100 * decision["rule"]["max_gap"]
    figure, axes = _axes(theme, height_in=1.7)
    ends = [100 * found[key] for key in ("low", "high", "point") if found[key] is not None]
    low, high = min([0.0, limit, *ends]), max([limit, *ends])
    margin = 0.08 * max(high - low, 1.0)
    axes.axvspan(limit, high + 10 * margin, color=theme.base, alpha=0.13, linewidth=0)
    axes.axvline(limit, color=theme.base, linewidth=1.4)
    if found["low"] is not None:
        axes.plot((100 * found["low"], 100 * found["high"]), (0, 0), color=theme.chosen,
                  linewidth=3, solid_capstyle="round")  # fmt: skip
    if found["point"] is not None:
        axes.plot(100 * found["point"], 0, "o", color=theme.chosen, markersize=9)
    _note(axes, f"limit {limit:g}: Stage 2 runs beyond it", (limit, 1.0), (4, -4),
          ("data", "axes fraction"), va="top", fontsize=8.5, color=theme.quiet)  # fmt: skip
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(-1, 1.6)
    axes.set_yticks([])
    axes.grid(visible=False)
    metric = decision["rule"]["metric"].upper()
    axes.set_xlabel(f"{metric} of Stage 1 minus {metric} after the codec, points")
    return figure

"""Matplotlib figures, made without pyplot so that nothing depends on a backend or on order.

Notebooks show them as PNG. The pages hold them as SVG whose colours are the page's variables and
whose text is text: one drawing serves light and dark paper and any zoom.
"""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist

# Every artist's class gets a help text when it is made: a third of matplotlib's import.
if hasattr(Artist, "_update_set_signature_and_docstring"):
    Artist._update_set_signature_and_docstring = classmethod(lambda artist: None)

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    """Render a figure as an `<svg>` element, equal for equal figures, as wide as its place.

    Colours of `LIGHT` become variables; ids begin with `prefix`, another one for every figure.
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


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure of all candidates, in a figure of several that share the candidates' axis.

    Attributes:
        series: Interval by candidate, by the name of what is measured; one or two.
        lines: Reference levels by name; those that are unknown are left out.
        zero: Whether the axis begins at 0.
    """

    label: str
    series: Mapping[str, Mapping[str, Record]]
    lines: Mapping[str, float | None] = field(default_factory=dict)
    factor: float = 1.0
    zero: bool = False


def curves(
    panels: Sequence[Panel],
    names: Sequence[str],
    chosen: str,
    failed: Collection[str] = (),
    theme: Theme = LIGHT,
) -> Plot:
    """Draw measures of the candidates one below the other, the chosen one ringed in each.

    The Base is a square, an epoch a disc; those that `failed` a gate are hollow.
    """
    height_in = 0.55 + 1.55 * len(panels) + (0.7 if len(panels) == 1 else 0.0)
    figure = Plot(figsize=(theme.width_in, height_in), layout="constrained", facecolor=theme.card)
    places = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(places, panels, strict=True):
        _dress(axes, theme)
        _draw_panel(axes, panel, names, chosen, failed, theme)
    axes = places[-1]
    axes.set_xticks(range(len(names)), [_tick(name) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    notes = ["S2: Stage 2"] * any(map(in_stage2, names)) + ["hollow: failed a gate"] * bool(failed)
    axes.set_xlabel("; ".join(["epoch", *notes]), color=theme.quiet, fontsize=9)
    for tick, name in zip(axes.get_xticklabels(), names, strict=True):
        tick.set_color(
            theme.quiet if name not in ("base", chosen) else _colour(name, chosen, theme)
        )
        tick.set_fontweight("bold" if name == chosen else "normal")
    return figure


def _draw_panel(
    axes: Axes,
    panel: Panel,
    names: Sequence[str],
    chosen: str,
    failed: Collection[str],
    theme: Theme,
) -> None:
    """Draw the series of one panel, then its reference lines, named in the right margin."""
    several = len(panel.series) > 1
    for index, (label, values) in enumerate(panel.series.items()):
        shift = 0.16 * (index - 0.5) if several else 0.0
        fixed = (theme.chosen, theme.base)[index] if several else None
        known = {
            name: {end: panel.factor * value for end, value in values[name].items()
                   if end in ("point", "low", "high") and value is not None}
            for name in names if name in values and values[name]["point"] is not None
        }  # fmt: skip
        for second in (False, True):  # the epochs of each stage are joined
            joined = [(names.index(n) + shift, known[n]["point"]) for n in known
                      if n != "base" and in_stage2(n) == second]  # fmt: skip
            axes.plot(*zip(*joined, strict=True) if joined else ([], []),
                      color=fixed or theme.other, linewidth=1.1, alpha=0.6, zorder=2,
                      linestyle=(0, (4, 2)) if index else "-")  # fmt: skip
        for name, ends in known.items():
            x, colour = names.index(name) + shift, fixed or _colour(name, chosen, theme)
            if "low" in ends:
                axes.plot((x, x), (ends["low"], ends["high"]), color=colour, linewidth=1.6)
            axes.plot(
                x, ends["point"], "D" if index else "s" if name == "base" else "o", color=colour,
                markersize=6, zorder=4, markeredgewidth=1.5,
                markerfacecolor=theme.card if name in failed else colour,
            )  # fmt: skip
            if name == chosen:
                axes.plot(x, ends["point"], "o", color=colour, markersize=13, zorder=3,
                          markerfacecolor="none", markeredgewidth=1.5)  # fmt: skip
        if several:
            axes.plot([], [], "D--" if index else "o-", color=fixed, markersize=5, label=label)
    for level in panel.lines.values():
        if level is not None:
            axes.axhline(panel.factor * level, color=theme.ink, linewidth=0.9, linestyle="--",
                         zorder=1)  # fmt: skip
    if panel.zero:
        axes.set_ylim(bottom=min(0.0, -0.02 * axes.get_ylim()[1]))
    axes.margins(y=0.12)
    axes.set_ylabel(panel.label)
    _name_lines(axes, {k: panel.factor * v for k, v in panel.lines.items() if v is not None}, theme)
    if several:
        _legend(axes, theme, 2)


def _name_lines(axes: Axes, lines: Mapping[str, float], theme: Theme) -> None:
    """Name reference lines in the right margin, where no point is, none over another."""
    low, high = axes.get_ylim()
    apart, above = 0.13 * (high - low), float("inf")
    for text, level in sorted(lines.items(), key=lambda line: -line[1]):
        above = min(level, above - apart)
        axes.annotate(text, (1.0, level), (1.02, above), ("axes fraction", "data"),
                      ("axes fraction", "data"), va="center", fontsize=8.5, color=theme.quiet,
                      annotation_clip=False)  # fmt: skip


def _tick(name: str) -> str:
    """Name a candidate below an axis: `Base`, `3`, `S2·1`."""
    return title(name).removeprefix("Epoch ").replace("Stage 2, epoch ", "S2·")


def panels_of(selection: Record, metric: str | None = None) -> tuple[Panel, Panel]:
    """Return error and similarity per candidate, with what recordings reach."""
    metric = metric or selection["rule"]["error_metric"]
    scale = selection["scale"] or {}
    values = {key: {c["name"]: c[key] for c in selection["candidates"]} for key in (metric, "sim")}
    floors = {
        label: (selection.get(key) or {}).get(metric, {}).get("point")
        for label, key in (("recordings", "asr_floor"), ("coded", "codec_floor"))
    }
    ceilings = {"recordings": scale.get("ceiling"), "coded": scale.get("codec_ceiling"),
                "other voices": scale.get("floor")}  # fmt: skip
    return (
        Panel(f"{metric.upper()}, %", {"": values[metric]}, floors, factor=100.0, zero=True),
        Panel("similarity", {"": values["sim"]}, ceilings),
    )


def _one_panel(panel: int, selection: Record | None, metric: str | None, theme: Theme) -> Plot:
    selection = selection or read_json(paths.SELECTION)
    listed = selection["candidates"]
    failed = [c["name"] for c in listed if not c["eligible"]]
    return curves([panels_of(selection, metric)[panel]], [c["name"] for c in listed],
                  selection["chosen"], failed, theme)  # fmt: skip


def similarity(selection: Record | None = None, theme: Theme = LIGHT) -> Plot:
    """Draw speaker similarity per candidate between floor and ceiling."""
    return _one_panel(1, selection, None, theme)


def errors(selection: Record | None = None, metric: str = "wer", theme: Theme = LIGHT) -> Plot:
    """Draw word or character error per candidate, with what recordings score as a line."""
    return _one_panel(0, selection, metric, theme)


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
    import pandas

    log = read_log(paths.TRAIN_LOG) if log is None else log
    names = ["step", "epoch", *LOSSES, *(heldout for _, heldout in LOSSES.values())]
    table = pandas.DataFrame(log, columns=names, dtype=float).set_index("step")
    figure, axes = _axes(theme, height_in=3.6)
    window = 2 * max(1, len(log) // 40) + 1
    for (key, (label, heldout)), colour in zip(
        LOSSES.items(), (theme.ink, theme.chosen, theme.base), strict=True
    ):
        values, points = table[key].dropna(), table[heldout].dropna()
        smooth = values.rolling(window, center=True, min_periods=1).mean()
        axes.plot(values.index, values, color=colour, linewidth=0.7, alpha=0.28)
        axes.plot(smooth.index, smooth, color=colour, linewidth=1.9, label=label)
        axes.plot(points.index, points, "o", color=colour, markersize=4.5,
                  markerfacecolor=theme.card)  # fmt: skip
    trained = table.loc[table["epoch"] > 0, "epoch"]  # epoch 0 is the Base
    for step, epoch in trained.drop_duplicates(keep="last").items():
        axes.axvline(step, color=theme.line, linewidth=0.8, zorder=0)
        _note(axes, f"{epoch:g}", (step, 0.0), (-3, 4), ("data", "axes fraction"), ha="right",
              fontsize=8, color=theme.quiet)  # fmt: skip
    axes.plot([], [], "o", color=theme.quiet, markerfacecolor=theme.card, label="held out")
    axes.set_xlabel("optimizer step (small numbers: epoch)")
    axes.set_ylabel("loss, nats per token")
    _legend(axes, theme, 2)
    return figure


def weight_change(theme: Theme = LIGHT, path: Path = paths.TRAIN_METRICS) -> Plot:
    """Draw how far each part of the model moved from the Base, ||dW|| / ||W||, per epoch."""
    epochs = [epoch for epoch in read_json(path)["epochs"] if epoch["drift"]]
    figure, axes = _axes(theme)
    for module in epochs[-1]["drift"] if epochs else ():
        moved = [100 * epoch["drift"][module]["relative"] for epoch in epochs]
        axes.plot([epoch["epoch"] for epoch in epochs], moved, "o-", markersize=4, linewidth=1.6,
                  label=module)  # fmt: skip
        axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)
    axes.set_xlabel("epoch")
    axes.set_ylabel("||dW|| / ||W||, %")
    axes.locator_params(axis="x", integer=True)
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
    candidate: str, theme: Theme = LIGHT, folder: Path | None = None, at: Corpus = SPEAKER
) -> Plot:
    """Draw a candidate's clips by similarity, with floor and ceiling; `folder` as in `summary`."""
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

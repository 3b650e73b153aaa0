"""Write `docs/calibration.md`: how often the rule errs, by simulation with the rule's own code.

Run it after the rule changed: `python docs/make_calibration.py [repetitions]`; about ten minutes
on one core. What is simulated is what the sentences say (sums per sentence); choosing,
confirming, intervals and P(best) are the functions that the stages call.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.special import ndtri

from voxadapt.core.params import SelectParams
from voxadapt.scoring.speakers import Worst
from voxadapt.scoring.statistics import (
    Array,
    Ratio,
    error_interval,
    paired_difference,
    probability_best,
    ratio_interval,
    resample_weights,
)
from voxadapt.selection.confirm import read_cost, read_verdict
from voxadapt.selection.gates import error_margin, margin_state
from voxadapt.selection.race import run_race

PAGE = Path(__file__).with_name("calibration.md")
SIZES, EPOCHS, TAKES = (20, 50, 100, 200), (3, 6, 10), 3
SIMILARITY = SelectParams(num_bootstrap=500)
ERROR = SelectParams(num_bootstrap=500, primary="error", similarity_margin=0.02)


@dataclass(frozen=True)
class Corpus:
    """How sentences, candidates and takes spread.

    Attributes:
        error: Word error rate of the Base.
        difficulty: SD of the logarithm of a sentence's difficulty, common to all candidates.
        own: The same of a candidate's way with a sentence.
        sim: SD of similarity: of a sentence, of a candidate's way with it, of a take.
        runaways: Share of clips that lose every word and .1 of similarity.
        heavy: Whether takes spread as Student's t with 3 degrees of freedom.
    """

    error: float = 0.03
    difficulty: float = 0.6
    own: float = 0.0
    sim: tuple[float, float, float] = (0.02, 0.012, 0.025)
    runaways: float = 0.003
    heavy: bool = False


READ = Corpus()
HEAVY = Corpus(runaways=0.02, heavy=True)
# As the rows of the miniature spread: error .45; SD of a sentence's difference .18 and .018.
HARD = Corpus(error=0.45, difficulty=0.3, own=0.3, sim=(0.015, 0.012, 0.02))


@dataclass(frozen=True)
class Case:
    """Candidates of known truth.

    Attributes:
        name: For the table.
        corpus: What they speak.
        gain: Similarity that the epochs gain over the Base.
        shape: `all` epochs gain alike, only the `last`, or they `climb` to the middle one and
            fall again.
        error: What the error of every epoch exceeds the Base's by.
        runaways: The same of the share of runaways.
        params: The rule.
        speakers: How many speak each sentence.
    """

    name: str
    corpus: Corpus = READ
    gain: float = 0.0
    shape: str = "all"
    error: float = 0.0
    runaways: float = 0.0
    params: SelectParams = SIMILARITY
    speakers: int = 1

    def gains(self, num_epochs: int) -> Array:
        """Return the true gain in similarity of the Base (0) and the epochs, [C]."""
        steps = np.arange(1, num_epochs + 1, dtype=float)
        peak = (num_epochs + 1) // 2
        shares = {
            "all": np.ones(num_epochs),
            "last": (steps == num_epochs).astype(float),
            "climb": 1.0 - 0.4 * np.abs(steps - peak) / num_epochs,
        }[self.shape]
        return np.concatenate([[0.0], self.gain * shares])

    def losses(self, num_epochs: int) -> Array:
        """Return by how much the error of each candidate exceeds the Base's, [C]."""
        shares = (self.gains(num_epochs) > 0) if self.gain else np.arange(num_epochs + 1) > 0
        return np.asarray(self.error * shares, dtype=float)


CASES = (
    Case("null"),
    Case("null, heavy tails, 2 % runaways", HEAVY),
    Case("null, WER 45 %", HARD),
    Case("null, by error", READ, params=ERROR),
    Case("null, by error, WER 45 %", HARD, params=ERROR),
    Case("null, two speakers", speakers=2),
    Case("similarity +.05", gain=0.05),
    Case("similarity +.05, heavy tails", HEAVY, gain=0.05),
    Case("similarity +.05 in the last epoch only", gain=0.05, shape="last"),
    Case("similarity +.05, two speakers", gain=0.05, speakers=2),
    Case("similarity climbs to +.05, falls", gain=0.05, shape="climb"),
    Case("WER 3 -> 6 %, similarity +.02", gain=0.02, error=0.03),
    Case("WER 3 -> 6 %, similarity +.05", gain=0.05, error=0.03),
    Case("WER 3 -> 5 % (the margin), similarity +.05", gain=0.05, error=0.02),
    Case("runaways .3 -> 3.3 %, similarity +.05", gain=0.05, runaways=0.03),
    Case("WER 45 -> 30 %, by error", HARD, error=-0.15, params=ERROR),
)


@dataclass(frozen=True)
class Spoken:
    """What sentences say of candidates, by speaker: errors, similarities and failures."""

    errors: list[list[Ratio]]
    sims: list[list[Ratio]]
    failures: list[list[Ratio]]
    usable: list[list[Ratio]]  # errors of the clips that did not fail


def speak(case: Case, num_texts: int, num_epochs: int, generator: Generator) -> Spoken:
    """Let the Base and the epochs speak a split."""
    corpus, gains = case.corpus, case.gains(num_epochs)
    size = len(gains)
    words = generator.integers(6, 15, num_texts)
    hard = lognormal(generator, corpus.difficulty, (num_texts, 1))
    found = Spoken([], [], [], [])
    for _ in range(case.speakers):
        own = lognormal(generator, corpus.own, (num_texts, size))
        rate = np.clip((corpus.error + case.losses(num_epochs)) * hard * own, 0.0, 1.0)
        shape = (num_texts, size, TAKES)
        edits = generator.binomial(words[:, None, None], rate[:, :, None], shape).astype(float)
        runaways = corpus.runaways + case.runaways * (np.arange(size) > 0)
        lost = generator.random(shape) < runaways[None, :, None]
        edits = np.where(lost, words[:, None, None], edits)
        takes = generator.standard_normal(shape)
        if corpus.heavy:
            takes = generator.standard_t(3, shape) / np.sqrt(3.0)
        text, way, take = corpus.sim
        sims = 0.8 + gains[:, None] + text * generator.standard_normal((num_texts, 1, 1))
        sims = sims + way * generator.standard_normal((num_texts, size, 1)) + take * takes
        sims = np.where(lost, sims - 0.1, sims)
        clips = np.full(num_texts, float(TAKES))
        for listed, values, weights in (
            (found.errors, edits, TAKES * words.astype(float)),
            (found.sims, sims, clips),
            (found.failures, lost, clips),
        ):
            total = values.sum(axis=2).astype(float)
            listed.append([Ratio(total[:, index], weights) for index in range(size)])
        heard = np.where(lost, 0.0, edits).sum(axis=2)
        said = words[:, None] * (~lost).sum(axis=2).astype(float)
        found.usable.append([Ratio(heard[:, index], said[:, index]) for index in range(size)])
    return found


def lognormal(generator: Generator, sd: float, shape: tuple[int, int]) -> Array:
    """Draw factors of mean 1."""
    return np.asarray(np.exp(sd * generator.standard_normal(shape) - 0.5 * sd**2))


def together(by_speaker: Sequence[Sequence[Ratio]], index: int) -> Ratio:
    """Pool the speakers of one candidate."""
    parts = [ratios[index] for ratios in by_speaker]
    return Ratio(sum(p.numerator for p in parts), sum(p.denominator for p in parts))  # type: ignore[arg-type]


def worst(case: Case, spoken: Spoken, index: int) -> Worst:
    """Return what a candidate is ranked by."""
    higher = case.params.primary == "similarity"
    parts = tuple(ratios[index] for ratios in (spoken.sims if higher else spoken.errors))
    return Worst(parts, (0.0,) * len(parts), higher)


def choose(case: Case, spoken: Spoken) -> int:
    """Choose a candidate as `select` does; gates that nothing here can fail are left out."""
    params, size = case.params, len(spoken.errors[0])
    names = ["base", *(f"epoch-{n}" for n in range(1, size))]
    eligible = [name for index, name in enumerate(names) if passes(case, spoken, index)]
    errors = {name: together(spoken.errors, index) for index, name in enumerate(names)}
    pooled = spoken.sims if params.primary == "similarity" else spoken.errors
    race = run_race(
        {name: worst(case, spoken, index) for index, name in enumerate(names)},
        eligible,
        "base",
        params,
        means={name: together(pooled, index) for index, name in enumerate(names)}
        if case.speakers > 1
        else None,
        errors=errors if params.primary == "similarity" else None,
    )
    return names.index(race.chosen)


def passes(case: Case, spoken: Spoken, index: int) -> bool:
    """Tell whether the gates of failures, errors and similarity leave a candidate in."""
    params = case.params
    for speaker in range(case.speakers):
        errors, failures = spoken.usable[speaker], spoken.failures[speaker]
        checks = [
            (errors[index].point - errors[0].point, error_margin(params, errors[0].point)),
            (failures[index].point - failures[0].point, params.failure_margin),
        ]
        if params.similarity_margin is not None:
            sims = spoken.sims[speaker]
            checks.append((sims[0].point - sims[index].point, params.similarity_margin))
        if any(margin_state(worse, worse, margin) == "failed" for worse, margin in checks):
            return False
    return True


def verdict(case: Case, spoken: Spoken, index: int, weights: Array) -> str:
    """Confirm a candidate as `confirm` does."""
    params = case.params
    gain, _ = paired_difference(
        worst(case, spoken, index), worst(case, spoken, 0), weights, params.confidence
    )
    costs = []
    for speaker in range(case.speakers):
        similar = params.primary == "similarity"
        ratios = (spoken.errors if similar else spoken.sims)[speaker]
        found, _ = paired_difference(ratios[index], ratios[0], weights, params.confidence)
        margin = error_margin(params, ratios[0].point) if similar else params.similarity_margin
        assert margin is not None
        sign = 1 if similar else -1
        costs.append(read_cost("cost", found, margin, sign, params.confidence))
    cost = max(costs, key=lambda item: item.at_most - item.margin)
    return read_verdict(gain, 1 if params.primary == "similarity" else -1, cost)


@cache
def true_errors(case: Case, num_epochs: int) -> tuple[float, ...]:
    """Return the error rate of each candidate over a great many sentences."""
    generator, corpus = np.random.default_rng(9), case.corpus
    spread = float(np.hypot(corpus.difficulty, corpus.own))
    factors = lognormal(generator, spread, (200_000, 1))
    rates = np.clip((corpus.error + case.losses(num_epochs)) * factors, 0.0, 1.0).mean(axis=0)
    lost = corpus.runaways + case.runaways * (np.arange(num_epochs + 1) > 0)
    return tuple(rates * (1.0 - lost) + lost)


def play(case: Case, num_texts: int, num_epochs: int, repetitions: int, seed: int) -> Counter[str]:
    """Choose and confirm again and again; count what came of it."""
    generator = np.random.default_rng([seed, num_texts, num_epochs])
    weights = resample_weights(num_texts, case.params.num_bootstrap, case.params.seed)
    gains = case.gains(num_epochs)
    errors = np.array(true_errors(replace(case, name=""), num_epochs))
    values = gains if case.params.primary == "similarity" else -errors
    allowed = errors - errors[0] <= error_margin(case.params, errors[0]) + 1e-3
    reachable = values[allowed].max()
    counts: Counter[str] = Counter(runs=repetitions)
    for _ in range(repetitions):
        chosen = choose(case, speak(case, num_texts, num_epochs, generator))
        unseen = speak(case, num_texts, num_epochs, generator)
        counts["regret"] += float(max(0.0, reachable - values[chosen]))  # type: ignore[assignment]
        counts["best"] += bool(values[chosen] >= reachable - 1e-3 and allowed[chosen])
        if chosen:
            counts["chosen"] += 1
            counts["harmful"] += not allowed[chosen] or values[chosen] < values[0] - 1e-3
            counts[verdict(case, unseen, chosen, weights)] += 1
    return counts


# --- P(best) and intervals -----------------------------------------------------------------------


def reliability(num_texts: int, num_epochs: int, repetitions: int) -> list[tuple[float, bool]]:
    """Return what P(best) said of each candidate, and whether it was the best."""
    generator = np.random.default_rng([5, num_texts, num_epochs])
    weights = resample_weights(num_texts, 1000, 1)
    _, way, take = READ.sim
    error = np.sqrt(2.0 * (way**2 + take**2 / TAKES) / num_texts)
    said = []
    for repetition in range(repetitions):
        if repetition % 2:  # epochs at random, spread by half to three standard errors
            spread = error * (0.5, 1.0, 3.0)[repetition // 2 % 3]
            epochs = 0.02 + spread * generator.standard_normal(num_epochs)
        else:  # a curve that rises to a peak and falls
            peak, width = generator.uniform(1, num_epochs), error * generator.uniform(0.5, 4.0)
            steps = np.arange(1, num_epochs + 1)
            epochs = 0.03 - width * (3.0 * (steps - peak) / num_epochs) ** 2
        truth = np.concatenate([[0.0], epochs])
        noise = way * generator.standard_normal((num_texts, len(truth)))
        noise += take / np.sqrt(TAKES) * generator.standard_normal(noise.shape)
        draws = weights @ (0.8 + truth + noise) / num_texts
        shares = probability_best(draws, True, (0,), ordered=True)
        said += [(float(s), i == int(np.argmax(truth))) for i, s in enumerate(shares)]
    return said


def coverage(corpus: Corpus, num_texts: int, repetitions: int) -> list[float]:
    """Return how often intervals hold the truth: WER, its difference, similarity, difference."""
    case = Case("", corpus, gain=0.02, error=0.2 * corpus.error)
    errors = true_errors(case, 1)
    lost = corpus.runaways
    truths = (errors[0], errors[1] - errors[0], 0.8 - 0.1 * lost, 0.02)
    generator = np.random.default_rng([6, num_texts])
    weights = resample_weights(num_texts, 1000, 1)
    held = np.zeros(4)
    for _ in range(repetitions):
        spoken = speak(case, num_texts, 1, generator)
        for place, ratios in ((0, spoken.errors[0]), (2, spoken.sims[0])):
            single = ratio_interval(ratios[0], weights, num_texts, 0.95)
            if not place:
                usable = Ratio(spoken.usable[0][0].numerator, ratios[0].denominator)
                failed = Ratio(ratios[0].numerator - usable.numerator, ratios[0].denominator)
                failures = spoken.failures[0][0]
                single = error_interval(usable, failed, failures, weights, num_texts, 0.95)
            paired, _ = paired_difference(ratios[1], ratios[0], weights, 0.95)
            for offset, found in ((0, single), (1, paired)):
                assert found.low is not None and found.high is not None
                truth = truths[place + offset]
                held[place + offset] += found.low - 1e-9 <= truth <= found.high + 1e-9
    return list(held / repetitions)


# --- the page ------------------------------------------------------------------------------------


def share(count: float, total: int) -> str:
    """Write a share in percent with its 95 % Monte Carlo interval (Wilson)."""
    if not total:
        return "–"
    low, high = wilson(count, total)
    return f"{100 * count / total:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def wilson(count: float, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z = float(ndtri(0.975))
    centre = (count + z * z / 2.0) / (total + z * z)
    reach = z * np.sqrt(count * (total - count) / total + z * z / 4.0) / (total + z * z)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


HEAD = """\
# Calibration

Written by `python docs/make_calibration.py`: candidates of known truth are chosen and confirmed
again and again by the functions that the stages call. [Decisions](decisions.md) describes the rule.

Sentences of 6 to 14 words, {takes} takes each; a sentence's difficulty is shared by all candidates
(log-normal, SD .6), similarities spread by .02 (sentence), .012 (a candidate's way with it) and
.025 (take); one clip in 300 runs away. *Heavy tails*: one in 50, and Student's t with 3 degrees of
freedom. *WER 45 %*: spread as measured on the miniature. Selection and confirmation have N
sentences each; margins are those of the real profiles (2 points, or a tenth of the Base's error).
{repetitions} repetitions a cell; in brackets 95 % Monte Carlo intervals, all in percent.

- *chosen*: an epoch takes the Base's place. *harmful*: one whose true error exceeds the margin, or
  that is truly worse. *confirmed* and *cost not excluded*: the verdicts, of all repetitions.
- *best*: the choice is within .001 of the best admissible candidate; *regret*: what it lacks to it,
  in thousandths of the primary measure.
"""


BARS = """\
## What was asked for

The least favourable case and N of each, all numbers of epochs together.

"""
LIMITS = """
With 20 sentences of 3 takes one clip that runs away would move the error rate by 1.7 points, nearly
the margin: the gate on errors therefore reads the clips that did not fail, and failures have their
own. What that costs: of candidates that only run away more often, more are chosen (the table of
runaways), and with 20 sentences some are confirmed, where the unseen ones hold none. The interval
of an error rate allows for runaways that were not seen; where all takes of a sentence run away
together it ends too low. P(best) is right over all curves together, and not for each kind alone.
"""


def main() -> None:
    """Simulate everything and write the page."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    parts = [HEAD.format(takes=TAKES, repetitions=repetitions)]
    cells: dict[tuple[str, int, int], Counter[str]] = {}
    for number, case in enumerate(CASES):
        rows = []
        for num_epochs in EPOCHS:
            for num_texts in SIZES:
                found = play(case, num_texts, num_epochs, repetitions, number)
                cells[case.name, num_texts, num_epochs] = found
                keys = ("chosen", "harmful", "confirmed", "cost_not_excluded", "best")
                shown = [share(found[key], repetitions) for key in keys]
                regret = f"{1000 * found['regret'] / repetitions:.1f}"
                rows.append([str(num_epochs), str(num_texts), *shown, regret])
                print(case.name, *rows[-1], sep="  ", flush=True)
        header = ("epochs", "N", "chosen", "harmful", "confirmed", "cost not excluded", "best",
                  "regret")  # fmt: skip
        parts.append(f"## {case.name}\n\n{table(header, rows)}")
    calibrated, off = _reliability(repetitions)
    covered, outside = _coverage(8 * repetitions)  # points of 48 cells: few are off by chance
    parts.insert(1, _bars(cells, repetitions, off, outside))
    parts += [calibrated, covered]
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _bars(
    cells: dict[tuple[str, int, int], Counter[str]], repetitions: int, off: float, outside: str
) -> str:
    """Hold the results against what was asked for."""

    def worst_of(
        names: Sequence[str],
        key: str,
        highest: bool,
        of: str = "runs",
        sizes: Sequence[int] = SIZES,
    ) -> tuple[float, str]:
        found = []
        for name in names:
            for size in sizes:
                listed = [counts for where, counts in cells.items() if where[:2] == (name, size)]
                count, total = (sum(counts[part] for counts in listed) for part in (key, of))
                found.append((count / max(1, total), f"{share(count, total)} ({name}, N = {size})"))
        return (max if highest else min)(found)

    def pooled(names: Sequence[str], key: str) -> tuple[float, str]:
        found = [counts for where, counts in cells.items() if where[0] in names]
        count, total = sum(c[key] for c in found), sum(c["runs"] for c in found)
        return count / total, f"{share(count, total)} (all cells)"

    for counts in cells.values():
        counts["upheld"] = counts["confirmed"] + counts["cost_not_excluded"]
    nulls = [case.name for case in CASES if case.name.startswith("null")]
    worse = [case.name for case in CASES if "3 -> 6" in case.name]
    every, last = "similarity +.05", "similarity +.05 in the last epoch only"
    rows = []
    for what, bar, (_, shown), held in (
        ("nothing to find: an epoch is chosen", "at most 5",
         found := worst_of(nulls, "chosen", True), found[0] <= 0.05),
        ("nothing to find: chosen and confirmed", "at most .5",
         found := pooled(nulls, "confirmed"), found[0] <= 0.005),
        ("3 points worse: confirmed", "at most 1",
         found := worst_of(worse, "confirmed", True), found[0] <= 0.01),
        ("similarity +.05, all epochs: chosen", "at least 97",
         found := worst_of([every], "chosen", False), found[0] >= 0.97),
        ("similarity +.05, last epoch only: chosen", "at least 97",
         found := worst_of([last], "chosen", False), found[0] >= 0.97),
        ("of these: confirmed or cost not excluded", "at least 99",
         found := worst_of([every, last], "upheld", False, "chosen"), found[0] >= 0.99),
        ("of these: confirmed at N = 50", "at least 60",
         found := worst_of([every], "confirmed", False, "chosen", (50,)), found[0] >= 0.6),
        ("of these: confirmed at N = 100", "at least 78",
         found := worst_of([every], "confirmed", False, "chosen", (100,)), found[0] >= 0.78),
    ):  # fmt: skip
        rows.append([what, f"{bar} %", shown, "held" if held else "**missed**"])
    rows.append(["P(best): said minus true, any class", "at most 3 points",
                 f"{100 * off:.1f} points", "held" if off <= 0.03 else "**missed**"])  # fmt: skip
    rows.append(["published 95 % intervals cover", "93 to 97 %", outside or "all within",
                 "held" if not outside else "**missed**"])  # fmt: skip
    return BARS + table(("what", "bar", "found", ""), rows) + LIMITS


def _reliability(repetitions: int) -> tuple[str, float]:
    """Write what P(best) says against what is true; return the largest gap."""
    said = [pair for size in SIZES for epochs in EPOCHS
            for pair in reliability(size, epochs, repetitions)]  # fmt: skip
    rows, off = [], 0.0
    for low, high in ((0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)):
        listed = [pair for pair in said if low <= pair[0] < high]
        mean = sum(p for p, _ in listed) / len(listed)
        true = sum(best for _, best in listed)
        off = max(off, abs(mean - true / len(listed)))
        rows.append([f"{100 * low:.0f} to {min(100, 100 * high):.0f} %", str(len(listed)),
                     f"{100 * mean:.1f}", share(true, len(listed))])  # fmt: skip
    text = ("## P(best)\n\nEpochs at random and on curves with a peak, spread by half to four "
            "standard errors; all N and numbers of epochs together.\n\n")  # fmt: skip
    return text + table(("said", "n", "mean", "truly the best"), rows), off


def _coverage(repetitions: int) -> tuple[str, str]:
    """Write the coverage of the intervals; name those outside 93 to 97 %."""
    rows, outside = [], []
    labels = ("WER", "its difference", "similarity", "its difference")
    for name, corpus in (("one runaway in 300", READ), ("heavy tails", HEAVY), ("WER 45 %", HARD)):
        for size in SIZES:
            found = coverage(corpus, size, repetitions)
            rows.append([name, str(size), *(share(x * repetitions, repetitions) for x in found)])
            outside += [f"{label}, {name}, N = {size}: {100 * x:.1f}"
                        for label, x in zip(labels, found, strict=True)
                        if not 0.93 <= x <= 0.97]  # fmt: skip
            print("coverage", *rows[-1], sep="  ", flush=True)
    text = (f"## Intervals\n\nShare of {repetitions} simulated sets whose 95 % interval holds the "
            "truth.\n\n")  # fmt: skip
    return text + table(("corpus", "N", *labels), rows), "; ".join(outside)


if __name__ == "__main__":
    main()

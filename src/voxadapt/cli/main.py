"""Command line: every stage without DVC, and the tools around them."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from voxadapt import __version__
from voxadapt.core import launch as processes
from voxadapt.core.errors import Problem, UserError, storage_problem
from voxadapt.core.params import Params, candidate_name, load_params

app = typer.Typer(
    help="Adapt Qwen3-TTS to a speaker; score every epoch; let the measurements decide.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
notebook_app = typer.Typer(help="Run and clean the pipeline's notebooks.", no_args_is_help=True)
miniature_app = typer.Typer(help="Rebuild the embedded miniature world.", no_args_is_help=True)
language_app = typer.Typer(
    help="Adapt the Base to a language, in stages that the data open or close.",
    no_args_is_help=True,
)
app.add_typer(notebook_app, name="notebook")
app.add_typer(language_app, name="language")
app.add_typer(miniature_app, name="miniature")

PARAMS = Path("params.yaml")

# Options and arguments of several commands.
ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")]
Sound = Annotated[Path, typer.Option("--output", "-o", help="WAV file to write.")]
Spoken = Annotated[str, typer.Argument(help="What to say.")]
Chosen = Annotated[str | None, typer.Option(help="Default: the chosen one.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Consent = Annotated[
    str | None, typer.Option(help="For each row: how the speaker agreed, in a few words.")
]
DeltaOnly = Annotated[bool, typer.Option("--delta", help="Only what differs from the Base.")]
Replace = Annotated[bool, typer.Option("--force", help="Replace any folder there.")]
ModelName = Annotated[str | None, typer.Option(help="Of the model; default: the folder's.")]
Licence = Annotated[
    str | None, typer.Option("--license", help="Of these weights, as the Hub names it.")
]
BaseLicence = Annotated[str | None, typer.Option(help="Of the Base.")]
DataLicence = Annotated[str | None, typer.Option(help="Of the recordings, in words.")]
BaseOnHub = Annotated[str | None, typer.Option(help="The Base's id on the Hub.")]


def print_problems(error: UserError) -> None:
    """Print a user error as one table on stderr; of several processes, one table a machine."""
    if not processes.is_local_main():
        print(f"Process {processes.rank()}: {error.problems[0]}", file=sys.stderr)
        return
    print(f"\n{error.title or 'This cannot be done.'}", file=sys.stderr)
    for line in problem_lines(error.problems):
        print(line, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} problem{'s' if count > 1 else ''}.\n", file=sys.stderr)


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Lay problems out as the lines of a table."""
    headers = ("where", "expected", "found", "what to do")
    rows = [(p.where, p.expected, p.found, p.fix) for p in problems]
    cells = [[" ".join(str(cell).split()) for cell in row] for row in rows]
    columns = zip(headers, *cells, strict=True)
    widths = [min(44, max(len(cell) for cell in column)) for column in columns]
    table = [headers, tuple("-" * width for width in widths), *cells]
    return [line for row in table for line in _wrap(row, widths)]


def _wrap(row: Any, widths: list[int]) -> list[str]:
    """Lay one row of a table out over as many lines as its longest cell needs."""
    columns = [
        textwrap.wrap(cell, width, break_on_hyphens=False) or [""]  # a path may be copied
        for cell, width in zip(row, widths, strict=True)
    ]
    height = max(len(column) for column in columns)
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [
        "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip(*padded, strict=True)
    ]


def _override(params: Params, section: str, **values: Any) -> Params:
    """Replace given parameters of one section and check the whole again."""
    given = {key: value for key, value in values.items() if value is not None}
    if not given:
        return params
    tree = params.model_dump()
    tree[section].update(given)
    return Params.model_validate(tree)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"voxadapt {__version__}")
        raise typer.Exit


@app.command()
def audit(params_file: ParamsFile = PARAMS) -> None:
    """Check the corpus; write the accepted manifest and the splits."""
    from voxadapt.pipeline import stages

    result = stages.audit(load_params(params_file))
    print(result.sentence)


@app.command()
def codes(params_file: ParamsFile = PARAMS) -> None:
    """Extract codec codes; measure the codec round trip of held-out clips."""
    from voxadapt.pipeline import stages

    print(stages.codes(load_params(params_file)).sentence)


@app.command()
def train(
    params_file: ParamsFile = PARAMS,
    init_model: Annotated[str | None, typer.Option(help="Base model folder or hub id.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option(min=0.0)] = None,
    num_epochs: Annotated[int | None, typer.Option(min=1)] = None,
    speaker_name: Annotated[str | None, typer.Option()] = None,
    gradient_accumulation_steps: Annotated[int | None, typer.Option(min=1)] = None,
    dtype: Annotated[str | None, typer.Option(help="Autocast: float32 or bfloat16.")] = None,
) -> None:
    """Fine-tune the Base on the speaker; one checkpoint per epoch.

    Options replace the values of params.yaml for this run only.
    """
    from pydantic import ValidationError

    from voxadapt.pipeline import stages

    params = load_params(params_file)
    try:
        params = _override(params, "model", base=init_model)
        params = _override(
            params,
            "train",
            batch_size=batch_size,
            lr=lr,
            speaker_name=speaker_name,
            gradient_accumulation_steps=gradient_accumulation_steps,
            compute_dtype=dtype,
        )
    except ValidationError as error:
        raise UserError(
            [
                Problem(
                    "--" + str(item["loc"][-1]).replace("_", "-"),
                    item["msg"],
                    repr(item.get("input")),
                    "Change the option.",
                )
                for item in error.errors()
            ]
        ) from None
    result = stages.train(params, num_epochs=num_epochs)
    if processes.is_main():
        print(result.sentence)


@app.command()
def score(
    candidate: Annotated[str, typer.Argument(help="base, or an epoch number.")],
    params_file: ParamsFile = PARAMS,
) -> None:
    """Speak and score the selection sentences with one candidate."""
    from voxadapt.pipeline import stages

    print(stages.score(load_params(params_file), candidate).sentence)


@app.command()
def select(params_file: ParamsFile = PARAMS) -> None:
    """Choose the epoch by the rule in params.yaml."""
    from voxadapt.pipeline import stages

    print(stages.select(load_params(params_file)).sentence)


@app.command()
def confirm(params_file: ParamsFile = PARAMS) -> None:
    """Compare the chosen candidate with the Base on the untouched split."""
    from voxadapt.pipeline import stages

    print(stages.confirm(load_params(params_file)).sentence)


@app.command()
def report(params_file: ParamsFile = PARAMS) -> None:
    """Write the report page."""
    from voxadapt.pipeline import stages

    print(stages.report(load_params(params_file)).sentence)


@app.command()
def listen(
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two of base, chosen, runner-up, an epoch; default: params.yaml."),
    ] = None,
    sentences: Annotated[int | None, typer.Option(min=1, help="How many to compare.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; pages of your own pairs need one of their own."),
    ] = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Write blind A/B and rating pages for listeners."""
    from voxadapt.core import paths
    from voxadapt.pipeline import stages

    if out is None and (pair is not None or sentences is not None):
        raise UserError(
            Problem(
                "--out",
                "a folder for pages that differ from params.yaml",
                "nothing",
                f"Say for example --out {(paths.REPORTS / 'listen-mine').as_posix()}, or change "
                "report.listening_pairs.",
            ),
            "The next run of the report would replace these pages, and their votes be lost.",
        )
    result = stages.listen(
        load_params(params_file), [pair] if pair else None, sentences, out or paths.LISTEN
    )
    print(result.sentence)


@app.command()
def votes(
    files: Annotated[list[Path], typer.Argument(help="Files that listeners exported.")],
    key: Annotated[
        Path | None, typer.Option(help="Key of their pages; default: reports/listen/key.json.")
    ] = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Read listeners' votes back; preferences and ratings with intervals."""
    from voxadapt.core import paths
    from voxadapt.listening.pages import KEY_FILE
    from voxadapt.pipeline import stages

    found = key or paths.LISTEN / KEY_FILE
    print(stages.votes(load_params(params_file), files, found).sentence)


@app.command(name="all")
def run_all(params_file: ParamsFile = PARAMS) -> None:
    """Run every stage in order, without DVC."""
    from voxadapt.pipeline import stages

    params = load_params(params_file)
    for line in stages.run_all(params):
        print(line, flush=True)


@app.command()
def say(
    text: Spoken,
    output: Sound = Path("said.wav"),
    candidate: Annotated[
        str | None, typer.Option(help="base or an epoch; default: the chosen one.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    speaker: Annotated[
        str | None, typer.Option(help="One of several speakers; default: the first.")
    ] = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Speak a sentence with the chosen checkpoint."""
    from voxadapt.pipeline import stages

    said = stages.say(load_params(params_file), text, output, candidate, seed, speaker)
    print(said.sentence)


@app.command()
def evaluate(
    manifest: Annotated[
        Path, typer.Option(help="JSONL of clips: audio, text; also id, system, take, reference.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("evaluation"),
    language: Annotated[str, typer.Option(help="Whisper's code of the language.")] = "en",
    asr: Annotated[str, typer.Option(help="Whisper checkpoint, or a name.")] = "large-v3",
    reference: Annotated[
        Path | None, typer.Option(help="Recordings of the speaker: a folder, or a JSONL.")
    ] = None,
    other_voices: Annotated[
        Path | None, typer.Option(help="JSONL of other voices, for the floor of similarity.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="wer or cer; default: by script.")] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Whisper windows at once.")] = 16,
) -> None:
    """Score clips of any system, in any folder; no params.yaml is needed."""
    from voxadapt.tools import evaluate as module

    if metric not in (None, "wer", "cer"):
        raise UserError(Problem("--metric", "wer or cer", str(metric), "Change the option."))
    result = module.evaluate(
        manifest,
        out,
        language=language,
        asr=asr,
        reference=reference,
        other_voices=other_voices,
        metric=metric,  # type: ignore[arg-type]
        device=device,
        batch_size=batch_size,
    )
    print(result.sentence)


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    profile: Annotated[str, typer.Option(help="Model to begin with.")] = "qwen3-tts-0.6b",
) -> None:
    """Write a project of your own: stages, notebooks, profiles, params.yaml."""
    from voxadapt.prepare.new_project import new_project

    print(new_project(folder, profile))


@app.command(name="init")
def init_data(
    folder: Annotated[Path, typer.Argument(help="A project, or a new or empty folder.")],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of recordings of one voice; texts may lie beside.")
    ] = None,
    transcribe: Annotated[
        bool, typer.Option("--transcribe", help="Whisper drafts texts, and checks given ones.")
    ] = False,
    consent: Consent = None,
    language: Annotated[
        str | None, typer.Option(help="A new language, such as Malay; default: a voice.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Sentences, one a line: what to record, or to learn from.")
    ] = None,
    source_text: Annotated[
        Path | None, typer.Option(help="The same in the language that the Base knows.")
    ] = None,
    sentences: Annotated[
        int, typer.Option(min=1, help="Sentences of the recording script, at most.")
    ] = 100,
    ref: Annotated[
        Path | None, typer.Option(help="Reference clip; default: one is proposed.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Corrected table, where it is not in its place.")
    ] = None,
    speaker_name: Annotated[str | None, typer.Option(help="What the speaker is called.")] = None,
    asr: Annotated[
        str | None, typer.Option(help="Whisper checkpoint, or a name; default: params.yaml.")
    ] = None,
    asr_language: Annotated[str | None, typer.Option(help="Whisper's code.")] = None,
    clip_s: Annotated[
        tuple[float, float], typer.Option(help="Shortest and longest clip, seconds.")
    ] = (1.0, 20.0),
    window_s: Annotated[
        float, typer.Option(min=2.0, max=30.0, help="What Whisper hears at once.")
    ] = 30.0,
    device: Device = "auto",
    profile: Annotated[
        str, typer.Option(help="Model that a new project begins with.")
    ] = "qwen3-tts-0.6b",
) -> None:
    """Make a project's data of loose recordings and sentences; say what is missing.

    Repeat it after corrections or with more recordings: it goes on where it was.
    """
    from voxadapt.prepare.init import init as prepare
    from voxadapt.prepare.init_options import Wishes

    wishes = Wishes(
        audio, transcribe, consent, language, text, source_text, ref, table, asr, asr_language,
        clip_s, window_s, sentences, speaker_name, profile, device,
    )  # fmt: skip
    found = prepare(folder, wishes)
    if found.left_out:
        title = f"{len(found.left_out)} left out."
        print_problems(UserError(found.left_out[:50], title))
    print("\n".join(found.lines))
    if found.missing:
        print("\nStill missing:")
        print("\n".join(problem_lines(found.missing)))
    print("\nThen:\n  " + "\n  ".join(found.commands))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open the notebooks in JupyterLab, and save them without outputs; takes its options too."""
    from voxadapt.tools.lab import open_lab

    open_lab(context.args)


@app.command()
def use(
    profile: Annotated[str, typer.Argument(help="Name of a file in profiles/, or a path.")],
    force: Annotated[bool, typer.Option(help="Overwrite a params.yaml that was edited.")] = False,
) -> None:
    """Write params.yaml from a profile."""
    folder = Path("profiles")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    source = Path(profile) if profile.endswith(".yaml") else folder / f"{profile}.yaml"
    if not source.is_file():
        raise UserError(
            Problem("profile", f"one of {', '.join(known)}", profile, "Choose one of them."),
            "params.yaml was not changed.",
        )
    load_params(source)  # a profile that cannot be used is not written
    if PARAMS.exists() and not force:
        current = PARAMS.read_bytes()
        if current not in [path.read_bytes() for path in folder.glob("*.yaml")]:
            raise UserError(
                Problem(
                    "params.yaml",
                    "an unedited profile",
                    "values of your own",
                    "Keep a copy, then repeat with --force.",
                ),
                "params.yaml was not changed.",
            )
    shutil.copyfile(source, PARAMS)
    print(f"params.yaml now holds {source}. Next: voxadapt doctor, then dvc repro.")


@app.command()
def doctor(
    params_file: ParamsFile = PARAMS,
    online: Annotated[bool, typer.Option(help="Also ask whether weights can be fetched.")] = False,
) -> None:
    """Name each missing or unfit part of this machine and what to do about it."""
    from voxadapt.tools.doctor import diagnose

    checks = diagnose(load_params(params_file), online=online)
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<4}  {check.name:<{width}}  {check.found}")
        if check.status != "ok":
            print(f"      {'':<{width}}  -> {check.fix}")
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


@app.command()
def plan(
    params_file: ParamsFile = PARAMS,
    gpu_gb: Annotated[
        float | None, typer.Option(min=1.0, help="Plan for a GPU of this memory; none is needed.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(help="Time layers, codec and Whisper here, to predict seconds."),
    ] = True,
    parts: Annotated[
        bool, typer.Option("--parts", help="Say what the time of each stage is made of.")
    ] = False,
) -> None:
    """Predict memory and time of the stages; name the setting to lower where one does not fit."""
    from voxadapt.tools import plan as budget

    found = budget.plan(load_params(params_file), gpu_gb, measure)
    print("\n".join(budget.describe(found, parts)))
    if not found.fits:
        raise typer.Exit(1)


@app.command()
def status(
    params_file: ParamsFile = PARAMS,
    measure: Annotated[
        bool, typer.Option(help="Predict by timing what has not run here yet.")
    ] = True,
) -> None:
    """Show where the pipeline stands, what is stale and why, and what the next run will cost."""
    from voxadapt.tools import status as module
    from voxadapt.tools.dvc_state import read_pipeline

    pipeline = read_pipeline()
    params = load_params(params_file) if measure else None
    print("\n".join(module.describe(module.status(params, pipeline))))


@language_app.command("data")
def language_data(params_file: ParamsFile = PARAMS) -> None:
    """Check texts and recordings; extract codes; measure their round trip."""
    from voxadapt.pipeline import language_stages

    print(language_stages.data(load_params(params_file)).sentence)


@language_app.command("stage1")
def language_stage1(params_file: ParamsFile = PARAMS) -> None:
    """Adapt rows of the text embedding; one small delta per epoch."""
    from voxadapt.pipeline import language_stages

    print(language_stages.stage1(load_params(params_file)).sentence)


@language_app.command("score")
def language_score(
    candidate: Annotated[str, typer.Argument(help="base, or an epoch of Stage 1.")],
    params_file: ParamsFile = PARAMS,
) -> None:
    """Speak and score sentences of the language and of the source language."""
    from voxadapt.pipeline import language_stages

    print(language_stages.score(load_params(params_file), candidate).sentence)


@language_app.command("decide")
def language_decide(params_file: ParamsFile = PARAMS) -> None:
    """Choose the epoch of Stage 1; decide whether Stage 2 is run."""
    from voxadapt.pipeline import language_stages

    print(language_stages.decide(load_params(params_file)).sentence)


@language_app.command("stage2")
def language_stage2(params_file: ParamsFile = PARAMS) -> None:
    """Adapt the code predictor and score it, if the decision says so."""
    from voxadapt.pipeline import language_stages

    print(language_stages.stage2(load_params(params_file)).sentence)


@language_app.command("confirm")
def language_confirm(params_file: ParamsFile = PARAMS) -> None:
    """Choose the model that is kept; compare it with the Base on the untouched split."""
    from voxadapt.pipeline import language_stages

    print(language_stages.confirm(load_params(params_file)).sentence)


@language_app.command("report")
def language_report(params_file: ParamsFile = PARAMS) -> None:
    """Write the language's report page."""
    from voxadapt.pipeline import language_stages

    print(language_stages.report(load_params(params_file)).sentence)


@language_app.command("materialise")
def language_materialise(
    output: Folder,
    candidate: Chosen = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Write the chosen model as a full folder that stock qwen_tts loads."""
    from voxadapt.pipeline import language_stages

    print(language_stages.materialise(load_params(params_file), output, candidate).sentence)


@language_app.command("restore")
def language_restore(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that materialise wrote.")],
    candidate: Annotated[str, typer.Argument(help="Candidate that it was made from.")],
    output: Folder,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Take a delta out again: the Base, bit for bit."""
    from voxadapt.pipeline import language_stages

    params = load_params(params_file)
    print(language_stages.restore(params, checkpoint, candidate, output).sentence)


@language_app.command("say")
def language_say(
    text: Spoken,
    output: Sound = Path("said.wav"),
    candidate: Chosen = None,
    seed: Annotated[int, typer.Option()] = 0,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Speak a sentence of the language."""
    from voxadapt.pipeline import language_stages

    print(language_stages.say(load_params(params_file), text, output, candidate, seed).sentence)


@app.command()
def compare(
    arm: Annotated[
        list[str] | None,
        typer.Argument(help="Arms (default: those that params switch on), or experiments."),
    ] = None,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Compare DVC experiments; default: all of HEAD.")
    ] = False,
    candidates: Annotated[
        list[str] | None,
        typer.Option(help="Of each experiment: chosen (default), all, epoch-3 …; repeatable."),
    ] = None,
    language: Annotated[
        bool, typer.Option("--language", help="The experiments' language path.")
    ] = False,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Train and score other parts of the model for the language; put all in one table.

    With --experiments: read DVC experiments that have run, and compare what they chose.
    """
    if experiments:
        from voxadapt.tools import experiments as sweeps

        picked = tuple(candidate_name(name) for name in candidates or [sweeps.CHOSEN])
        found = sweeps.compare(
            load_params(params_file), arm or None, candidates=picked, language=language
        )
        print(found.sentence)
        return
    if candidates or language:
        raise UserError(
            Problem("--candidates, --language", "together with --experiments", "without it",
                    "Add --experiments, or leave them out.")
        )  # fmt: skip
    from voxadapt.pipeline import language_stages

    print(language_stages.arms(load_params(params_file), arm or None).sentence)


@app.command()
def export(
    output: Folder,
    candidate: Annotated[
        str | None, typer.Argument(help="An epoch; default: the chosen one.")
    ] = None,
    delta: DeltaOnly = False,
    force: Replace = False,
    name: ModelName = None,
    licence: Licence = None,
    base_license: BaseLicence = None,
    data_license: DataLicence = None,
    base_model: BaseOnHub = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Write the chosen checkpoint as a folder for the Hub, with a model card."""
    from voxadapt.tools import export as module

    terms = module.Terms(name, licence, base_license, data_license, base_model)
    params = load_params(params_file)
    result = module.export_speaker(params, output, candidate, terms, delta=delta, force=force)
    print(result.sentence)


@language_app.command("export")
def language_export(
    output: Folder,
    candidate: Annotated[
        str | None, typer.Argument(help="An epoch, or stage2-epoch-N; default: the kept one.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Best epoch of this arm of `voxadapt compare` instead.")
    ] = None,
    delta: DeltaOnly = False,
    force: Replace = False,
    name: ModelName = None,
    licence: Licence = None,
    base_license: BaseLicence = None,
    data_license: DataLicence = None,
    base_model: BaseOnHub = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Write the adapted Base as a folder for the Hub, with a model card."""
    from voxadapt.tools import export as module

    terms = module.Terms(name, licence, base_license, data_license, base_model)
    params = load_params(params_file)
    result = module.export_language(
        params, output, candidate, terms, arm=arm, delta=delta, force=force
    )
    print(result.sentence)


@app.command()
def apply(
    delta: Annotated[Path, typer.Argument(help="Folder that `export --delta` wrote.")],
    base: Annotated[str, typer.Option(help="The Base: a folder, or its id on the Hub.")],
    output: Folder,
    revision: Annotated[str | None, typer.Option(help="Commit of the Base on the Hub.")] = None,
) -> None:
    """Make the whole model of an exported delta and its Base; compare every tensor."""
    from voxadapt.tools import export as module

    print(module.apply(delta, base, output, revision).sentence)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `export` wrote.")],
    repo: Annotated[str, typer.Option(help="owner/name on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list only.")] = False,
) -> None:
    """Publish an exported folder on the Hub."""
    from voxadapt.tools import export as module

    print(module.push(folder, repo, private=private, dry_run=dry_run).sentence)


@app.command(name="import")
def import_corpus(
    output: Folder,
    source: Annotated[
        list[Path] | None, typer.Argument(help="Folder or file of a corpus; with --long several.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="ljspeech, commonvoice, lhotse or hf.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="The sources are long recordings: cut and transcribe.")
    ] = False,
    speaker: Annotated[
        str | None, typer.Option(help="Speaker or client_id, or how it begins.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column that holds the text.")] = None,
    audio_root: Annotated[
        Path | None, typer.Option(help="Folder that holds the audio; default: the source's.")
    ] = None,
    ref: Annotated[
        Path | None, typer.Option(help="Reference clip; default: the clearest of 3 to 10 s.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Name for each row, such as english.")
    ] = None,
    asr: Annotated[str, typer.Option(help="--long: Whisper checkpoint, or a name.")] = "large-v3",
    asr_language: Annotated[str, typer.Option(help="--long: Whisper's code.")] = "en",
    clip_s: Annotated[
        tuple[float, float], typer.Option(help="--long: shortest and longest clip, seconds.")
    ] = (1.0, 20.0),
    window_s: Annotated[
        float, typer.Option(min=2.0, max=30.0, help="--long: what Whisper hears at once.")
    ] = 30.0,
    device: Annotated[str, typer.Option(help="--long: auto, cpu, cuda or cuda:N.")] = "auto",
    consent: Consent = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier import.")] = False,
) -> None:
    """Make a manifest folder of a corpus in another layout, or of long recordings."""
    from voxadapt.prepare.import_corpus import import_corpus
    from voxadapt.prepare.import_long import Hearing, import_long

    if long:
        hearing = Hearing(asr, asr_language, clip_s, window_s, device)
        result = import_long(
            source or [], output, hearing, ref=ref, language=language, consent=consent,
            force=force,
        )  # fmt: skip
    else:
        result = import_corpus(
            source or [],
            output,
            kind=kind,
            speaker=speaker,
            text_column=text_column,
            audio_root=audio_root,
            ref=ref,
            language=language,
            consent=consent,
            force=force,
        )
    if result.left_out:
        print_problems(
            UserError(
                result.left_out[:50], f"{len(result.left_out)} left out; all are in import.json."
            )
        )
    print(result.sentence)


@app.command()
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages, with what they need; default: all.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Default: 2 where models run on the CPU, else 1."),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Every stage imports the libraries for itself.")
    ] = False,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Do what `dvc repro` does, several stages at a time."""
    from voxadapt.tools import repro as module

    on_cpu = module.on_cpu(params_file)
    preparation = module.PREPARATION if on_cpu and not cold else None
    outcome = module.repro(targets or (), jobs or (2 if on_cpu else 1), preparation=preparation)
    if outcome.failed:
        raise typer.Exit(1)


@notebook_app.command("run")
def notebook_run(
    name: Annotated[str, typer.Argument(help="Notebook name without .ipynb.")],
    candidate: Annotated[str | None, typer.Option(help="For the scoring notebook.")] = None,
    output: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
    params_file: ParamsFile = PARAMS,
) -> None:
    """Run one notebook with papermill and write its HTML."""
    from voxadapt.core.paths import NOTEBOOK_HTML
    from voxadapt.tools.notebook import NotebookError, run_notebook
    from voxadapt.tools.status import record_seconds

    selectors: dict[str, Any] = {"params_file": str(params_file)}
    stem = name
    if candidate is not None:
        selectors["candidate"] = candidate
        stem = f"{name}_{candidate}"
    started = time.monotonic()
    try:
        page = run_notebook(name, selectors, output or NOTEBOOK_HTML / f"{stem}.html")
    except NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
        raise typer.Exit(1) from None
    record_seconds(page, time.monotonic() - started)


@notebook_app.command("clean")
def notebook_clean(
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Clean the notebooks themselves, for a commit.")
    ] = False,
) -> None:
    """Write cleaned copies of the notebooks, on which the stages depend."""
    from voxadapt.tools.notebook import CLEANED, EXPLORE, NOTEBOOKS, clean_all

    clean_all(NOTEBOOKS, NOTEBOOKS if in_place else CLEANED)
    if in_place:
        clean_all(EXPLORE, EXPLORE)


@notebook_app.command("filter")
def notebook_filter() -> None:
    """Have git leave the outputs of notebooks out of commits, in this clone."""
    from voxadapt.tools.lab import set_up_filter

    print(set_up_filter(Path()))


@miniature_app.command("build")
def miniature_build(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("data"),
    work: Annotated[Path, typer.Option(help="Folder for resumable state.")] = Path(
        ".work/miniature"
    ),
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train the miniature world again: hours on a CPU; needs espeak-ng and flite."""
    from voxadapt.miniature.build import build

    build(out, work, seed)


def main() -> None:
    """Run the command line; user errors end with a table and exit code 2."""
    try:
        code = app(standalone_mode=False)  # click returns the code of typer.Exit here
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        print_problems(error)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped. Run the same command again to go on where it was.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            print(f"Error: {error.format_message()}", file=sys.stderr)
            sys.exit(2)
        problem = storage_problem(error, str(getattr(error, "filename", None) or "the disk"))
        if problem is None:
            raise
        print_problems(UserError(problem, "A file could not be written."))
        sys.exit(2)


if __name__ == "__main__":
    main()

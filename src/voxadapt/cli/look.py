"""Commands that show what there is: status, speech, listening pages, scores, comparisons."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from voxadapt.cli import options as opt
from voxadapt.cli.terminal import print_table


def status(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Show what is stale and why, and what a run will cost."""
    from voxadapt.tools import status as states
    from voxadapt.tools.dvc_state import read_pipeline

    params = opt.load(params_file)
    found = states.status(read_pipeline())
    table = states.rows(found, params.train.schedule)
    width = 3 if any(cost for *_, cost in table) else 2
    print_table([row[:width] for row in table], states.COLUMNS[:width])
    print("\n" + "\n".join(states.summary(found)))


def verify(params_file: opt.ParamsFile = opt.PARAMS) -> None:
    """Check that a finished run is as its stages wrote it."""
    from voxadapt.tools import verify as finished

    print(finished.verify(opt.load(params_file)).sentence)


def say(
    text: opt.SpokenText = None,
    file: opt.TextFile = None,
    output: opt.SoundFile = Path("said.wav"),
    candidate: Annotated[
        str | None, typer.Option(help="base or an epoch; default: the chosen one.")
    ] = None,
    takes: opt.NumTakes = 1,
    pick: opt.Pick = False,
    seed: opt.Seed = 0,
    speaker: Annotated[
        str | None, typer.Option(help="One of several speakers; default: the first.")
    ] = None,
    instruct: Annotated[
        str | None, typer.Option(help="How to speak, of a voice from a CustomVoice model.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Of those of the model; default: train.language.")
    ] = None,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Speak a sentence or a text file with the chosen epoch."""
    from voxadapt.tools import say as speech

    said_text, how = opt.spoken_text(text, file), speech.Takes(takes, pick, seed)
    said = speech.say(
        opt.load(params_file), said_text, output, candidate, how, speaker,
        instruct=instruct, tag=language,
    )  # fmt: skip
    print(said.sentence)


def judge(
    speak: Annotated[
        int, typer.Option(min=0, help="Sentences to be spoken right and wrong; 0: none.")
    ] = 0,
    candidate: Annotated[str, typer.Option(help="Who speaks: base or an epoch.")] = "base",
    language: Annotated[
        bool, typer.Option("--language", help="The recogniser of the language's path.")
    ] = False,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Show which sounds and wrong words the recogniser can tell."""
    from voxadapt.tools.judge import judge as judge_recogniser

    print(judge_recogniser(opt.load(params_file), speak, candidate, language).sentence)


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
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Write blind A/B and rating pages for listeners."""
    from voxadapt.core import paths
    from voxadapt.core.problems import user_error
    from voxadapt.pipeline import report

    if out is None and (pair is not None or sentences is not None):
        raise user_error("prepare.own_pages", "--out")
    pairs = [pair] if pair else None
    print(report.listen(opt.load(params_file), pairs, sentences, out or paths.LISTEN).sentence)


def votes(
    files: Annotated[list[Path], typer.Argument(help="Files that listeners exported.")],
    key: Annotated[
        Path | None, typer.Option(help="Key of their pages; default: reports/listen/key.json.")
    ] = None,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Evaluate listeners' votes, with intervals."""
    from voxadapt.core import paths
    from voxadapt.listening.votes import KEY_FILE
    from voxadapt.pipeline import report

    key = key or paths.LISTEN / KEY_FILE
    print(report.votes(opt.load(params_file), files, key).sentence)


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
    metric: Annotated[
        Literal["wer", "cer"] | None, typer.Option(help="wer or cer; default: by script.")
    ] = None,
    device: opt.Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Whisper windows at once.")] = 16,
) -> None:
    """Score clips of any system; no params.yaml is needed."""
    from voxadapt.tools import evaluate as evaluation

    result = evaluation.evaluate(
        manifest, out, language=language, asr=asr, reference=reference, other_voices=other_voices,
        metric=metric, device=device, batch_size=batch_size,
    )  # fmt: skip
    print(result.sentence)


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
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Compare language arms, or DVC experiments, in a table.

    Arms are other parts of the model to train for the language: they are trained and scored. With
    --experiments, DVC experiments that have run are read, and what they chose is compared.
    """
    if experiments:
        from voxadapt.core.params import candidate_name
        from voxadapt.tools import experiments as sweeps
        from voxadapt.tools.experiment_files import CHOSEN

        asked = tuple(candidate_name(name) for name in candidates or [CHOSEN])
        params = opt.load(params_file)
        print(sweeps.compare(params, arm or None, candidates=asked, language=language).sentence)
        return
    from voxadapt.core.problems import user_error
    from voxadapt.pipeline.language import arms

    if candidates or language:
        raise user_error("prepare.no_experiments", "--candidates, --language")
    print(arms.run(opt.load(params_file), arm or None).sentence)


def lab(context: typer.Context) -> None:
    """Open the notebooks in JupyterLab; takes its options."""
    from voxadapt.tools.lab import open_lab

    open_lab(context.args)

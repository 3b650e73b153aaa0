"""Commands to begin with: a project, its data, its parameters, this machine."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from voxadapt.cli import options as opt
from voxadapt.cli.problems import print_problems, print_rows
from voxadapt.cli.terminal import print_table
from voxadapt.core.errors import UserError

PROFILES = Path("profiles")


def new(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    profile: Annotated[str, typer.Option(help="Model to begin with.")] = "qwen3-tts-0.6b",
) -> None:
    """Write a project: stages, notebooks, params.yaml."""
    from voxadapt.prepare.new_project import new_project

    print(new_project(folder, profile))


def init(
    folder: Annotated[Path, typer.Argument(help="A project, or a new or empty folder.")],
    audio: Annotated[
        Path | None, typer.Option(help="Folder of recordings of one voice; texts may lie beside.")
    ] = None,
    transcribe: Annotated[
        bool, typer.Option("--transcribe", help="Whisper drafts texts, and checks given ones.")
    ] = False,
    consent: opt.Consent = None,
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
        float, typer.Option(min=2.0, max=30.0, help="Seconds that Whisper transcribes at once.")
    ] = 30.0,
    device: opt.Device = "auto",
    profile: Annotated[
        str, typer.Option(help="Model that a new project begins with.")
    ] = "qwen3-tts-0.6b",
) -> None:
    """Prepare recordings and texts; say what is missing.

    Repeat it after corrections or with more recordings: it goes on where it was.
    """
    from voxadapt.prepare.init import init as prepare
    from voxadapt.prepare.init_options import InitOptions

    options = InitOptions(
        audio, transcribe, consent, language, text, source_text, ref, table, asr, asr_language,
        clip_s, window_s, sentences, speaker_name, profile, device,
    )  # fmt: skip
    found = prepare(folder, options)
    if found.left_out:
        title = f"{len(found.left_out)} left out."
        print_problems(UserError(found.left_out, title))
    print("\n".join(found.lines))
    if found.missing:
        print("\nStill missing:")
        print_rows(found.missing, sys.stdout)
    print("\nThen:\n  " + "\n  ".join(found.commands))


def import_data(
    output: opt.Folder,
    source: Annotated[list[Path] | None, typer.Argument(help="Folder or file of a corpus.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format", help="ljspeech, commonvoice, lhotse, kaldi, hf, table, jsonl or beside."
        ),
    ] = None,
    speaker: Annotated[
        list[str] | None, typer.Option(help="Speaker, or how it begins; again for another; or all.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Audio, text, normalised, speaker, language, offset, end, duration or - for each."
        ),
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
    consent: opt.Consent = None,
    trim_silence: Annotated[
        bool, typer.Option("--trim-silence", help="Shorten silence at the edges of clips.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier import.")] = False,
    params_file: opt.ParamsFile = opt.PARAMS,
) -> None:
    """Make a manifest folder of a corpus in another layout."""
    from voxadapt.prepare.import_corpus import import_corpus

    limits = opt.load(params_file).audit if params_file.is_file() else None
    result = import_corpus(
        source or [], output, kind=kind, speaker=speaker, columns=columns,
        text_column=text_column, audio_root=audio_root, ref=ref, language=language,
        consent=consent, trim_silence=trim_silence, limits=limits, force=force,
    )  # fmt: skip
    if result.left_out:
        title = f"{len(result.left_out)} left out; all are in import.json."
        print_problems(UserError(result.left_out, title))
    print(result.sentence)


def use(
    profile: Annotated[str, typer.Argument(help="Name of a file in profiles/, or a path.")],
    force: Annotated[bool, typer.Option(help="Overwrite a params.yaml that was edited.")] = False,
) -> None:
    """Write params.yaml from a profile."""
    from voxadapt.core.problems import user_error

    known = {path.stem: path.read_bytes() for path in sorted(PROFILES.glob("*.yaml"))}
    source = Path(profile) if profile.endswith(".yaml") else PROFILES / f"{profile}.yaml"
    if not source.is_file():
        none = "the profiles of a project, in its folder"
        facts = {"known": ", ".join(known) or none, "found": profile}
        raise user_error("prepare.unknown_profile", "profile", **facts)
    opt.load(source)  # a profile that cannot be used is not written
    if opt.PARAMS.exists() and not force and opt.PARAMS.read_bytes() not in known.values():
        raise user_error("prepare.edited_params", "params.yaml")
    shutil.copyfile(source, opt.PARAMS)
    print(f"params.yaml now holds {source}. Next: voxadapt doctor, then dvc repro report.")


def doctor(
    params_file: opt.ParamsFile = opt.PARAMS,
    online: Annotated[bool, typer.Option(help="Also ask whether weights can be fetched.")] = False,
) -> None:
    """Check this machine; say what to do about each fault."""
    from voxadapt.tools.doctor import diagnose

    failed = False
    for check in diagnose(opt.load(params_file), online=online):  # as they are made: some are slow
        said = f"{check.found}. {check.fix}" if check.fix else check.found
        print_table([(check.status, check.name, said)], min_widths=(4, 18))
        failed |= check.status == "fail"
    if failed:
        raise typer.Exit(1)


def plan(
    params_file: opt.ParamsFile = opt.PARAMS,
    gpu_gb: Annotated[
        float | None, typer.Option(min=1.0, help="Plan for a GPU of this memory; none is needed.")
    ] = None,
) -> None:
    """Predict memory and time; name the setting to lower."""
    from voxadapt.tools import plan as budget
    from voxadapt.tools.dvc_state import read_pipeline
    from voxadapt.tools.memory import GB

    # DVC knows no other parameters
    is_projects = params_file == opt.PARAMS and Path(".dvc").is_dir()
    found = budget.plan(opt.load(params_file), gpu_gb, read_pipeline() if is_projects else None)
    print(f"{found.device}, {found.capacity / GB:.1f} GB\n")
    print_table(budget.rows(found), budget.COLUMNS)
    print("\n" + "\n".join(budget.notes(found)))
    if not found.fits:
        raise typer.Exit(1)

"""The command line: help, profiles, and user errors as one table with exit code 2."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner

from corpus import write_clip
from voxadapt.cli.app import COMMANDS, app
from voxadapt.cli.problems import print_left_out, print_rows
from voxadapt.cli.terminal import Printable, column_widths, print_table
from voxadapt.core.errors import Problem, UserError, one_row_a_reason
from whole import in_process

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(PROJECT / "profiles", tmp_path / "profiles")
    shutil.copy(PROJECT / "profiles" / "miniature.yaml", tmp_path / "params.yaml")
    return tmp_path


@pytest.mark.slow
def test_help_lists_every_stage(project: Path) -> None:
    done = in_process(project, "--help")
    assert done.returncode == 0
    for verb in "audit codes train score select confirm report say use doctor".split():
        assert verb in done.stdout


def test_help_has_five_groups_and_one_line_a_command() -> None:
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["--help"]).output.splitlines()
    groups = [line.split()[1] for line in lines if line.startswith("╭")]
    assert groups == ["Options", "Start", "Run", "Look", "Share", "Advanced"]
    names = [line.split()[1] for line in lines if re.match(r"│ \w", line)]
    known = [name for commands in COMMANDS.values() for name in commands]
    assert sorted(names) == sorted([*known, "language", "notebook"])
    assert not any(line.startswith("│  ") for line in lines), "no command needs two lines"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["trian"], "voxadapt train"),
        (["langauge"], "voxadapt language"),
        (["language", "decied"], "voxadapt language decide"),
        (["language", "audit"], "voxadapt audit"),
        (["stage2"], "voxadapt language stage2"),
        (["notebook", "claen"], "voxadapt notebook clean"),
    ],
)
def test_a_typo_names_what_was_meant(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert f"Did you mean `{meant}`" in " ".join(result.output.replace("│", "").split())


@pytest.mark.slow
def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "torch pandas numpy transformers pydantic whisper dvc matplotlib".split()
    code = f"import sys, voxadapt.cli; sys.exit(' '.join(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.slow
def test_version_and_a_problem_in_a_process_of_their_own(project: Path) -> None:
    for arguments, code in (["--version"], 0), (["use", "nosuch"], 2):
        done = subprocess.run(
            [sys.executable, "-m", "voxadapt", *arguments], cwd=project,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "COLUMNS": "120"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert done.stdout.startswith("voxadapt ") if not code else "miniature" in done.stderr


def test_wrong_params_are_one_table_without_a_traceback(project: Path) -> None:
    path = project / "params.yaml"
    text = path.read_text().replace("  takes:", "  takez:", 1)
    text = re.sub(r"  lr: \S+", "  lr: fast", text, count=1)
    path.write_text(text.replace("batch_size: 8", "batch_size: -8", 1))
    done = in_process(project, "audit")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name in ("score.takez", "train.lr", "train.batch_size", "3 problems"):
        assert name in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("train", "--batch-size", "0"), ("score",), ("nosuch",)])
def test_wrong_options_exit_with_2(project: Path, arguments: tuple[str, ...]) -> None:
    done = in_process(project, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_option_outside_its_range_names_the_parameter(project: Path) -> None:
    done = in_process(project, "train", "--dtype", "int8")
    assert done.returncode == 2
    assert "train.compute_dtype" in done.stderr and "The options cannot be used." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_use_writes_a_profile_and_keeps_edited_params(project: Path) -> None:
    done = in_process(project, "use", "qwen3-tts-0.6b")
    assert done.returncode == 0, done.stderr
    params = project / "params.yaml"
    assert params.read_bytes() == (project / "profiles" / "qwen3-tts-0.6b.yaml").read_bytes()
    params.write_text(params.read_text() + "# mine\n")
    refused = in_process(project, "use", "miniature")
    assert refused.returncode == 2
    assert "# mine" in params.read_text()
    assert in_process(project, "use", "miniature", "--force").returncode == 0
    assert "# mine" not in params.read_text()


def test_unknown_profile_lists_the_known_ones(project: Path) -> None:
    done = in_process(project, "use", "nosuch")
    assert done.returncode == 2
    assert "miniature" in done.stderr


@pytest.mark.slow
def test_every_command_finds_the_project_from_a_sub_folder(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {}\n")
    below = project / "notes" / "today"
    below.mkdir(parents=True)
    for command in (["audit"], ["say", "Words."], ["score", "base"], ["status"]):
        done = in_process(below, *command)
        assert "params.yaml" not in done.stderr.replace("in params.yaml", ""), command
    write_clip(below / "corpus" / "a.wav", 4.0)
    write_clip(below / "corpus" / "b.wav", 4.0, seed=1)
    (below / "corpus" / "list.csv").write_text("audio,text\na.wav,One text.\nb.wav,Another one.\n")
    done = in_process(below, "import", "corpus", "-o", "made")
    assert done.returncode == 0, done.stderr
    assert (below / "made" / "train_raw.jsonl").is_file(), "a path that is typed keeps its place"


@pytest.mark.slow
def test_a_folder_that_was_removed_under_the_shell_is_said_to_be(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); from voxadapt.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "status"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "one that was removed" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_named(project: Path) -> None:
    for n in range(3):
        write_clip(project / "corpus" / f"u{n}.wav", 3.0 + n / 10, seed=n)
        (project / "corpus" / f"u{n}.txt").write_text(f"The words of clip {n} go here.")
    for out in ("/proc/nowhere/x", "params.yaml/x", "x" * 300):
        done = in_process(project, "import", "corpus", "-o", out)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "Correct the path." in " ".join(done.stderr.split())


@pytest.mark.slow
def test_control_characters_of_names_are_shown_and_not_obeyed(project: Path) -> None:
    name = "\x1b[31mred\x1b]0;title\x07"
    (project / name).mkdir()
    (project / name / "x.csv").write_text(f"audio,text\n{name}.wav,Words\n{name}.wav,\n")
    for command in (["import", name, "-o", "out"], ["import", f"{name}2", "-o", "out"],
                    ["score", name], [f"--{name}"]):  # fmt: skip
        done = in_process(project, *command)
        assert done.returncode == 2
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stderr, command


def test_one_row_a_reason_with_its_lines() -> None:
    folder = [Problem(f"rows.jsonl:{n}", "audio: a path below x/", f"{n}.wav, a link", "Copy it.")
              for n in range(1, 554)]  # fmt: skip
    rates = [Problem(f"rows.jsonl:{n}", "at least 24000 Hz", f"{8000 + n} Hz", "Record again.")
             for n in (7, 9)]  # fmt: skip
    rows = one_row_a_reason([*folder, *rates])
    assert len(rows) == 3
    assert rows[0].where == "rows.jsonl: 1, 2, 3, 4, 5, 6, 7, 8 … (553 in all)"
    assert rows[0].found == "1.wav, a link; others alike"
    assert rows[1:] == rates, "two rows stay as they are"
    error = UserError([*folder, *rates], "Nothing was written.")
    assert len(error.problems) == 555
    assert len(str(error).splitlines()) == 4, "in a notebook too"


def test_what_a_stage_leaves_out_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    item = Problem("rows.jsonl:3", "audio", "none", "Mend it.").as_dict()
    print_left_out({"dropped": [item]}, Path("audit.json"))
    told = capsys.readouterr().err
    assert "rows.jsonl:3" in told and "audit.json has each of them" in told
    for values in ({}, None):
        print_left_out(values, Path("audit.json"))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("device", ["npu", "gpu", "xpu", "cuda:x", "CPU", ""])
def test_a_device_that_a_stage_refuses_is_refused_at_once(project: Path, device: str) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub("device: .*", f'device: "{device}"', text, count=1))
    done = in_process(project, "doctor")
    assert done.returncode == 2 and "model.device" in done.stderr


@pytest.mark.slow
def test_a_profile_of_the_repository_alone_is_named_as_such(tmp_path: Path) -> None:
    done = in_process(tmp_path, "new", "mine", "--profile", "miniature")
    assert done.returncode == 2 and "repository" in done.stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    where = "data/speaker/train_raw.jsonl:12"
    problem = Problem(where, "a sentence of letters " * 6, "漢字仮名" * 12, "Mend it. " * 9)
    print_rows([problem], sys.stdout)
    print_table([("stale: a changed", "x" * 100, "\x1b[31mred")], ("state", "name", "colour"))
    printed = capsys.readouterr().out
    assert max(cell_len(line) for line in printed.splitlines()) <= columns
    assert printed.replace("\n", "").count("漢") == 12 and "x" in printed
    assert "\x1b" not in printed, "no colours where no terminal is, and no text that is obeyed"
    assert where in printed.replace("\n", "") or columns == 120


def test_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table([("fail", "a part", "\x1b[2J")], stream=Printable(stream))  # type: ignore[arg-type]
    assert "\x1b[1;31mfail\x1b[0m" in stream.getvalue() and "\x1b[2J" not in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream.truncate(0)
    print_table([("fail",)], stream=Printable(stream))  # type: ignore[arg-type]
    assert "31m" not in stream.getvalue()


CELLS = st.text("ab /漢", max_size=60)


@given(columns=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=5),
       room=st.integers(20, 140))  # fmt: skip
def test_columns_fit_and_words_stay_whole_where_they_can(
    columns: list[list[str]], room: int
) -> None:
    widths = column_widths(columns, room)
    natural = [max(map(cell_len, column)) for column in columns]
    words = [max((cell_len(w) for cell in column for w in cell.split()), default=0)
             for column in columns]  # fmt: skip
    gaps = 2 * (len(columns) - 1)
    assert sum(widths) + gaps <= room
    assert all(map(int.__le__, widths, natural))
    if sum(natural) + gaps <= room:
        assert widths == natural
    elif sum(words) + gaps <= room:
        assert all(map(int.__ge__, widths, words))

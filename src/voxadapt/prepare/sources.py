"""What the user gives to `init`: recordings, and the lines of texts."""

from pathlib import Path

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.problems import problem, user_error
from voxadapt.data.audio import AudioError
from voxadapt.data.audit import CONTAINERS
from voxadapt.data.lines import shown
from voxadapt.data.manifest import ManifestFiles, check_text
from voxadapt.data.text import fold_text, has_digit, has_markup
from voxadapt.data.texts import read_texts
from voxadapt.prepare.folders import are_labels
from voxadapt.prepare.sound import OTHER_CONTAINERS, needs_ffmpeg

COMMENT = "#"


def find_recordings(folder: Path) -> tuple[list[Path], list[Problem]]:
    """Return the recordings, one at least, below a folder, and what cannot be read as one."""
    if not folder.exists():
        raise user_error("prepare.no_folder", f"--audio {folder}")
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    found, problems = [], []
    checks = ManifestFiles(folder)
    for path in files:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in CONTAINERS.keys() | OTHER_CONTAINERS:
            continue
        try:
            if path != folder:
                below = path.relative_to(folder).as_posix()
                if (wrong := checks.place(path.name, "audio", below)[1]) is not None:
                    problems.append(wrong)
                    continue
            needs_ffmpeg(path)  # refuses what nothing reads
            found.append(path)
        except (AudioError, OSError) as error:
            problems.append(problem("prepare.unreadable_recording", path.name, found=error))
    if not found:
        known = ", ".join(name.lstrip(".") for name in CONTAINERS)
        none = problem("prepare.no_recordings", f"--audio {folder}", known=known)
        raise UserError(problems or none)
    return found, problems


def lines_beside(recording: Path, scripts: Path) -> tuple[list[str], str | None]:
    """Return the lines that were read in a recording, and the name of the file that holds them.

    The text is the file of the same name that ends in `.txt`, beside the recording or among the
    recording scripts.
    """
    beside = (recording.with_suffix(ending) for ending in (".txt", ".TXT"))
    for path in (*beside, scripts / f"{recording.stem}.txt"):
        if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
            raise user_error("prepare.linked_text", path)
        if path.is_file():
            return read_lines(path), path.name
    return [], None


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are read aloud; refuse one with others."""
    lines = _text_lines(path, "Save it as plain text in UTF-8.")
    problems = [wrong for where, line in lines for wrong in check_text(where, line)]
    if are_labels([line for _, line in lines]):
        problems = [problem("prepare.labels", path.name, found=shown(lines[0][1], 40))]
    raise_problems(problems, f"{path} cannot be used.")
    return [line for _, line in lines]


def usable_texts(path: Path | None) -> tuple[list[str], list[Problem]]:
    """Return the sentences of a file, each once, and what is wrong with the other lines.

    It is plain text, one sentence a line, or a JSONL with `text`; one at least has to be left.
    """
    if path is None:
        return [], []
    if path.suffix == ".jsonl":
        found = [(line.where, line.text) for line in read_texts(path, any_field=True)]
    else:
        found = _text_lines(path, "Give plain text in UTF-8, one sentence a line.")
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for where, text in found:
        told = check_text(where, text)
        if not told and has_markup(text):
            told = [problem("prepare.text_markup", where)]
        if not told and has_digit(text):
            told = [problem("prepare.text_digits", where)]
        problems += told[:1]
        if not told:
            texts.setdefault(fold_text(text), text)
    if not texts:
        raise UserError(problems or problem("prepare.no_sentences", path))
    return list(texts.values()), problems


def _text_lines(path: Path, fix: str) -> list[tuple[str, str]]:
    """Return `file.txt:12` and the text of each line; blank lines and comments are left out."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = error if isinstance(error, OSError) else "bytes of another encoding"
        raise user_error("prepare.text_encoding", path, found=found, fix=fix) from None
    lines = [" ".join(line.split()) for line in content.splitlines()]
    return [
        (f"{path.name}:{number}", line)
        for number, line in enumerate(lines, start=1)
        if line and not line.startswith(COMMENT)
    ]

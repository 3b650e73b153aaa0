"""Reading what stages wrote, with every missing or damaged file noted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxadapt.core.errors import Problem, reason
from voxadapt.core.files import read_json, read_jsonl
from voxadapt.core.problems import user_error

Record = dict[str, Any]  # of a JSON file; its schema is that of the stage that wrote it


def flatten(record: Record, prefix: str = "") -> Record:
    """Flatten nested dictionaries to dotted keys; lists stay values."""
    flat: Record = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


class _Stored(dict[str, Any]):
    """A record of which a key that is missing is an error of the user's, not a traceback."""

    def __init__(self, values: Record, path: Path, command: str) -> None:
        super().__init__(values)
        self._path, self._command = path, command

    def __missing__(self, key: str) -> Any:
        raise user_error("core.no_record_key", self._path, key=key, command=self._command)


def read_record(path: Path, command: str) -> Record:
    """Read a JSON record of an earlier stage; raises `UserError` when it is absent or damaged."""
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise ValueError(f"{type(record).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise user_error("core.no_record", path, command=command, error=error) from None
    return _Stored(record, path, command)


@dataclass
class Files:
    """Reads files below a folder and remembers those that are missing or damaged."""

    root: Path  # project folder
    #: What to do about a missing file; `{stage}` is the stage that writes it.
    fix: str = "Run `voxadapt {stage}` first."
    #: One for each file that could not be read.
    problems: list[Problem] = field(default_factory=list)

    def read(
        self, path: Path, stage: str, reader: Callable[[Path], Any] = read_json, default: Any = None
    ) -> Any:
        """Read a file, or note the problem and return the default (an empty record if None)."""
        try:
            return reader(self.root / path)
        except (OSError, ValueError) as error:
            found = reason(error)
        fix = self.fix.format(stage=stage)
        self.problems.append(Problem(path.as_posix(), f"what `{stage}` writes", found, fix))
        return {} if default is None else default

    def optional(self, path: Path, stage: str, reader: Callable[[Path], Any] = read_json) -> Any:
        """Read a file that need not be there; None when it is not."""
        return self.read(path, stage, reader) if (self.root / path).is_file() else None

    def rows(self, folder: Path, stage: str) -> list[Record]:
        """Read a folder's score rows, with paths of clips that can be opened."""
        rows = self.read(folder / "rows.jsonl", stage, read_jsonl, [])
        return with_wav_paths(rows, self.root / folder, self.root)


def with_wav_paths(rows: list[Record], folder: Path, root: Path) -> list[Record]:
    """Make `wav` openable: relative to the rows' folder, or else to the project.

    Recordings of the pseudo-candidate `real` lie in the corpus, generated clips beside their rows.
    """
    found = []
    for row in rows:
        if wav := row.get("wav"):
            row = {**row, "wav": str((folder if (folder / wav).is_file() else root) / wav)}
        found.append(row)
    return found

"""What the exploring notebooks read of the project, and which command writes it."""

from collections.abc import Mapping
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import read_json
from voxadapt.core.params import Params
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.explore.selects import Selects
from voxadapt.model.delta import materialise
from voxadapt.pipeline.candidates import check_name, find_checkpoint

CHOSEN, RUNNER_UP = "chosen", "runner-up"


def require_files(files: Mapping[Path, str]) -> None:
    """Refuse to go on without files, each named with the stage of DVC that writes it."""
    problems = [problem("explore.no_file", path.as_posix(), stage=stage)
                for path, stage in files.items() if not path.exists()]  # fmt: skip
    raise_problems(problems, "The pipeline has not come so far.")


def read_decision() -> Record:
    """Read which candidate was chosen."""
    require_files({paths.SELECTION: "select"})
    record: Record = read_json(paths.SELECTION)
    return record


def select_candidates(params: Params, **first: str) -> Selects:
    """Return selects of candidates, each with what stands first in it."""
    known = [CHOSEN, RUNNER_UP, *params.candidates]
    return Selects(**{name: list(dict.fromkeys([value, *known])) for name, value in first.items()})


def find_candidate(params: Params, candidate: str | int) -> tuple[str, Path]:
    """Return name and model folder of a candidate.

    It is `base`, an epoch, `chosen`, `runner-up`, or the folder of any checkpoint.
    """
    if (Path(str(candidate)) / "config.json").is_file():
        return Path(str(candidate)).name, Path(str(candidate))
    if candidate in (CHOSEN, RUNNER_UP):
        name = read_decision()[str(candidate).replace("-", "_")]
        if name is None:
            raise user_error("explore.no_runner_up", "candidate")
    else:
        fix = f"Name one of them, {CHOSEN}, {RUNNER_UP}, or a folder."
        name = check_name(candidate, params.candidates, fix=fix)
    found = find_checkpoint(params.model, name)
    if found.delta is None:
        return name, found.folder
    folder = paths.work_dir() / "exploring" / "models" / found.sha[:16]
    return name, materialise(found.base, found.delta, folder)

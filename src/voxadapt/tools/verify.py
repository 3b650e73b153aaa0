"""`voxadapt verify`: is a finished run still what its stages wrote, and does it fit together?"""

from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import read_json, sha256_folder
from voxadapt.core.lineage import TITLE, faults
from voxadapt.core.params import Params
from voxadapt.core.stage import StageResult
from voxadapt.listening.votes import KEY_FILE
from voxadapt.pipeline.candidates import BASE
from voxadapt.pipeline.finished import language_records, speaker_records
from voxadapt.pipeline.tracks import check_recordings, language_track, speaker_track


def verify(params: Params) -> StageResult:
    """Hold every file of the runs that were finished here to the hashes of their records.

    Files that differ are refused, each with the command that makes it again.
    """
    problems, num_files, said = [], 0, []
    listening = [path for path in (paths.LISTEN / KEY_FILE,) if path.is_file()]
    for what, records, report, track in (
        ("speaker", [*speaker_records(params), *listening], paths.REPORT, speaker_track),
        ("language", language_records(params), paths.LANGUAGE_REPORT, language_track),
    ):
        if not any(path.exists() for path in records):
            continue
        if not report.exists():  # a run that is under way has records up to where it stands
            records = [path for path in records if path.exists()]
        found = [problem for path in records for problem in faults(path, params, strict=True)]
        if records[0].is_file() and not found:
            try:
                check_recordings(track(params))
            except UserError as error:
                found += error.problems
            trained = paths.CHECKPOINTS if what == "speaker" else paths.LANGUAGE_STAGE1
            found += _other_base(params, trained)
        problems += found
        num_files += sum(len(read_json(path)["made"]["files"]) for path in records if not found)
        said.append(f"{len(records)} records of the {what}'s run")
    raise_problems(list(dict.fromkeys(problems)), TITLE)
    if not said:
        return StageResult("Nothing has been run here yet.", None)
    return StageResult(
        f"{' and '.join(said)} with {num_files} files are what the stages wrote, and fit the "
        "recordings and the parameters."
    )


def _other_base(params: Params, trained: Path) -> list[Problem]:
    """Hold a Base in a folder to the hash of the one that was adapted."""
    base, meta = Path(params.model.base), trained / BASE / "meta.json"
    adapted = read_json(meta).get("base_sha256") if meta.is_file() else None
    if adapted is None or not base.is_dir() or sha256_folder(base) == adapted:
        return []
    fix = "Restore it, or train and score again."
    return [Problem(base.as_posix(), "the Base that was adapted", "another", fix)]

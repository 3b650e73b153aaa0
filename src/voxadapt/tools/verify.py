"""`voxadapt verify`: is a finished run still what its stages wrote, and does it fit together?"""

from voxadapt.core import paths
from voxadapt.core.errors import UserError, raise_problems
from voxadapt.core.files import read_json
from voxadapt.core.lineage import TITLE, faults
from voxadapt.core.params import Params
from voxadapt.core.stage import StageResult
from voxadapt.pipeline.finished import language_records, speaker_records
from voxadapt.pipeline.tracks import check_recordings, language_track, speaker_track


def verify(params: Params) -> StageResult:
    """Hold every file of the runs that were finished here to the hashes of their records.

    Files that differ are refused, each with the command that makes it again.
    """
    problems, num_files, said = [], 0, []
    for what, records, report, track in (
        ("speaker", speaker_records(params), paths.REPORT, speaker_track),
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

"""The records of a finished run, each with the hash of what it was made from."""

from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.lineage import MADE, check_made
from voxadapt.core.params import Params
from voxadapt.core.paths import LANGUAGE, SPEAKER


def speaker_records(params: Params) -> list[Path]:
    """List the records with a seal of a speaker's run, in the order of its stages."""
    return [
        SPEAKER.made_by_audit,
        SPEAKER.made_by_codes,
        SPEAKER.made_reference,
        paths.MADE_BY_TRAIN,
        *(paths.SCORES / name / MADE for name in params.candidates),
        paths.SELECTION,
        paths.CONFIRM,
        *(path for path in (paths.LISTEN / "votes.json",) if path.is_file()),
    ]


def language_records(params: Params) -> list[Path]:
    """List those of a language's run; none without a `language` section."""
    if params.language is None:
        return []
    return [
        LANGUAGE.made_by_audit,
        LANGUAGE.made_by_codes,
        LANGUAGE.made_reference,
        paths.MADE_BY_READINGS,
        paths.MADE_BY_STAGE1,
        *(paths.LANGUAGE_SCORES / name / MADE for name in params.language.candidates),
        paths.LANGUAGE_CHOICE1,
        paths.LANGUAGE_DECISION,
        paths.MADE_BY_STAGE2,
        paths.MADE_BY_STAGE2_SCORES,
        paths.LANGUAGE_SELECTION,
        paths.LANGUAGE_CONFIRM,
        # Without what the run chose, the arms' table alone is no run.
        *(path for path in (paths.LANGUAGE_ARMS_TABLE,)
          if path.is_file() and paths.LANGUAGE_CONFIRM.is_file()),
    ]  # fmt: skip


def check_finished(records: list[Path], params: Params) -> None:
    """Refuse to report a run of which something was changed; weights are left to `verify`."""
    heavy = (paths.MADE_BY_TRAIN, paths.MADE_BY_STAGE1, SPEAKER.made_by_codes)
    check_made([path for path in records if path not in heavy], params)
    check_made([path for path in records if path in heavy], params, within=paths.REPORTS)

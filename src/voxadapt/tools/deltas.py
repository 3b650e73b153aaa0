"""A language's delta laid over the Base as a whole model folder, and taken out again."""

from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.errors import UserError
from voxadapt.core.params import Params, language_section
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult
from voxadapt.pipeline.candidates import Candidate, find_delta


def materialise(params: Params, output: Path, candidate: str | None = None) -> StageResult:
    """Write the chosen model, or a candidate, as a full folder that stock `qwen_tts` loads.

    Raises:
        UserError: When the Base was kept, or the candidate has not been trained.
    """
    from voxadapt.model import delta

    name = candidate or read_record(paths.LANGUAGE_SELECTION, "language confirm")["chosen"]
    fix = "The Base is kept: there is nothing to lay over it."
    found, folder = _adapted(params, name, fix)
    delta.materialise(found.base, folder, output)
    spoken = language_section(params).name.capitalize()
    return StageResult(
        f'{output} speaks {spoken}: generate_voice_clone(text, language="{spoken}", …).', output
    )


def restore(params: Params, checkpoint: Path, candidate: str, output: Path) -> StageResult:
    """Take a delta out of a full folder again: the Base, bit for bit.

    Raises:
        UserError: When the candidate has not been trained, or the folder was not made from it.
    """
    from voxadapt.model import delta

    found, folder = _adapted(params, candidate, "Name an epoch.")
    delta.restore(checkpoint, folder, found.base, output)
    return StageResult(f"{output} is the Base again, bit for bit.", output)


def _adapted(params: Params, name: str, fix: str) -> tuple[Candidate, Path]:
    """Return a candidate and its delta; refuse the Base, which has none."""
    found = find_delta(params.model, name)
    if found.delta is None:
        raise UserError.of("candidate", "an adapted model", "base", fix)
    return found, found.delta

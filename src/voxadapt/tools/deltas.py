"""A language's delta laid over the Base as a whole model folder, and taken out again."""

from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.lineage import check_made
from voxadapt.core.params import Params, language_section
from voxadapt.core.problems import user_error
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult
from voxadapt.model import delta
from voxadapt.pipeline.candidates import Candidate, check_weights, find_delta


def materialise(params: Params, output: Path, candidate: str | None = None) -> StageResult:
    """Write the chosen model, or a candidate, as a full folder that stock `qwen_tts` loads."""
    if candidate is None:
        check_made([paths.LANGUAGE_SELECTION])
    name = candidate or read_record(paths.LANGUAGE_SELECTION, "language confirm")["chosen"]
    found, folder = _adapted(params, name, "The Base is kept: there is nothing to lay over it.")
    delta.materialise(found.base, folder, output)
    spoken = language_section(params).name.capitalize()
    return StageResult(
        f'{output} speaks {spoken}: generate_voice_clone(text, language="{spoken}", …).', output
    )


def restore(params: Params, checkpoint: Path, candidate: str, output: Path) -> StageResult:
    """Take a delta out of the full folder that was made of it: the Base again, bit for bit."""
    found, folder = _adapted(params, candidate, "Name an epoch.")
    delta.restore(checkpoint, folder, found.base, output)
    return StageResult(f"{output} is the Base again, bit for bit.", output)


def _adapted(params: Params, name: str, fix: str) -> tuple[Candidate, Path]:
    """Return a candidate and its delta; refuse the Base, which has none."""
    found = find_delta(params.model, name)
    if found.delta is None:
        raise user_error("tools.base_named", "candidate", fix=fix)
    check_weights(found)
    return found, found.delta

"""The way back from an exported delta: the whole model, every tensor compared with the export's."""

from pathlib import Path

from safetensors import safe_open

from voxadapt.core.errors import raise_problems
from voxadapt.core.files import write_json
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import ModelParams
from voxadapt.core.problems import problem, user_error
from voxadapt.core.stage import StageResult
from voxadapt.model.checkpoint import new_folder, own_files, tensors_sha256
from voxadapt.model.delta import materialise, read_delta, weights_sha256
from voxadapt.model.load import weight_files
from voxadapt.tools.exported import ADAPTED, read_facts


def apply(
    delta_dir: Path,
    base: str,
    out: Path,
    revision: str | None = None,
    speaker_encoder: str | None = None,
) -> StageResult:
    """Make the model of an exported delta and its Base, a folder or an id on the Hub.

    A CustomVoice model that was adapted needs the `speaker_encoder` that it was given. A result
    that is not the model that was exported is refused.
    """
    facts = read_facts(delta_dir)
    if facts["form"] != "delta":
        raise user_error("tools.whole_model", delta_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise user_error("tools.taken_folder", out)
    base_dir = resolve_model(
        ModelParams(base=base, revision=revision, speaker_encoder=speaker_encoder)
    )
    is_low_rank = _check_fit(delta_dir, base_dir)
    with new_folder(out) as folder:
        materialise(base_dir, delta_dir, folder)
        for name in ADAPTED if facts.get("adapted") else ():
            write_json(folder / f"{name}.json", facts["adapted"][name])
        own_files(folder)
        found, wanted = tensors_sha256(folder), facts["provenance"]["tensors_sha256"]
        if found != wanted and not is_low_rank:
            facts = {"wanted": wanted[:12], "found": found[:12]}
            raise user_error("tools.other_tensors", delta_dir, **facts)
    how = "bit for bit as it was exported"
    if found != wanted:
        how = "as it was exported, up to the rounding of low-rank products on this machine"
    return StageResult(f"{out} is {facts['name']}, {how}.", out)


def _check_fit(delta_dir: Path, base_dir: Path) -> bool:
    """Refuse a delta that the Base has no place for; say whether it has low-rank changes."""
    delta, meta = read_delta(delta_dir)
    if meta["base_weights_sha256"] != weights_sha256(base_dir):
        return False  # the Base is another one, which is said in other words
    files, problems = weight_files(base_dir), []
    for name in sorted(delta.names):
        shape: list[int] | None = None
        if name in files:
            with safe_open(files[name], framework="pt") as stream:
                shape = stream.get_slice(name).get_shape()
        if name in delta.rows:
            index, value = delta.rows[name]
            inside = shape is not None and bool(((index >= 0) & (index < shape[0])).all())
            fits = inside and [len(index), *shape[1:]] == list(value.shape)  # type: ignore[index]
        elif name in delta.full:
            fits = shape == list(delta.full[name].shape)
        else:
            a, b = delta.lora[name]
            fits = shape == [b.shape[0], a.shape[-1]] and b.shape[-1] == a.shape[0]
        if not fits:
            problems.append(problem("tools.other_shape", f"{delta_dir}: {name}", shape=shape))
    raise_problems(problems, "The delta does not fit its Base.")
    return bool(delta.lora)

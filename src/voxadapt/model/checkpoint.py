"""Checkpoint folders that the stock `qwen_tts` loads and speaks from.

An exported folder is a CustomVoice model: `config.json` lists the speaker under a lower-case
name, the codec embedding holds its vector, and everything else comes from the Base. Several
speakers have an entry and a row each. Unlike a stock CustomVoice model it keeps the speaker
encoder, so that it still clones voices and can be trained further.
"""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxadapt.core.errors import explain_storage
from voxadapt.core.files import link_or_copy, read_json, set_usual_mode, sync, write_json
from voxadapt.core.model_folder import read_config
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.model.load import weight_files
from voxadapt.model.tokens import SpeakerRow

META = "meta.json"
CODEC_EMBEDDING = "talker.model.codec_embedding.weight"
_PART, _OLD = ".part", ".old"  # ends of the names of folders that exist for a moment
_LINK_FROM_BYTES = 1 << 20  # smaller files are copied: an edited copy must not reach its source


def export_checkpoint(
    out_dir: str | Path,
    base_dir: str | Path,
    state: Mapping[str, Tensor],
    speaker_name: str,
    speaker_row: SpeakerRow,
    speaker_vector: Tensor,
    meta: Mapping[str, object],
    dtype: torch.dtype | None = None,
    also: Mapping[str, tuple[SpeakerRow, Tensor]] | None = None,
) -> Path:
    """Write a checkpoint folder in one piece: it is whole, or it is not there.

    Trained tensors in `state`, of any float type, are stored as `dtype`, or as the Base has them;
    all others are the Base's, bit by bit. The speaker's name is stored in lower case, as inference
    asks for it; the vector, `[D]`, is what the model was conditioned on in training. Further
    speakers, `also`, have a row and a vector each; those that the Base has are kept. `meta` becomes
    `meta.json`.
    """
    out_dir, base_dir = Path(out_dir), Path(base_dir)
    speakers = {speaker_name: (speaker_row, speaker_vector), **(also or {})}
    vectors = {row.id: vector for row, vector in speakers.values()}
    assert len(vectors) == len(speakers), "speakers that share a row"
    config = read_config(base_dir)
    for name, (row, _) in speakers.items():
        config = speaker_config(config, name, row.id)
    files = weight_files(base_dir)
    unknown = set(state) - set(files)
    assert not unknown, f"tensors that the Base does not have: {sorted(unknown)}"
    tensors = {
        name: _stored(name, value, state, vectors, dtype)
        for name, value in iterate_weights(base_dir)
    }
    with new_folder(out_dir) as folder:
        _copy_rest(base_dir, folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "config.json", config)
        write_json(folder / META, dict(meta))
    return out_dir


def publish(source: str | Path, out_dir: str | Path) -> Path:
    """Place a copy of an exported checkpoint at another path, large files hard-linked.

    A folder there with the same `meta.json` and file sizes is left as it is.
    """
    source, out_dir = Path(source), Path(out_dir)
    if _same(source, out_dir):
        return out_dir
    with new_folder(out_dir) as folder:
        for file in list_files(source):
            place_file(source / file, folder / file)
    return out_dir


def read_meta(path: str | Path) -> dict[str, Any]:
    """Read the facts about an exported checkpoint; raises `UserError` for another folder."""
    file = Path(path) / META
    try:
        meta: dict[str, Any] = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise user_error("model.no_meta", file, error=error) from None
    return meta


@contextmanager
def new_folder(out_dir: str | Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out_dir` when the block ends well."""
    out_dir = Path(out_dir)
    here = Path.cwd(), Path(os.environ.get("PWD", "."))  # the project's folder, and the shell's
    if any(folder.is_relative_to(out_dir.resolve()) for folder in here):
        raise user_error("model.folder_in_use", out_dir)
    with explain_storage(out_dir):
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        _tidy(out_dir)
        temporary = Path(
            tempfile.mkdtemp(dir=out_dir.parent, prefix=f".{out_dir.name}.", suffix=_PART)
        )
        try:
            set_usual_mode(temporary)
            yield temporary
            for path in (temporary, *temporary.rglob("*")):
                sync(path)
            _put(temporary, out_dir)
            sync(out_dir.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _tidy(out_dir: Path) -> None:
    """Remove what a killed process left of this folder; put back what it had taken away."""
    for old in out_dir.parent.glob(f".{glob.escape(out_dir.name)}.*{_OLD}"):
        if not out_dir.exists() and (old / out_dir.name).exists():
            os.replace(old / out_dir.name, out_dir)
        shutil.rmtree(old)
    for part in out_dir.parent.glob(f".{glob.escape(out_dir.name)}.*{_PART}"):
        shutil.rmtree(part)


def list_files(root: Path) -> list[Path]:
    """Return the files of a folder, relative to it and sorted."""
    return sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())


def place_file(source: Path, target: Path) -> None:
    """Copy a file; link a large one where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # hub snapshots are links into a cache
    place = link_or_copy if source.stat().st_size >= _LINK_FROM_BYTES else shutil.copyfile
    place(source, target)


def own_files(folder: Path) -> None:
    """Copy the files of a folder that are links to those of another one.

    A folder that is given away shares nothing with the checkpoint that it was made from: who edits
    the one would damage the other.
    """
    for file in list_files(folder):
        path = folder / file
        if path.stat().st_nlink > 1:
            part = path.with_name(f".{path.name}{_PART}")
            shutil.copyfile(path, part)
            os.replace(part, path)


def require_finite(name: str, value: Tensor, fix: str) -> None:
    """Refuse weights that their type could not hold."""
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        dtype = str(value.dtype).removeprefix("torch.")
        raise user_error("model.not_finite", name, dtype=dtype, fix=fix)


def iterate_weights(path: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Yield `(name, tensor)` of a model folder, one tensor in memory at a time."""
    by_file: dict[Path, list[str]] = {}
    for name, file in weight_files(path).items():
        by_file.setdefault(file, []).append(name)
    for file, names in by_file.items():
        with safe_open(file, framework="pt") as stream:
            for name in names:
                yield name, stream.get_tensor(name)


def tensors_sha256(folder: str | Path) -> str:
    """Hash every tensor of a model by name, type, shape and bits, in whichever files they lie."""
    hashes = {}
    for name, value in iterate_weights(folder):
        data = value.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest = hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(data.data)
        hashes[name] = digest.hexdigest()
    return fingerprint(hashes, 64)


def speaker_config(config: dict[str, Any], name: str, row: int) -> dict[str, Any]:
    """Return the config with one more speaker; the speakers that are there stay."""
    config = json.loads(json.dumps(config))
    talker = config.setdefault("talker_config", {})
    for field, value in (("spk_id", row), ("spk_is_dialect", False)):
        merged = dict(talker.get(field) or {})
        for known in [k for k in merged if k.lower() == name.lower()]:
            del merged[known]  # the same speaker, perhaps stored with capitals
        merged[name.lower()] = value
        talker[field] = merged
    config["tts_model_type"] = "custom_voice"
    return config


def _stored(
    name: str,
    base: Tensor,
    state: Mapping[str, Tensor],
    vectors: Mapping[int, Tensor],
    dtype: torch.dtype | None,
) -> Tensor:
    """Return the tensor as it is stored."""
    kind = dtype if dtype is not None and base.is_floating_point() else base.dtype
    value = base.to(kind)
    if name in state:
        value = state[name].detach().to("cpu", kind, copy=True).contiguous()
    if name == CODEC_EMBEDDING:
        value = value.clone()
        for row, vector in vectors.items():
            value[row] = vector.detach().to("cpu", kind)
    fix = "Lower train.lr; the weights have grown beyond what the Base's type can store."
    require_finite(name, value, fix)
    return value


def _copy_rest(base_dir: Path, out_dir: Path) -> None:
    """Copy everything but the talker's weights, its config and facts about an earlier export."""
    for file in list_files(base_dir):
        top = file.parts[0]
        is_weights = len(file.parts) == 1 and (
            file.suffix in {".safetensors", ".bin", ".pt"} or top.endswith(".index.json")
        )
        if is_weights or str(file) in ("config.json", META) or top.startswith("."):
            continue
        place_file(base_dir / file, out_dir / file)


def _put(temporary: Path, out_dir: Path) -> None:
    """Move a finished folder to its place; what was there goes only when the new one is."""
    if out_dir.exists():
        old = Path(tempfile.mkdtemp(dir=out_dir.parent, prefix=f".{out_dir.name}.", suffix=_OLD))
        os.replace(out_dir, old / out_dir.name)
        os.replace(temporary, out_dir)
        shutil.rmtree(old)
    else:
        os.replace(temporary, out_dir)


def _same(source: Path, out_dir: Path) -> bool:
    files = list_files(source)
    if not (out_dir / META).is_file() or files != list_files(out_dir):
        return False
    sizes = all((source / f).stat().st_size == (out_dir / f).stat().st_size for f in files)
    return sizes and (source / META).read_bytes() == (out_dir / META).read_bytes()

"""What an adaptation changes, stored by itself; put into a Base on demand and taken out again.

A delta folder holds `delta.safetensors` and `meta.json`. Changed rows are stored as
`rows.<tensor>` with `index.<tensor>`, tensors that changed as a whole as `full.<tensor>`, and
low-rank changes as `lora.<tensor>.a` and `.b`, to be multiplied and added. All but the last have
the Base's type. Putting a delta in overwrites the bytes of these values in a copy of the Base's
weight files and nothing else; taking it out therefore restores the Base bit for bit.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxadapt.core.errors import UserError, reason
from voxadapt.core.files import cached_sha256, json_or_none, sha256_file, write_json
from voxadapt.core.model_folder import DELTA, read_config
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.tensor_headers import read_header
from voxadapt.model.checkpoint import (
    META,
    list_files,
    new_folder,
    place_file,
    read_meta,
    require_finite,
    speaker_config,
)
from voxadapt.model.load import weight_files

SCHEMA = "voxadapt-delta/1"
_CONFIG = "config.json"
_FIX_RATE = "Lower the learning rate; the weights have grown beyond what the Base's type can store."


@dataclass(frozen=True)
class Delta:
    """Changes to a Base, by the names of its tensors."""

    #: Row numbers `[R]` int64 and what these rows become, `[R, ...]`.
    rows: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    full: Mapping[str, Tensor] = field(default_factory=dict)  # what whole tensors become
    #: Factors `a` `[r, in]` and `b` `[out, r]`; the tensor grows by `lora_scale * b @ a`.
    lora: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    lora_scale: float = 1.0  # factor of every low-rank change
    language: tuple[str, int] | None = None  # language to list in the config, and its codec id
    #: Speakers to list in the config, and their codec ids: the model speaks by name.
    speakers: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Tensors of the Base that change."""
        return frozenset([*self.rows, *self.full, *self.lora])


def write_delta(
    out_dir: str | Path, base_dir: str | Path, delta: Delta, meta: Mapping[str, object]
) -> Path:
    """Write a delta folder in one piece.

    Values, of any float type, are stored in the Base's, low-rank factors in float32. Rows and
    tensors that equal the Base's bit for bit are left out. `meta.json` has the facts of `meta`
    beside those of the delta itself.
    """
    out_dir, base_dir = Path(out_dir), Path(base_dir)
    stored: dict[str, Tensor] = {}
    tensors: dict[str, dict[str, str | int]] = {}
    num_values = 0
    for name, base in _base_tensors(base_dir, delta):
        kept = _stored(name, base, delta)
        if kept:
            kind = next(iter(kept)).split(".", 1)[0]
            values = [v for key, v in kept.items() if not key.startswith("index.")]
            size = sum(v.numel() for v in values)
            num_values += size
            tensors[name] = {"kind": kind, "num_values": size}
            if kind == "rows":
                tensors[name]["num_rows"] = len(values[0])
            stored |= kept
    with new_folder(out_dir) as folder:
        save_file(stored, folder / DELTA, metadata={"format": "pt"})
        entry = delta.language
        facts = {
            "schema": SCHEMA,
            "base_weights_sha256": weights_sha256(base_dir),
            "delta_sha256": sha256_file(folder / DELTA),
            "size_bytes": (folder / DELTA).stat().st_size,
            "num_values": num_values,
            "tensors": tensors,
            "lora_scale": delta.lora_scale,
            "language": entry and {"name": entry[0].lower(), "id": entry[1]},
            **({"speaker_ids": dict(delta.speakers)} if delta.speakers else {}),
        }
        write_json(folder / META, {**meta, **facts})
    return out_dir


def read_delta(folder: str | Path) -> tuple[Delta, dict[str, Any]]:
    """Read a delta folder: the delta, tensors on the CPU, and the facts in its `meta.json`.

    Raises:
        UserError: When it is missing, incomplete or not as it was written.
    """
    folder = Path(folder)
    file = folder / DELTA
    meta = read_meta(folder)
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = repr(meta.get("schema")) if isinstance(meta, dict) else type(meta).__name__
        raise user_error("model.no_facts", folder / META, schema=SCHEMA, found=found)
    try:
        if sha256_file(file) != meta["delta_sha256"]:
            raise user_error("model.other_delta", file)
        with safe_open(file, framework="pt") as stream:
            stored = {key: stream.get_tensor(key) for key in stream.keys()}
        language = meta["language"]
        entry = None if language is None else (str(language["name"]), int(language["id"]))
        speakers = {str(k): int(v) for k, v in meta.get("speaker_ids", {}).items()}
        delta = replace(_parse(stored, float(meta["lora_scale"]), entry), speakers=speakers)
        if not isfinite(delta.lora_scale) or not isinstance(meta["base_weights_sha256"], str):
            raise ValueError("a scale that is no number, or no hash of the Base")
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError,
            OverflowError) as error:  # fmt: skip
        if isinstance(error, UserError):
            raise
        facts = {"kind": type(error).__name__, "error": error}
        raise user_error("model.damaged_delta", file, **facts) from None
    return delta, meta


def rescale(folder: Path, scale: float) -> None:
    """Give a delta's low-rank changes another factor; its other facts and its values stay."""
    meta = read_meta(folder)
    if meta["lora_scale"] != scale:
        write_json(folder / META, {**meta, "lora_scale": scale})


def materialise(base_dir: str | Path, delta_dir: str | Path, out_dir: str | Path) -> Path:
    """Put a delta into its Base: a full folder that stock `qwen_tts` loads.

    Weight files keep their names; those without a changed tensor, and all other large files, are
    linked. The config lists the language in lower case and stays a Base's. A folder that is there
    and was made from the same delta is left as it is.

    Raises:
        UserError: When the delta is damaged or belongs to another Base, or when `out_dir` holds
            something that this function did not write.
    """
    base_dir, delta_dir, out_dir = Path(base_dir), Path(delta_dir), Path(out_dir)
    delta, meta = read_delta(delta_dir)
    _check_base(base_dir, delta_dir, meta)
    if _is_made_from(out_dir, base_dir, delta_dir):
        return out_dir
    if not _is_empty(out_dir) and not _has_delta(out_dir):
        raise _taken("model.taken_by_others", out_dir)
    config = _adapted_config(read_config(base_dir), delta)
    with new_folder(out_dir) as folder:
        _rebuild(base_dir, folder, delta, lambda name, base: _changed(name, base, delta), base_dir)
        write_json(folder / _CONFIG, config)
        shutil.copyfile(delta_dir / META, folder / META)
    return out_dir


def restore(
    checkpoint: str | Path, delta_dir: str | Path, base_dir: str | Path, out_dir: str | Path
) -> Path:
    """Take a delta out of a checkpoint again, and prove that what remains is the Base.

    Only the values that the delta names, and its entry in the config, are taken from the Base;
    everything else is the checkpoint's own. The result is written if its files equal the Base's, by
    sha256 of every one. The checkpoint is a folder that `materialise` wrote; the output is a new or
    empty folder.

    Raises:
        UserError: When a file differs from the Base's: the checkpoint was changed elsewhere too;
            or when `out_dir` holds something.
    """
    checkpoint, base_dir, out_dir = Path(checkpoint), Path(base_dir), Path(out_dir)
    delta, meta = read_delta(delta_dir)
    _check_base(base_dir, Path(delta_dir), meta)
    if not _is_empty(out_dir):
        raise _taken("model.not_empty", out_dir)
    config = read_config(checkpoint)
    as_made = config == _adapted_config(read_config(base_dir), delta)
    with new_folder(out_dir) as folder:
        try:
            _rebuild(
                checkpoint, folder, delta, lambda name, base: _original(name, base, delta), base_dir
            )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            found = f"{type(error).__name__}: {reason(error)}"
            raise user_error("model.other_changes", checkpoint, found=found) from None
        shutil.copyfile((base_dir if as_made else checkpoint) / _CONFIG, folder / _CONFIG)
        if (base_dir / META).is_file():
            shutil.copyfile(base_dir / META, folder / META)
        ours, theirs = set(_visible(base_dir)), set(_visible(folder))
        changed = {f for f in ours & theirs
                   if sha256_file(base_dir / f) != sha256_file(folder / f)}  # fmt: skip
        if different := sorted(map(str, (ours ^ theirs) | changed)):
            shown = ", ".join(different[:4]) + (" …" if len(different) > 4 else "")
            found = f"other differences in {shown}"
            raise user_error("model.other_changes", checkpoint, found=found)
    return out_dir


def weights_sha256(folder: str | Path) -> str:
    """Hash the weight files of a model folder by name and content, without the codec's."""
    files = sorted(Path(folder).glob("*.safetensors"))
    return fingerprint({file.name: cached_sha256(file.resolve()) for file in files}, 64)


def _parse(stored: Mapping[str, Tensor], scale: float, language: tuple[str, int] | None) -> Delta:
    """Sort the stored tensors into a delta."""
    rows, full, lora = {}, {}, {}
    for key, value in stored.items():
        kind, _, name = key.partition(".")
        if kind == "rows":
            rows[name] = (stored[f"index.{name}"], value)
        elif kind == "full":
            full[name] = value
        elif kind == "lora" and name.endswith(".a"):
            name = name.removesuffix(".a")
            lora[name] = (value, stored[f"lora.{name}.b"])
        elif kind not in ("index", "lora"):
            raise KeyError(key)
    return Delta(rows, full, lora, scale, language)


def _stored(name: str, base: Tensor, delta: Delta) -> dict[str, Tensor]:
    """Return what the file holds for one tensor: nothing if it equals the Base's."""
    if name in delta.lora:
        require_finite(name, _changed(name, base, delta)[1], _FIX_RATE)
        factors = [f.detach().to("cpu", torch.float32).contiguous() for f in delta.lora[name]]
        return dict(zip((f"lora.{name}.a", f"lora.{name}.b"), factors, strict=True))
    if name in delta.full:
        value = delta.full[name].detach().to("cpu", base.dtype).contiguous()
        assert value.shape == base.shape, f"{name}: {tuple(value.shape)}, not {tuple(base.shape)}"
        require_finite(name, value, _FIX_RATE)
        return {} if torch.equal(_bits(value), _bits(base)) else {f"full.{name}": value}
    index, values = (part.detach().cpu() for part in delta.rows[name])
    index, order = index.to(torch.int64).sort()
    assert len(index.unique()) == len(index) and 0 <= int(index[0]) <= int(index[-1]) < len(base)
    assert values.shape == base[index].shape, f"{name}: rows of another width"
    values = values[order].to(base.dtype).contiguous()
    require_finite(name, values, _FIX_RATE)
    before = base[index].contiguous()
    moved = (_bits(values) != _bits(before)).reshape(len(index), -1).any(dim=1)
    if not bool(moved.any()):
        return {}
    return {f"rows.{name}": values[moved], f"index.{name}": index[moved]}


def _changed(name: str, base: Tensor, delta: Delta) -> tuple[Tensor | None, Tensor]:
    """Return rows (None: all) of a tensor and what the delta makes of them."""
    if name in delta.rows:
        return delta.rows[name]
    if name in delta.full:
        return None, delta.full[name]
    a, b = (factor.detach().to("cpu", torch.float32) for factor in delta.lora[name])
    return None, (base.float() + delta.lora_scale * (b @ a)).to(base.dtype)


def _original(name: str, base: Tensor, delta: Delta) -> tuple[Tensor | None, Tensor]:
    """Return rows (None: all) of a tensor that the delta changes, and what they are in the Base."""
    if name in delta.rows:
        index = delta.rows[name][0]
        return index, base[index]
    return None, base


def _base_tensors(base_dir: Path, delta: Delta) -> Iterator[tuple[str, Tensor]]:
    """Yield the Base's tensors that a delta changes, one in memory at a time."""
    files = weight_files(base_dir)
    unknown = sorted(delta.names - set(files))
    assert not unknown, f"tensors that the Base does not have: {unknown}"
    assert len(delta.names) == len(delta.rows) + len(delta.full) + len(delta.lora), "named twice"
    for name in sorted(delta.names):
        yield name, _tensor(files[name], name)


def _rebuild(
    source: Path,
    folder: Path,
    delta: Delta,
    value_of: Callable[[str, Tensor], tuple[Tensor | None, Tensor]],
    base_dir: Path,
) -> None:
    """Fill a folder from another one, with other values for what a delta changes.

    The config and `meta.json` are left out. Of a weight file that changes, every other byte stays.
    """
    names: dict[Path, list[str]] = {}
    base_files = weight_files(base_dir)
    for name in sorted(delta.names):
        names.setdefault(Path(base_files[name].name), []).append(name)
    for file in _visible(source):
        if str(file) in (_CONFIG, META):
            continue
        if file not in names:
            place_file(source / file, folder / file)
            continue
        shutil.copyfile(source / file, folder / file)  # never a link: its bytes are about to change
        entries, start = read_header(folder / file)
        with open(folder / file, "r+b") as stream:
            for name in names[file]:
                first, last = (start + offset for offset in entries[name]["data_offsets"])
                index, values = value_of(name, _tensor(base_files[name], name))
                _overwrite(stream, name, (first, last), index, values)


def _overwrite(
    stream: BinaryIO, name: str, span: tuple[int, int], index: Tensor | None, values: Tensor
) -> None:
    """Overwrite a tensor that lies in a span of bytes, or rows of it."""
    first, last = span
    if index is None:
        stream.seek(first)
        stream.write(_bits(values).numpy().tobytes())
        return
    row_bytes = values[0].numel() * values.element_size()
    for row, value in zip(index.tolist(), values, strict=True):
        assert first + (row + 1) * row_bytes <= last, f"{name} has no row {row}"
        stream.seek(first + row * row_bytes)
        stream.write(_bits(value).numpy().tobytes())


def _adapted_config(config: dict[str, Any], delta: Delta) -> dict[str, Any]:
    """Return the config of a Base with a delta in it."""
    config = json.loads(json.dumps(config))
    config["tts_model_type"] = "base"
    for name, number in delta.speakers.items():
        config = speaker_config(config, name, number)
    if delta.language is not None:
        name, number = delta.language
        talker = config.setdefault("talker_config", {})
        # Lower case: inference looks languages up by `language.lower()`.
        talker["codec_language_id"] = {
            **(talker.get("codec_language_id") or {}),
            name.lower(): number,
        }
    return config


def _is_made_from(out_dir: Path, base_dir: Path, delta_dir: Path) -> bool:
    if not (out_dir / META).is_file():
        return False
    if (out_dir / META).read_bytes() != (delta_dir / META).read_bytes():
        return False
    if {*_visible(out_dir)} != {*_visible(base_dir), Path(META)}:
        return False
    same_size = [file for file in _visible(base_dir) if str(file) not in (_CONFIG, META)]
    return all((out_dir / f).stat().st_size == (base_dir / f).stat().st_size for f in same_size)


def _is_empty(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _has_delta(folder: Path) -> bool:
    """Whether a folder is one that a delta was put into, to be replaced without loss."""
    return (folder / _CONFIG).is_file() and json_or_none(folder / META, SCHEMA) is not None


def _visible(root: Path) -> list[Path]:
    """Return the files of a model folder without a downloader's notes."""
    return [file for file in list_files(root) if not file.parts[0].startswith(".")]


def _tensor(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as stream:
        tensor: Tensor = stream.get_tensor(name)
    return tensor


def _bits(value: Tensor) -> Tensor:
    """Return the bytes of a tensor, flat: equality that tells zeros and NaNs apart."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def _check_base(base_dir: Path, delta_dir: Path, meta: Mapping[str, object]) -> None:
    """Refuse a Base that the delta was not made for."""
    found, wanted = weights_sha256(base_dir), str(meta.get("base_weights_sha256"))
    if found != wanted:
        facts = {"base": base_dir, "found": found[:12], "wanted": wanted[:12]}
        raise user_error("model.other_base", delta_dir, **facts)


def _taken(kind: str, out_dir: Path) -> UserError:
    return user_error(kind, out_dir, found="other files" if out_dir.is_dir() else "a file")

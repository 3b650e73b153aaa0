"""A CustomVoice model with the speaker encoder of a Base of its size: what it lacks to be adapted.

The model's files are linked, and the encoder's tensors are copied.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from voxadapt.core import paths
from voxadapt.core.files import link_or_copy, set_usual_mode, write_json
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.core.tensor_headers import read_header

PREFIX = "speaker_encoder."
INDEX = "model.safetensors.index.json"


def with_speaker_encoder(model: Path, config: Record, base: Path, encoder: Record) -> Path:
    """Return a folder with the model's weights and the Base's speaker encoder.

    `config` is the model's, `encoder` the Base's `speaker_encoder_config`. The folder is made once,
    in the work folder. A model that has an encoder is returned as it is.

    Raises:
        UserError: When the Base has no encoder, or one of another width.
    """
    tensors = {file: read_header(file)[0] for file in sorted(model.glob("*.safetensors"))}
    if any(name.startswith(PREFIX) for header in tensors.values() for name in header):
        return model
    width, found = config["talker_config"]["hidden_size"], encoder.get("enc_dim")
    own = {file: header for file in sorted(base.glob("*.safetensors"))
           if (header := {name: entry for name, entry in read_header(file)[0].items()
                          if name.startswith(PREFIX)})}  # fmt: skip
    if not own or found != width:
        facts = {"width": width, "base": base, "found": found if own else "no such weights"}
        raise user_error("core.other_width", "model.speaker_encoder", **facts)
    looks = [(str(file), file.stat().st_size, file.stat().st_mtime_ns)
             for folder in (model, base) for file in _files(folder)]  # fmt: skip
    target = paths.work_dir() / "with_encoder" / fingerprint(looks)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name) / "model"
        folder.mkdir()
        for file in _files(model):
            if file not in tensors and file not in (model / INDEX, model / "config.json"):
                target_file = folder / file.relative_to(model)
                target_file.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(file.resolve(), target_file)
        shards = [*tensors, *own]
        weights: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            part = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
            if shard in tensors:
                link_or_copy(shard.resolve(), part)
            else:
                _copy_tensors(shard, own[shard], part)
            weights |= dict.fromkeys(tensors.get(shard, own.get(shard, {})), part.name)
        size = sum(part.stat().st_size for part in folder.glob("*.safetensors"))
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weights})
        write_json(folder / "config.json", {**config, "speaker_encoder_config": encoder})
        set_usual_mode(folder)
        try:
            os.replace(folder, target)
        except OSError:  # another process has made it
            if not target.is_dir():
                raise
    return target


def _files(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in found if not file.relative_to(folder).parts[0].startswith(".")]


def _copy_tensors(source: Path, names: Iterable[str], target: Path) -> None:
    """Write tensors of a safetensors file into one of their own."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, "pt") as stored:
        save_file({name: stored.get_tensor(name) for name in names}, target, {"format": "pt"})

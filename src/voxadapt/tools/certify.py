"""Whether another implementation computes what ours does: `voxadapt certify`.

The same probe (`voxadapt.tools.certify_probe`) runs here and under the interpreter of another
environment, with another `qwen_tts` or another transformers. Both read the same codes, in float32
on the CPU, and everything that they compute is compared in its order: tokens, prefill, each layer
of talker and code predictor, logits, greedy codes, codec, speaker encoder. Here, greedy codes are
those of the token loop that scores and speaks; there, those of the stock loop.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from voxadapt.core.files import json_or_none, sha256_folder, write_json
from voxadapt.core.model_folder import read_config
from voxadapt.core.problems import user_error
from voxadapt.core.stage import StageResult
from voxadapt.generation.decoding import Decoding
from voxadapt.model.load import load_tts
from voxadapt.model.stock import Tts
from voxadapt.tools import certify_probe

SCHEMA = "voxadapt-certificate/1"
TOLERANCE = 1e-4  # of the largest magnitude in a tensor: float32 products added in another order
LAST_LINES = 3  # of another environment's error that are shown

Values = Mapping[str, NDArray[np.generic]]  # what was computed, by name, in order


@dataclass(frozen=True)
class Comparison:
    """One thing that both computed."""

    name: str
    equal: bool  # exactly so for integers, within `TOLERANCE` for others
    #: Largest difference over the largest magnitude; the share of differing integers; None where
    #: the shapes differ.
    difference: float | None
    detail: str = ""


def certify(
    folder: Path, python: Path | None = None, output: Path = Path("certificate.json")
) -> StageResult:
    """Hold another environment's computation of an exported folder against ours; refuse another.

    Without another interpreter it is this one: the stock loop is held against ours.
    """
    read_config(folder)
    if output.exists() and json_or_none(output, SCHEMA) is None:
        raise user_error("tools.foreign_certificate", f"-o {output}")
    ours, here = _probe_here(folder)
    theirs, there = _probe_there(folder, python or Path(sys.executable), ours)
    found = compare(ours, theirs)
    different = [item for item in found if not item.equal]
    record = {
        "schema": SCHEMA,
        "folder": folder.name,
        "folder_sha256": sha256_folder(folder),
        "tolerance": TOLERANCE,
        "ours": here,
        "other": there,
        "equal": not different,
        "first_difference": different[0].name if different else None,
        "largest_difference": max((item.difference or 0.0 for item in found), default=0.0),
        "compared": [asdict(item) for item in found],
    }
    write_json(output, record)
    other = f"{there['implementation']} on transformers {there['transformers']}"
    if different:
        facts = {"found": different[0].detail, "count": len(different), "total": len(found)}
        where = different[0].name
        raise user_error("tools.computed_otherwise", where, other=other, output=output, **facts)
    return StageResult(
        f"{folder}: {other} computes the same: {len(found)} parts, furthest "
        f"{record['largest_difference']:.1e} of the largest magnitude. Certificate: {output}.",
        record,
    )


def compare(ours: Values, theirs: Values) -> list[Comparison]:
    """Compare in the order in which we compute; what only one has differs."""
    names = dict.fromkeys([*ours, *theirs])
    return [_compare(name, ours.get(name), theirs.get(name)) for name in names]


def _compare(name: str, a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> Comparison:
    if a is None or b is None:
        return Comparison(name, False, None, "it is computed by one of them only")
    are_integers = np.issubdtype(a.dtype, np.integer)
    if a.shape[1:] != b.shape[1:] or (a.shape != b.shape and not are_integers):
        return Comparison(name, False, None, f"shape {list(b.shape)}, not {list(a.shape)}")
    if are_integers:
        count = min(len(a), len(b))
        unlike = np.flatnonzero((a[:count] != b[:count]).reshape(count, -1).any(axis=1))
        if a.shape == b.shape and not len(unlike):
            return Comparison(name, True, 0.0)
        first = int(unlike[0]) if len(unlike) else count
        share = (len(unlike) + abs(len(a) - len(b))) / max(len(a), len(b))
        detail = f"from position {first} on; {len(a)} here, {len(b)} there"
        return Comparison(name, False, share, detail)
    scale = max(float(np.abs(a).max(initial=0.0)), 1e-12)
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(a - b).max(initial=0.0)) / scale  # type: ignore[operator]
    if difference <= TOLERANCE:
        return Comparison(name, True, difference)
    detail = f"a difference of {difference:.1e} of the largest magnitude"
    return Comparison(name, False, difference if np.isfinite(difference) else None, detail)


def _probe_here(folder: Path) -> tuple[Values, dict[str, str]]:
    """Compute our side."""
    return certify_probe.probe(load_tts(folder), None, _our_greedy), certify_probe.versions()


def _our_greedy(tts: Tts, text: str) -> torch.Tensor:
    """Return the codes of our token loop, `[N, K]`."""
    with Decoding(tts.model, [0], [certify_probe.NUM_FRAMES]):
        return certify_probe.stock_greedy(tts, text)


def _probe_there(folder: Path, python: Path, ours: Values) -> tuple[Values, dict[str, str]]:
    """Let another interpreter compute its side, from our codes."""
    with tempfile.TemporaryDirectory() as scratch:
        codes, out = Path(scratch, "codes.npz"), Path(scratch, "out.npz")
        greedy = [value for name, value in ours.items() if name.endswith("greedy codes")]
        np.savez(codes, **{str(number): value for number, value in enumerate(greedy)})  # type: ignore[arg-type]
        command = [str(python), "-P", certify_probe.__file__, str(folder), str(out), str(codes)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        try:
            ended = subprocess.run(command, capture_output=True, text=True, errors="replace",
                                   env=environment, check=False)  # fmt: skip
        except OSError as error:
            raise user_error("tools.no_python", python, found=error) from None
        if ended.returncode:
            said = " ".join(ended.stderr.strip().splitlines()[-LAST_LINES:])[-400:]
            found = " ".join(said.split()) or f"exit code {ended.returncode}"
            raise user_error("tools.other_environment", python, found=found)
        with np.load(out, allow_pickle=False) as stored:
            facts = json.loads(stored["versions"].tobytes())
            return {name[5:]: stored[name] for name in sorted(set(stored) - {"versions"})}, facts

"""Whether another implementation computes what ours does: `voxadapt certify`.

The same probe (`voxadapt.tools.certify_probe`) runs here and under the interpreter of another
environment, with another `qwen_tts` or another transformers. Both read the same codes, in float32
on the CPU, and everything that they compute is compared in its order: tokens, prefill, each layer
of talker and code predictor, logits, greedy codes, codec, speaker encoder. Here, greedy codes are
those of the token loop that scores and speaks; there, those of the stock loop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxadapt.core.errors import UserError
from voxadapt.core.files import read_json, sha256_folder, write_json
from voxadapt.core.stage import StageResult

if TYPE_CHECKING:
    import torch

    from voxadapt.model.stock import Tts

SCHEMA = "voxadapt-certificate/1"
TOLERANCE = 1e-4  # of the largest magnitude in a tensor: float32 products added in another order
LAST_LINES = 3  # of another environment's error that are shown


@dataclass(frozen=True)
class Comparison:
    """One thing that both computed."""

    name: str
    equal: bool  # exactly so for integers, within `TOLERANCE` for others
    #: Largest difference over the largest magnitude; the share of differing integers; None where
    #: the shapes differ.
    difference: float | None
    detail: str = ""


def _is_ours(path: Path) -> bool:
    """Say whether a file is a certificate of an earlier run."""
    try:
        return bool(read_json(path)["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def certify(
    folder: Path, python: Path | None = None, output: Path = Path("certificate.json")
) -> StageResult:
    """Hold another environment's computation of an exported folder against ours.

    Without another interpreter it is this one: the stock loop is held against ours.

    Raises:
        UserError: When either cannot load the folder, or when they differ.
    """
    from voxadapt.core.model_folder import read_config

    read_config(folder)
    if output.exists() and not _is_ours(output):
        fix = "Choose another file; nothing is overwritten."
        raise UserError.of(f"-o {output}", "a new file, or a certificate", "another file", fix)
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
        first = different[0]
        raise UserError.of(
            first.name, "what we compute", first.detail or "something else",
            f"{len(different)} of {len(found)} parts differ: see {output}. Do not use the "
            "folder there before this is understood.", f"{other} computes something else.",
        )  # fmt: skip
    return StageResult(
        f"{folder}: {other} computes the same: {len(found)} parts, furthest "
        f"{record['largest_difference']:.1e} of the largest magnitude. Certificate: {output}.",
        record,
    )


def compare(
    ours: Mapping[str, NDArray[np.generic]], theirs: Mapping[str, NDArray[np.generic]]
) -> list[Comparison]:
    """Compare in the order in which we compute; what only one has differs."""
    return [
        _compare(name, ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])
    ]


def _compare(name: str, a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> Comparison:
    if a is None or b is None:
        return Comparison(name, False, None, "it is computed by one of them only")
    if a.shape[1:] != b.shape[1:]:
        return Comparison(name, False, None, f"shape {list(b.shape)}, not {list(a.shape)}")
    if np.issubdtype(a.dtype, np.integer):
        count = min(len(a), len(b))
        unlike = np.flatnonzero((a[:count] != b[:count]).reshape(count, -1).any(axis=1))
        if a.shape == b.shape and not len(unlike):
            return Comparison(name, True, 0.0)
        first = int(unlike[0]) if len(unlike) else count
        share = (len(unlike) + abs(len(a) - len(b))) / max(len(a), len(b))
        return Comparison(
            name, False, share, f"from position {first} on; {len(a)} here, {len(b)} there"
        )
    if a.shape != b.shape:
        return Comparison(name, False, None, f"shape {list(b.shape)}, not {list(a.shape)}")
    scale = max(float(np.abs(a).max(initial=0.0)), 1e-12)
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(a - b).max(initial=0.0)) / scale  # type: ignore[operator]
    if difference <= TOLERANCE:
        return Comparison(name, True, difference)
    detail = f"a difference of {difference:.1e} of the largest magnitude"
    return Comparison(name, False, difference if np.isfinite(difference) else None, detail)


def _probe_here(folder: Path) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Compute our side."""
    from voxadapt.model.load import load_tts
    from voxadapt.tools.certify_probe import probe, versions

    tts = load_tts(folder)
    values = probe(tts, None, _our_greedy)
    return dict(values), versions()


def _our_greedy(tts: Tts, text: str) -> torch.Tensor:
    """Return the codes of our token loop, `[N, K]`."""
    from voxadapt.generation.decoding import Decoding
    from voxadapt.tools.certify_probe import NUM_FRAMES, stock_greedy

    with Decoding(tts.model, [0], [NUM_FRAMES]):
        return stock_greedy(tts, text)


def _probe_there(
    folder: Path, python: Path, ours: Mapping[str, NDArray[np.generic]]
) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Let another interpreter compute its side, from our codes."""
    from voxadapt.tools import certify_probe

    with tempfile.TemporaryDirectory() as scratch:
        codes, out = Path(scratch, "codes.npz"), Path(scratch, "out.npz")
        greedy = [value for name, value in ours.items() if name.endswith("greedy codes")]
        np.savez(codes, **{str(number): value for number, value in enumerate(greedy)})  # type: ignore[arg-type]
        command = [str(python), "-P", certify_probe.__file__, str(folder), str(out)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        try:
            ended = subprocess.run(
                [*command, "--codes", str(codes)], capture_output=True, text=True,
                errors="replace", env=environment, check=False,
            )  # fmt: skip
        except OSError as error:
            found = error.strerror or "it cannot be started"
            expected, fix = "a Python interpreter", "Name another one."
            raise UserError.of(python, expected, found, fix) from None
        if ended.returncode:
            said = " ".join(ended.stderr.strip().splitlines()[-LAST_LINES:])[-400:]
            raise UserError.of(
                python, "an environment whose qwen_tts loads the folder and runs",
                " ".join(said.split()) or f"exit code {ended.returncode}",
                "Install qwen-tts, or a port of it, with a transformers that it knows.",
            )  # fmt: skip
        with np.load(out, allow_pickle=False) as stored:
            facts = json.loads(stored["versions"].tobytes())
            return {name[5:]: stored[name] for name in sorted(set(stored) - {"versions"})}, facts

"""The import guard, tried on stand-ins for torchaudio and qwen_tts in a fresh interpreter."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
QWEN_TTS = """
import torchaudio.compliance.kaldi as kaldi  # what the unused 25 Hz tokenizer does on import
import torchaudio
import onnxruntime  # no less

class Qwen3TTSModel:
    @staticmethod
    def use():
        return kaldi.fbank(1)
"""
BROKEN = {
    "OSError": "raise OSError('libc10_cuda.so: cannot open shared object file\\nsecond line')",
    "ImportError": "import torchaudio._not_there",
    "RuntimeError": "import torchaudio.early\nraise RuntimeError('CUDA 12 beside CUDA 13')",
}


def run(folder: Path, torchaudio: str | None, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "qwen_tts").mkdir()
    (folder / "qwen_tts" / "__init__.py").write_text(QWEN_TTS)
    if torchaudio is not None:
        for name in ("torchaudio", "torchaudio/compliance"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text("")
        (folder / "torchaudio" / "early.py").write_text("")
        (folder / "torchaudio/compliance/kaldi.py").write_text("def fbank(x): return x + 1\n")
        (folder / "torchaudio" / "__init__.py").write_text(torchaudio)
    # -S: no site-packages, where a real torchaudio may lie.
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SRC}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


USE = """
from voxadapt.core.compat import import_qwen_tts, torchaudio_problem
package = import_qwen_tts()
assert import_qwen_tts() is package
assert "onnxruntime" not in __import__("sys").modules
print(torchaudio_problem())
print(package.Qwen3TTSModel.use())
"""


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_torchaudio_does_not_stop_the_import(tmp_path: Path, kind: str) -> None:
    done = run(tmp_path, BROKEN[kind], USE)
    reason, *_ = done.stdout.splitlines()
    assert reason.startswith(("OSError", "ModuleNotFoundError", "RuntimeError"))
    assert "second line" not in reason
    assert done.returncode == 1, "using it raises"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: torchaudio.compliance.kaldi.fbank was used, but")
    assert "25 Hz tokenizer" in last


def test_absent_torchaudio_does_not_stop_the_import(tmp_path: Path) -> None:
    done = run(tmp_path, None, USE)
    assert done.stdout.splitlines()[0].startswith("ModuleNotFoundError")
    assert "RuntimeError: torchaudio" in done.stderr


def test_working_torchaudio_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "", USE)
    assert done.stdout.splitlines() == ["None", "2"], done.stderr


LEAN = """
import sys
from voxadapt.core.compat import import_qwen_tts
package = import_qwen_tts()
heavy = (
    "sklearn", "scipy", "pandas", "numba", "sympy", "matplotlib", "gradio", "onnxruntime",
    "librosa.filters", "torch._dynamo", "torch.distributed.tensor", "torch.utils.tensorboard",
)
print([name for name in heavy if name in sys.modules])
# Its classes are the stock ones, of its own files.
from inspect import getsourcefile
from pathlib import Path
from qwen_tts.core import Qwen3TTSTokenizerV2Model
from qwen_tts.core.models import Qwen3TTSForConditionalGeneration
from transformers import PreTrainedModel
folder = Path(package.__file__).parent
stock = (package.Qwen3TTSModel, package.Qwen3TTSTokenizer, Qwen3TTSTokenizerV2Model,
         Qwen3TTSForConditionalGeneration)
print(all(folder in Path(getsourcefile(kind)).parents for kind in stock))
print(issubclass(Qwen3TTSForConditionalGeneration, PreTrainedModel))
# What was kept away is there for everybody else.
import torch, transformers.masking_utils as masks
print(torch.distributed.is_available())
from qwen_tts.core.models import modeling_qwen3_tts as modeling
import librosa.filters
options = dict(sr=24_000, n_fft=1024, n_mels=128, fmin=0, fmax=12_000)
print((modeling.librosa_mel_fn(**options) == librosa.filters.mel(**options)).all())
import scipy, torch.distributed.tensor
print(bool(scipy.__version__ and torch.distributed.tensor.DTensor))
mode = masks.TransformGetItemToIndex()
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
print(type(mode) is TransformGetItemToIndex)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""


@pytest.mark.slow
def test_little_is_imported_beside_the_stock_classes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAN],
        env={**os.environ, "PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = ["[]", "True", "True", "True", "True", "True", "True", "2.0"]
    assert done.stdout.splitlines() == expected, done.stderr


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run: not those for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from _imports(node)


@pytest.mark.slow
def test_qwen_tts_is_imported_through_the_guard_only() -> None:
    """Every module that imports qwen_tts also calls the guard, whose call comes first."""
    offenders = []
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        found = [n for n in _imports(tree) if re.match(r"(import|from) qwen_tts", ast.unparse(n))]
        if found and "import_qwen_tts()" not in text:
            offenders.append(path.name)
        if any(node.col_offset == 0 for node in found):
            offenders.append(f"{path.name} (at module level)")
    assert offenders == []

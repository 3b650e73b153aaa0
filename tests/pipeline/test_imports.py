"""A stage imports what it computes with, and nothing else: its start is most of a short stage."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLOTS = {"pandas", "matplotlib"}
TRAINING = {"torch", "transformers", "qwen_tts", "accelerate"}
MEASURING = {"whisper", "resemblyzer", "numba", "scipy.stats", "scipy.signal"}
NEVER = {"sklearn", "sympy", "gradio", "torch._dynamo", "papermill", "dvc", "ray"}

#: Modules of `pipeline` by kind of stage, and what each has no use for.
STAGES = {
    "audit": TRAINING | MEASURING | PLOTS | {"librosa", "scipy"},
    "train": MEASURING | PLOTS | {"scipy"},
    "language.readings": MEASURING | PLOTS | {"scipy"},
    "language.stage2": MEASURING | PLOTS | {"scipy"},
    "score": PLOTS | {"scipy.signal", "scipy.stats", "librosa.core"},
    "select": TRAINING | MEASURING | PLOTS | {"librosa"},
    "language.decide": TRAINING | MEASURING | PLOTS | {"librosa"},
    "report": TRAINING | {"whisper", "resemblyzer", "numba", "librosa", "pandas"},
    "language.report": TRAINING | MEASURING | {"pandas", "librosa"},
}
FOLLOWS_PITCH = {"score"}  # with a model that onnxruntime runs
CODE = """
import sys
import voxadapt.pipeline.{module}
if "torch" in sys.modules:  # then it speaks or trains, and loads a model
    from voxadapt.core.compat import import_qwen_tts
    import_qwen_tts()
print(*set({unneeded}) & set(sys.modules))
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", STAGES)
def test_a_stage_does_not_import_what_it_does_not_need(module: str) -> None:
    unneeded = STAGES[module] | NEVER | (set() if module in FOLLOWS_PITCH else {"onnxruntime"})
    code = CODE.format(module=module, unneeded=sorted(unneeded))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []

"""Promises of SECURITY.md that can be read off the code, and no network where none is named."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import voxadapt
from voxadapt.asr.voice_prints import Embedder
from voxadapt.asr.whisper import Transcriber
from voxadapt.core.errors import UserError
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import load_params
from voxadapt.core.templating import new_environment
from voxadapt.data.clips import read_other_voices
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.model.load import load_speech_tokenizer, load_tts

PROJECT = Path(__file__).parents[2]
PACKAGE = Path(voxadapt.__file__).parent
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PROJECT.glob("tests/fuzz/*.py")])
UNPICKLERS = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def name_of(node: ast.AST) -> str:
    """Return a dotted name, such as torch.load."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST) -> Iterator[str]:
    """Name every call and import that could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None) or "", *(item.name for item in node.names)]
            yield from (m for m in modules if m.split(".")[0] in UNPICKLERS)
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        given = {k.arg: k.value for k in node.keywords}
        constants = {k: v.value for k, v in given.items() if isinstance(v, ast.Constant)}
        if name.endswith("torch.load") and constants.get("weights_only") is not True:
            yield f"{name} without weights_only=True"
        if name in ("np.load", "numpy.load") and constants.get("allow_pickle", False) is not False:
            yield f"{name} with allow_pickle"
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
            yield name
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
            yield name
        if "shell" in given or constants.get("trust_remote_code"):
            yield f"{name} with shell or trust_remote_code"


# What a process and the workers that it has forked send each other; no file, no network.
PRIVATE_PIPES = {"core/executor.py": ["pickle"]}


def test_nothing_that_is_read_is_run() -> None:
    assert len(SOURCES) > 200
    found = {
        "/".join(path.parts[-2:]): names
        for path in SOURCES
        if (names := list(dangers(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == PRIVATE_PIPES


def test_the_search_finds_what_it_searches() -> None:
    code = (
        "import pickle\nfrom joblib import load\ntorch.load(p)\ntorch.load(p, weights_only=False)\n"
        "np.load(p, allow_pickle=True)\neval('1')\nyaml.load(t)\n"
        "subprocess.run('x', shell=True)\nAutoModel.from_pretrained(p, trust_remote_code=True)\n"
    )
    assert len(list(dangers(ast.parse(code)))) == 9
    assert list(dangers(ast.parse("model.eval()\nre.compile('x')\nnp.load(p)"))) == []


def test_templates_escape_and_forbid() -> None:
    """`safe` would undo the escaping; a policy without nonce or hash would let scripts run."""
    package = PROJECT / "src" / "voxadapt"
    for path in sorted(package.glob("*/templates/*.j2")):
        text = path.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", ""), path.name
        assert "autoescape" not in text, path.name
    base = (package / "reporting" / "templates" / "base.html.j2").read_text(encoding="utf-8")
    policy = base.split('Content-Security-Policy" content="')[1].split('"')[0]
    for rule in ("default-src 'none'", "base-uri 'none'", "form-action 'none'"):
        assert rule in policy
    for hole in ("http", "*", "unsafe-eval", "script-src 'unsafe-inline'"):
        assert hole not in policy
    assert new_environment(package).from_string("{{ text }}").render(text="<b>") == "&lt;b&gt;"


# --- no network --------------------------------------------------------------------------------


class NetworkError(AssertionError):
    """Something asked for the network."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse every connection and look-up of a name, and remember it."""
    asked: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        asked.append(str(arguments[1:] or arguments))
        raise OSError(f"no network: {arguments[1:]}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, lambda *a, _n=name, **k: refuse(_n, *a, **k))
    return asked


@pytest.mark.slow
def test_the_miniature_loads_without_a_network(
    no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that a stage loads: corpus, model, codec, recogniser, speaker encoder."""
    if not (PROJECT / "data" / "models").is_dir():
        pytest.skip("data/ is not here: run `dvc pull data.dvc`")
    monkeypatch.chdir(PROJECT)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    params = load_params("profiles/miniature.yaml")
    rows, problems = read_raw_manifest(params.data.manifest)
    assert rows and not problems
    assert params.data.other_voices and read_other_voices(params.data.other_voices)
    folder = resolve_model(params.model)
    load_tts(folder, as_base=True)
    load_speech_tokenizer(folder)
    Embedder()
    ears = Transcriber(params.asr.model, params.asr.language)
    assert ears.transcribe([rows[0].audio_path], [rows[0].text])[0].text
    assert no_network == []


def test_a_hub_id_asks_for_the_network_and_says_what_to_do_without(
    no_network: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    params = load_params(PROJECT / "profiles" / "qwen3-tts-0.6b.yaml")
    model = params.model.model_copy(update={"base": "voxadapt-tests/no-such-model"})
    with pytest.raises(UserError, match="Check the network, or copy the files"):
        resolve_model(model)
    assert no_network, "the guard sees what it guards against"

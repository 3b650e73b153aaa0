"""What a model folder computes under the `qwen_tts` of the interpreter that runs this file.

    PYTHON certify_probe.py FOLDER OUT.npz CODES.npz

It imports nothing of VoxAdapt, so that any environment with a `qwen_tts` can run it. Values are
written in the order in which they are computed: the first that differs names what is to blame.
"""

import contextlib
import importlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

TEXTS = ("The sun was warm.", "Who told you that 27 people came?", "Saya mahu beli payung, 谢谢。")
NUM_FRAMES = 24  # of greedy codes a text
RATE_HZ = 24_000
GREEDY = {
    "do_sample": False, "subtalker_dosample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    "subtalker_temperature": 1.0, "subtalker_top_k": 50, "subtalker_top_p": 1.0,
    "repetition_penalty": 1.05,
}  # fmt: skip
DISTRIBUTIONS = ("qwen-tts", "qwen-tts-compat", "qwen-tts-hf")

Values = dict[str, np.ndarray]
Greedy = Callable[[Any, str], torch.Tensor]


class _Captured(Exception):
    """Raised in place of generation: prompt, trailing text and pad, which it was to begin from."""


def call(tts: Any, text: str) -> None:
    """Speak a text greedily by the stock call, as the first speaker or with a fixed vector."""
    arguments = {"text": [text], "language": "Auto", "non_streaming_mode": True, **GREEDY}
    arguments["max_new_tokens"] = NUM_FRAMES
    if tts.model.tts_model_type == "custom_voice":
        tts.generate_custom_voice(speaker=sorted(tts.get_supported_speakers())[0], **arguments)
        return
    width = tts.model.config.talker_config.hidden_size
    vector = torch.randn(width, generator=torch.Generator().manual_seed(5)) / width**0.5
    item = importlib.import_module("qwen_tts").VoiceClonePromptItem(None, vector, True, False)
    tts.generate_voice_clone(voice_clone_prompt=[item], **arguments)


def stock_greedy(tts: Any, text: str) -> torch.Tensor:
    """Return the codes that the stock call hands to the codec, `[N, K]`."""
    given: list[torch.Tensor] = []

    def spy(items: Sequence[dict[str, torch.Tensor]]) -> Any:
        given.extend(item["audio_codes"] for item in items)
        return [np.zeros(1, np.float32) for _ in items], RATE_HZ

    with mock.patch.object(tts.model.speech_tokenizer, "decode", spy):
        call(tts, text)
    return given[0].cpu()


@torch.inference_mode()
def probe(tts: Any, forced: Sequence[np.ndarray] | None = None, greedy: Greedy = stock_greedy
) -> Values:  # fmt: skip
    """Compute everything that is compared, in order.

    Codes `[N, K]` of each text may be given to be read instead of the greedy ones, which `greedy`
    makes.
    """
    values: Values = {}
    codes = [greedy(tts, text) for text in TEXTS]
    talker = tts.model.talker
    for number, text in enumerate(TEXTS):
        name = f"text {number + 1}"
        values[f"{name}: token ids"] = np.asarray(tts.processor(text=[text])["input_ids"][0])
        start = _prefill(tts, text)
        values[f"{name}: prefill embeddings"] = _array(start[0])
        read = codes[number] if forced is None else torch.from_numpy(forced[number])
        _talker(talker, start, read.to(talker.device), name, values)
    for number in range(len(TEXTS)):
        values[f"text {number + 1}: greedy codes"] = codes[number].numpy()
    read = codes[0] if forced is None else torch.from_numpy(forced[0])
    _codec(tts, read, values)
    return values


def _prefill(tts: Any, text: str) -> tuple[torch.Tensor, ...]:
    """Return what generation begins from: prompt, trailing text and pad."""

    def stop(inputs_embeds: Any, trailing_text_hidden: Any, tts_pad_embed: Any, **_: Any) -> None:
        raise _Captured(inputs_embeds, trailing_text_hidden, tts_pad_embed)

    try:
        with mock.patch.object(tts.model.talker, "generate", stop):
            call(tts, text)
    except _Captured as captured:
        return captured.args
    raise RuntimeError("the stock call did not reach talker.generate")


def _talker(
    talker: Any, start: tuple[torch.Tensor, ...], codes_NK: torch.Tensor, name: str, values: Values
) -> None:
    """Teacher-force talker and code predictor, every layer of them."""
    (prompt, trailing, pad), predictor = start, talker.code_predictor
    tables = [talker.get_input_embeddings(), *predictor.get_input_embeddings()]
    embedded = torch.stack(
        [table(codes_N) for table, codes_N in zip(tables, codes_NK.unbind(-1), strict=True)]
    )
    pads = pad[0].expand(len(codes_NK), -1).clone()
    count = min(len(codes_NK), trailing.shape[1])
    pads[:count] = trailing[0, :count]
    inputs = torch.cat([prompt, (embedded.sum(0) + pads)[None]], dim=1)
    positions = torch.arange(inputs.shape[1], device=inputs.device).expand(3, 1, -1)
    with _seen(talker.model, f"{name}: talker", values):
        hidden = talker.model(
            inputs_embeds=inputs, attention_mask=torch.ones_like(positions[0]),
            position_ids=positions, use_cache=False,
        ).last_hidden_state  # fmt: skip
    values[f"{name}: talker logits"] = _array(talker.codec_head(hidden))
    first = prompt.shape[1] - 1
    states = hidden[0, first : first + len(codes_NK)]
    steps = torch.stack([states, *embedded[:-1]], dim=1)
    with _seen(predictor.model, f"{name}: code predictor", values):
        hidden = predictor.model(
            inputs_embeds=predictor.small_to_mtp_projection(steps), use_cache=False
        ).last_hidden_state
    heads = predictor.get_output_embeddings()
    logits = torch.stack([head(hidden[:, k + 1]) for k, head in enumerate(heads)], dim=1)
    values[f"{name}: code predictor logits"] = _array(logits)


@contextlib.contextmanager
def _seen(stack: Any, name: str, values: Values) -> Iterator[None]:
    """Keep what the rotary embedding, the layers and the last norm of a stack return."""
    parts = {"rotary embedding": stack.rotary_emb}
    parts |= {f"layer {number}": layer for number, layer in enumerate(stack.layers)}
    parts |= {"norm": stack.norm}

    def keep(part: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if part == "rotary embedding":
            output = torch.stack(list(output))
        values[f"{name} {part}"] = _array(output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(partial(keep, part)) for part, module in parts.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _codec(tts: Any, codes_NK: torch.Tensor, values: Values) -> None:
    """Decode codes, encode a sound, and read its speaker vector where the model can."""
    codec = tts.model.speech_tokenizer
    wavs, _ = codec.decode([{"audio_codes": codes_NK.to(tts.device)}])
    values["codec: decoded samples"] = np.asarray(wavs[0], np.float32)
    time_s = np.arange(2 * RATE_HZ, dtype=np.float64) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 140 * k * time_s) / k for k in range(1, 9))
    sound = (0.1 * sound * (1 + np.sin(2 * np.pi * 3 * time_s))).astype(np.float32)
    encoded = codec.encode(sound, sr=RATE_HZ).audio_codes[0]
    values["codec: codes of a sound"] = _array(encoded)
    if getattr(tts.model, "speaker_encoder", None) is not None:
        vector = tts.model.extract_speaker_embedding(audio=sound, sr=RATE_HZ)
        values["speaker encoder: vector of a sound"] = _array(vector)


def _array(tensor: torch.Tensor) -> np.ndarray:
    kept = tensor.detach().cpu()
    array: np.ndarray = (kept.float() if kept.is_floating_point() else kept).numpy()
    return array


def versions() -> dict[str, str]:
    """Name the implementation and what it runs on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", *DISTRIBUTIONS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    file = importlib.import_module("qwen_tts").__file__ or ""
    owners = importlib.metadata.packages_distributions().get("qwen_tts", [])
    found["implementation"] = _owner(file, owners)
    found["transformers"] = importlib.import_module("transformers").__version__
    return found


def _owner(file: str, candidates: Sequence[str]) -> str:
    """Name the distribution that a file of `qwen_tts` belongs to."""
    for name in dict.fromkeys(candidates):
        paths = importlib.metadata.files(name) or []
        if any(str(path.locate()) == file for path in paths):
            return f"{name} {importlib.metadata.version(name)}"
    return "qwen_tts without a distribution"


def import_stock() -> Any:
    """Import `qwen_tts`, also where what its 25 Hz tokenizer needs does not load."""
    for name in ("torchaudio", "sox", "onnxruntime"):
        try:
            importlib.import_module(name)
        except Exception:  # OSError, ImportError or RuntimeError, by platform
            for part in [part for part in sys.modules if part.split(".")[0] == name]:
                del sys.modules[part]
            for part in (name, f"{name}.compliance", f"{name}.compliance.kaldi"):
                module: Any = ModuleType(part)
                module.__path__, module.__spec__ = [], mock.Mock()
                sys.modules[part] = module
            sys.modules[f"{name}.compliance"].kaldi = sys.modules[f"{name}.compliance.kaldi"]  # type: ignore[attr-defined]
            sys.modules[name].compliance = sys.modules[f"{name}.compliance"]  # type: ignore[attr-defined]
    return importlib.import_module("qwen_tts")


def main() -> None:
    """Load the folder, compute from the codes, and write; versions go to the file as JSON."""
    folder, out, codes = sys.argv[1:]
    tts = import_stock().Qwen3TTSModel.from_pretrained(
        folder, dtype=torch.float32, device_map="cpu", attn_implementation="sdpa",
        local_files_only=True,
    )  # fmt: skip
    with np.load(codes, allow_pickle=False) as stored:
        values = probe(tts, [stored[str(number)] for number in range(len(TEXTS))])
    facts = np.frombuffer(json.dumps(versions()).encode(), np.uint8)
    numbered = {f"{number:04} {name}": value for number, (name, value) in enumerate(values.items())}
    np.savez(out, versions=facts, **numbered)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

"""The miniature's text tokenizer: byte-level BPE in the files of ``Qwen2TokenizerFast``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|tts_pad|>",
    "<|tts_bos|>",
    "<|tts_eos|>",
)
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], folder: Path, size: int) -> None:
    """Train the tokenizer and write its files.

    ``assistant`` and the newline are one token each, as inference slices exactly three tokens
    in front of the text and five behind it.

    Args:
        texts: Sentences of every language that the miniature knows of.
        folder: Where to write.
        size: Vocabulary size without the special tokens.

    Raises:
        ValueError: ``assistant`` did not become one token.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    lines = sorted(texts)
    tokenizer.train_from_iterator([*lines, *["assistant"] * (2 * len(lines))], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    fast = Qwen2TokenizerFast(
        vocab_file=str(folder / "vocab.json"),
        merges_file=str(folder / "merges.txt"),
        unk_token=None,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL[1:]),
    )
    fast.save_pretrained(folder)
    if len(fast("assistant").input_ids) != 1 or len(fast("\n").input_ids) != 1:
        raise ValueError("'assistant' and the newline must be one token each")


def special_ids(folder: Path) -> dict[str, int]:
    """Return the ids of the special tokens and the vocabulary size as ``size``."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return {**ids, "size": len(tokenizer)}

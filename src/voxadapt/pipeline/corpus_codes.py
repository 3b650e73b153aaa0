"""The codes of a corpus, held to the model that learns them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from voxadapt.codec.store import read_codes
from voxadapt.core.files import sha256_folder
from voxadapt.core.model_folder import read_config
from voxadapt.core.paths import Corpus
from voxadapt.data.manifest import Utterance


def read_corpus_codes(
    model_path: Path, utterances: Sequence[Utterance], corpus: Corpus
) -> Mapping[str, np.ndarray]:
    """Read codes `[N, K]` by utterance id."""
    talker = read_config(model_path)["talker_config"]
    return read_codes(
        corpus.codes,
        corpus.codes_index,
        utterances,
        num_codebooks=talker["num_code_groups"],
        codebook_size=talker["code_predictor_config"]["vocab_size"],
        codec_sha256=sha256_folder(model_path / "speech_tokenizer"),
    )

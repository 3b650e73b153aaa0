from __future__ import annotations

import pytest

from voxadapt.core.errors import UserError
from voxadapt.model.freezing import MODULES, freeze, module_of


@pytest.fixture
def model(models):
    yield models[24].model
    for parameter in models[24].model.parameters():
        parameter.requires_grad_(True)


def test_prefixes_freeze_exactly_what_lies_under_them(model):
    freeze(model, ["speaker_encoder", "talker.model.text_embedding"])
    for name, parameter in model.named_parameters():
        frozen = module_of(name) in ("speaker_encoder", "talker.model.text_embedding")
        assert parameter.requires_grad != frozen, name


def test_report_counts_every_parameter_once(model):
    counts = freeze(model, ["talker.code_predictor"])
    assert sum(c.num_params for c in counts) == sum(p.numel() for p in model.parameters())
    by_name = {c.module: c for c in counts}
    assert by_name["talker.code_predictor"].num_trainable == 0
    assert by_name["talker.codec_head"].num_trainable == by_name["talker.codec_head"].num_params
    assert set(by_name) == set(MODULES)


def test_every_unknown_prefix_is_a_problem(model):
    with pytest.raises(UserError) as caught:
        freeze(model, ["talker.model.text_embed", "speaker_encoder", "nothing"])
    assert [p.found for p in caught.value.problems] == ["'talker.model.text_embed'", "'nothing'"]


def test_freezing_everything_is_refused(model):
    with pytest.raises(UserError, match="every module frozen"):
        freeze(model, ["talker", "speaker_encoder"])

"""What a configuration of DeBERTa says, and which distances count as alike."""

import numpy as np
import pytest
import transformers

from triptych.errors import InputError
from triptych.models import configs, deberta

SMALL = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, relative_attention=True)
SMALL |= dict(pos_att_type="p2c|c2p", max_position_embeddings=512)
HEAD = "ForSequenceClassification"


def settings(head=HEAD, **given):
    return deberta.settings(transformers.DebertaV2Config(**SMALL | given), head)


def test_near_distances_have_rows_of_their_own_and_far_ones_share():
    rows = deberta.rows_of_distances(settings(position_buckets=256))
    assert rows.shape == (2 * 512 + 1,)
    assert (rows.min(), rows.max()) == (0, 511)
    by_distance = dict(zip(range(-512, 513), rows.tolist(), strict=True))
    assert [by_distance[distance] for distance in range(-128, 129)] == list(range(128, 385))
    assert (np.diff(rows) >= 0).all()
    # ceil(log(d / 128) / log(511 / 128) * 127) + 128 + 256
    assert [by_distance[distance] for distance in (129, 200, 300, 510)] == [385, 425, 463, 511]
    assert [by_distance[-distance] for distance in (129, 200, 300)] == [127, 87, 49]


def test_without_buckets_each_distance_has_a_row():
    rows = deberta.rows_of_distances(settings(max_relative_positions=3))
    assert rows.tolist() == [0, 1, 2, 3, 4, 5, 5]


def test_settings_are_those_of_the_configuration():
    found = settings(position_buckets=8, share_att_key=True, norm_rel_ebd="Layer_Norm", cls_dropout=0.4)
    assert (found.span, found.farthest, found.terms) == (8, 512, ("c2p", "p2c"))
    assert (found.own_projections, found.distance_norm, found.kernel) == (False, True, 0)
    assert (found.head_dropout, found.scale) == (0.4, pytest.approx((8 * 3) ** -0.5))
    assert settings("ForTokenClassification", cls_dropout=0.4).head_dropout == 0.1
    assert settings("ForQuestionAnswering").head_dropout == settings("ForMaskedLM").head_dropout == 0
    plain = settings(relative_attention=False, pos_att_type=None)
    assert (plain.span, plain.positions, plain.scale) == (0, 512, 8**-0.5)


def test_only_a_table_of_places_limits_a_text():
    config = transformers.DebertaV2Config(**SMALL)
    assert configs.positions(config) == 512
    config.position_biased_input = False
    assert configs.positions(config) is None


def test_all_that_is_not_supported_is_named_at_once():
    given = dict(attention_head_size=16, pooler_hidden_size=64, conv_kernel_size=4, conv_groups=2)
    given |= dict(pos_att_type="p2p|c2p", position_buckets=1200)
    with pytest.raises(InputError) as refusal:
        settings(**given)
    problems = refusal.value.problems
    assert all(problem.startswith("The configuration of the deberta-v2: ") for problem in problems)
    said = "\n".join(problems)
    for name in ("attention_head_size=16", "pooler_hidden_size=64", "conv_kernel_size=4", "conv_groups=2"):
        assert name in said
    for name in ("pos_att_type=p2p|c2p: p2p", "position_buckets=1200"):
        assert name in said
    with pytest.raises(InputError, match="without pos_att_type"):
        settings(pos_att_type=None)
    with pytest.raises(InputError, match="norm_rel_ebd"):
        settings(relative_attention=False, norm_rel_ebd="layer_norm")
    with pytest.raises(InputError, match="embedding_size=16"):
        settings("ForMaskedLM", legacy=False, embedding_size=16)
    with pytest.raises(InputError, match="hidden_size=30"):
        settings(hidden_size=30)

"""Files of BART's kin, as their models have them."""

import numpy as np
import pytest
from transformers import AutoConfig

from triptych.models import barts

BIAS, POSITIONS = "final_logits_bias", "model.encoder.embed_positions.weight"
LEARNT = np.arange(12, dtype=np.float32).reshape(6, 2)  # two rows that are never read, and four positions


def settled(model_type, names, positions=None):
    config = AutoConfig.for_model(model_type, vocab_size=5, d_model=4, max_position_embeddings=4)
    return barts.settled(dict.fromkeys(names, LEARNT), config, positions)


@pytest.mark.parametrize("model_type", ["marian", "m2m_100"])
def test_positions_of_older_files_are_left_out_where_todays_have_none(model_type):
    found = settled(model_type, ["model.shared.weight", POSITIONS, f"{POSITIONS}s", "model.decoder.version"])
    assert found.keys() == {"model.shared.weight", BIAS} - ({BIAS} if model_type == "m2m_100" else set())


def test_pegasus_gets_its_positions_where_a_file_has_none():
    found = settled("pegasus", ["model.shared.weight"])
    assert found.keys() == {"model.shared.weight", BIAS, POSITIONS, POSITIONS.replace("encoder", "decoder")}
    assert np.array_equal(found[POSITIONS], barts.sinusoids(4, 4, False))
    assert settled("pegasus", [POSITIONS])[POSITIONS] is LEARNT


def test_more_positions_repeat_those_that_are_learnt_and_continue_those_that_are_computed():
    longer = settled("mbart", [POSITIONS], 7)[POSITIONS]
    assert np.array_equal(longer, LEARNT[[0, 1, 2, 3, 4, 5, 2, 3, 4]])
    longer = settled("pegasus", [POSITIONS], 7)[POSITIONS]
    assert np.array_equal(longer[:4], barts.sinusoids(4, 4, False))
    assert len(np.unique(longer, axis=0)) == 7


def test_files_of_a_model_without_its_head_are_given_its_names():
    found = settled("bart", ["encoder.version", "shared.weight", BIAS])
    assert found.keys() == {"model.shared.weight", BIAS}

"""What an encoder reads."""

from types import SimpleNamespace

import pytest
import transformers

from triptych.models import encoders

TOKENIZER = SimpleNamespace(pad_token_id=9)


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        (transformers.BertConfig(), True),
        (transformers.RobertaConfig(type_vocab_size=1), False),
        (transformers.XLMRobertaConfig(type_vocab_size=1), False),
        (transformers.DistilBertConfig(), False),
        (transformers.ModernBertConfig(), False),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_types_of_tokens_are_for_encoders_that_have_several(config, reads):
    rows = {"input_ids": [[1, 2, 3], [4]], "token_type_ids": [[0, 0, 1], [0]]}
    batch = encoders.inputs(rows, TOKENIZER, config, None)
    expected = {"input_ids": [[1, 2, 3], [4, 9, 9]], "attention_mask": [[1, 1, 1], [1, 0, 0]]}
    expected |= {"token_type_ids": [[0, 0, 1], [0, 0, 0]]} if reads else {}
    assert {name: array.tolist() for name, array in batch.items()} == expected
    without = encoders.inputs({"input_ids": [[1, 2]]}, TOKENIZER, config, 4)
    assert without["input_ids"].tolist() == [[1, 2, 9, 9]]
    assert without.get("token_type_ids", without["attention_mask"] * 0).tolist() == [[0, 0, 0, 0]]

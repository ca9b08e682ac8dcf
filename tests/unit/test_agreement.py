"""Tokenizer, configuration and weights: what training and generation assume of them together."""

import json
from types import SimpleNamespace

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from triptych.errors import InputError
from triptych.models import agreement, configs, decoding


def tokenizer_of(*words, **special):
    vocabulary = {word: number for number, word in enumerate([*special.values(), *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def multilingual(cls):
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("a", -3.0)]
    return cls(vocab=vocabulary)


def flags(folder=None, writes=True, **given):
    names = dict.fromkeys(("lang", "forced_bos_token", "num_beams", "val_max_target_length"))
    names |= {"model_name_or_path": folder, "tokenizer_name": None, "max_target_length": 9}
    return SimpleNamespace(writes=writes, needs_padding=True, **{"wanted_columns": dict} | names | given)


def settle(config, tokenizer, written=None, **given):
    given = flags(**{"folder": "model", **given})
    agreement.settle(config, tokenizer, given, given, written or {})
    return given


def refusals(*arguments, **given):
    with pytest.raises(InputError) as caught:
        settle(*arguments, **given)
    return caught.value.problems


def test_mbart_of_2020_generates_from_the_language_that_it_learns_from():
    """As transformers' own shift of labels, which takes the language from their end to their beginning."""
    from transformers import MBartConfig, MBartTokenizer

    tokenizer = multilingual(MBartTokenizer)
    config = MBartConfig(vocab_size=len(tokenizer), pad_token_id=1)
    given = settle(config, tokenizer, lang="ro_RO")
    language = tokenizer.convert_tokens_to_ids("ro_RO")
    assert tokenizer(text_target="a")["input_ids"][-2:] == [tokenizer.eos_token_id, language]
    assert config.decoder_start_token_id == language
    asked = decoding.arguments(tokenizer, given, config)
    assert asked["decoder_start_token_id"] == language
    assert "forced_bos_token_id" not in asked
    (problem,) = refusals(config, tokenizer, lang="ro_RO", forced_bos_token="de_DE")
    assert "--forced_bos_token de_DE" in problem
    # One that was saved for another language begins with the one that it is given.
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids("de_DE")
    settle(config, tokenizer, lang="ro_RO")
    assert config.decoder_start_token_id == language


def test_mbart_50_begins_as_its_configuration_says_and_forces_the_language():
    from transformers import MBart50Tokenizer, MBartConfig

    tokenizer = multilingual(MBart50Tokenizer)
    config = MBartConfig(vocab_size=len(tokenizer), decoder_start_token_id=2)
    given = settle(config, tokenizer, lang="ro_RO")
    language = tokenizer.convert_tokens_to_ids("ro_RO")
    assert tokenizer(text_target="a")["input_ids"][0] == language
    asked = decoding.arguments(tokenizer, given, config)
    assert (asked["decoder_start_token_id"], asked["forced_bos_token_id"]) == (2, language)


def test_generation_begins_ends_and_pads_as_training_does(caplog):
    config = transformers.BartConfig(vocab_size=9, decoder_start_token_id=2, pad_token_id=1, eos_token_id=2)
    tokenizer = tokenizer_of("a", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    settle(config, tokenizer, {"decoder_start_token_id": 0})
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 2)
    assert "begin with token 0" in caplog.text
    generation = transformers.GenerationConfig(decoder_start_token_id=0, eos_token_id=7, pad_token_id=5)
    agreement.settle_generation(generation, config)
    found = decoding.search_of(generation)
    assert (found.decoder_start_token_id, found.eos_token_id, found.pad_token_id) == (2, (1, 7), 0)


def test_padding_is_the_tokenizers_where_the_model_names_none():
    """As the Trainer has it: else GPT-2 takes one row at a time only."""
    config = transformers.GPT2Config(vocab_size=9, pad_token_id=None)
    settle(config, tokenizer_of("a", pad_token="<pad>"), writes=False)
    assert config.pad_token_id == 0


def test_all_that_does_not_go_together_is_told_at_once(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    config = transformers.BartConfig(vocab_size=2)
    found = refusals(config, tokenizer_of("a", "b", "c", unk_token="<unk>"), folder=str(tmp_path), lang="en")
    parts = ("no padding token", "no end token", "'b', 'c'", "pytorch_model.bin", "--lang en")
    for part, problem in zip(parts, found, strict=True):
        assert part in problem
    assert "tokenizer.pad_token = " in found[0]
    assert "--tokenizer_name" in found[0]
    assert "resize_token_embeddings" in found[2]


def test_limit_that_holds_no_text_is_told():
    """Tokenizers do not cut at all where their own tokens fill it."""
    tokenizer = transformers.BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4})
    assert len(tokenizer("a a", "a a", max_length=2, truncation=True)["input_ids"]) == 7
    given = {"writes": False, "max_target_length": None, "max_seq_length": 3}
    config = transformers.BertConfig(vocab_size=9)
    settle(config, tokenizer, **given)
    pair = {"wanted_columns": lambda: {"text": "a", "text_pair": "b"}}
    (problem,) = refusals(config, tokenizer, **given, **pair)
    assert "--max_seq_length 3: holds no text, since the tokenizer adds 3" in problem


@pytest.mark.parametrize("configuration", [transformers.RobertaConfig, transformers.XLMRobertaConfig])
def test_padding_from_which_positions_are_counted_must_be_the_same(configuration):
    config = configuration(vocab_size=9, pad_token_id=1)
    (problem,) = refusals(config, tokenizer_of("a", pad_token="<pad>"), writes=False)
    assert "counts positions" in problem


def test_new_model_has_a_row_for_every_token(tmp_path):
    tokenizer = tokenizer_of("a", "b", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    given = flags(config_name=None, model_type="t5", config_overrides=None)
    config = configs.load(given, given, tokenizer)
    assert config.vocab_size == 5
    assert (config.decoder_start_token_id, config.eos_token_id) == (0, 1)
    assert json.loads(config.to_json_string(use_diff=False))["vocab_size"] == 5


def test_new_model_may_have_more_rows_than_there_are_tokens_and_not_fewer():
    tokenizer = tokenizer_of("a", "b", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    given = flags(config_name=None, model_type="t5", config_overrides="vocab_size=64")
    assert configs.load(given, given, tokenizer).vocab_size == 64
    given.config_overrides = "vocab_size=4"
    with pytest.raises(InputError, match="vocab_size=4: the tokenizer has 5 tokens"):
        configs.load(given, given, tokenizer)


def test_generated_tokens_are_counted_without_start_and_padding():
    tokenizer = tokenizer_of("a", "b", pad_token="<pad>", eos_token="</s>")
    answers = [[0, 2, 3, 1, 0, 0], [0, 2, 0, 3, 2, 3], [0, 2, 1, 1, 1, 1], [0, 2, 2, 0, 0, 0], [0]]
    assert decoding.lengths(answers, tokenizer) == [3, 5, 2, 2, 0]

"""Models of transformers: what a checkpoint lacks starts as in the other frameworks; positions."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DistilBertConfig,
)

from triptych.errors import InputError
from triptych.models import decoders, encoders, initial_weights
from triptych.pytorch import models, names, places

ENCODERS = initial_weights.ENCODERS
TEXTS, TOKENS = AutoModelForSequenceClassification, AutoModelForTokenClassification
QUESTIONS, CHOICES = AutoModelForQuestionAnswering, AutoModelForMultipleChoice
MASKED = AutoModelForMaskedLM
HEADS = pytest.mark.parametrize("head", [TEXTS, TOKENS, QUESTIONS, CHOICES])


def load(folder, config, auto_class=TEXTS, **options):
    hub = {"cache_dir": None, "model_revision": "main", "trust_remote_code": False}
    model_args = SimpleNamespace(model_name_or_path=folder and str(folder), **hub)
    args = SimpleNamespace(seed=3, gradient_checkpointing=False)
    return models.load(model_args, SimpleNamespace(**options), args, config, auto_class)


def is_initial(name, parameter, config):
    return np.array_equal(parameter.detach(), initial_weights.initial(name, parameter.shape, config, 3))


@HEADS
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForMaskedLM])
@pytest.mark.parametrize("kind", ENCODERS)
def test_new_head_is_drawn_by_the_seed(tiny, tmp_path, kind, auto_class, head, caplog):
    stored = auto_class.from_config(AutoConfig.from_pretrained(tiny / kind))
    stored.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, num_labels=4)
    prefix = encoders.base(config)
    base, whole = getattr(stored, prefix, stored).state_dict(), stored.state_dict()
    new = []
    for name, parameter in load(tmp_path, config, head).named_parameters():
        same = base.get(name.removeprefix(f"{prefix}."), whole.get(name))
        if same is None:
            assert is_initial(name, parameter, config), name
            assert name in caplog.text
            new.append(name)
        else:
            assert torch.equal(parameter, same), name
    unpooled = ("distilbert", "electra", "deberta-v2")
    pooled = kind not in unpooled if head is CHOICES else kind == "bert" and head is TEXTS
    one_layer = head in (TOKENS, QUESTIONS) or (pooled and auto_class is AutoModel)
    if kind == "modernbert":  # whose head for a model of language has a layer of all heads
        one_layer = auto_class is AutoModelForMaskedLM
    assert len(new) == (2 if one_layer else 4)
    assert config.num_labels == (2 if head is QUESTIONS else 4)


def by_names_in_files(model):
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {name: parameters[own] for name, (own,) in names.in_files(model).items() if own in parameters}


@pytest.mark.parametrize("kind", ENCODERS)
def test_head_for_hidden_tokens_is_drawn_by_the_seed_beside_the_table_that_it_shares(tiny, tmp_path, kind):
    stored = AutoModel.from_config(AutoConfig.from_pretrained(tiny / kind))
    stored.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    model, prefix, new = load(tmp_path, config, MASKED), encoders.base(config), 0
    before = stored.state_dict()
    for name, parameter in by_names_in_files(model).items():
        same = before.get(name.removeprefix(f"{prefix}."))
        assert torch.equal(parameter, same) if same is not None else is_initial(name, parameter, config), name
        new += same is None
    assert new == (3 if kind == "modernbert" else 5)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("kind", ENCODERS)
def test_heads_read_their_places_alone(tiny, kind):
    model = load(tiny / kind, AutoConfig.from_pretrained(tiny / kind), MASKED).eval()
    inputs = {"input_ids": torch.arange(3, 27).reshape(2, 12), "attention_mask": torch.ones(2, 12).long()}
    every = model(**inputs).logits
    where = torch.tensor([[3, 0, -100], [11, 2, 4]])
    model = places.with_places(model)
    found = model(**inputs, places=where).logits
    assert found.shape == (2, 3, every.shape[-1])
    expected = every.gather(1, where.clamp(min=0)[..., None].expand(-1, -1, every.shape[-1]))
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(model(**inputs).logits, every)


@pytest.mark.parametrize("head", [TEXTS, TOKENS, QUESTIONS, CHOICES, MASKED])
@pytest.mark.parametrize("kind", ENCODERS)
def test_new_model_has_transformers_distributions(tiny, kind, head):
    config = AutoConfig.from_pretrained(tiny / kind)
    found = load(None, config, head)
    theirs = by_names_in_files(head.from_config(config))
    for name, parameter in by_names_in_files(found).items():
        assert is_initial(name, parameter, config), name
        wanted, found = theirs[name].detach().numpy(), parameter.detach().numpy()
        margin = 6 * float(wanted.std()) / np.sqrt(found.size) + 1e-9
        assert found.std() == pytest.approx(wanted.std(), rel=5 / np.sqrt(found.size), abs=1e-9), name
        assert found.mean() == pytest.approx(wanted.mean(), abs=margin), name
        assert np.array_equal(found.any(-1), wanted.any(-1)), name


def test_sinusoids_are_transformers():
    config = DistilBertConfig(vocab_size=9, dim=16, n_layers=1, n_heads=2, sinusoidal_pos_embds=True)
    own = TEXTS.from_config(config).distilbert.embeddings.position_embeddings
    found = load(None, config).distilbert.embeddings.position_embeddings
    np.testing.assert_allclose(found.weight.detach(), own.weight.detach(), atol=1e-6)


def test_head_of_tokens_for_other_labels_needs_the_flag(tiny, tmp_path, caplog):
    config = AutoConfig.from_pretrained(tiny / "xlm-roberta")
    TOKENS.from_config(config).save_pretrained(tmp_path)
    config.num_labels = 7
    with pytest.raises(InputError, match=r"\[3, 32\].*\[7, 32\].*--ignore_mismatched_sizes"):
        load(tmp_path, config, TOKENS)
    model = load(tmp_path, config, TOKENS, ignore_mismatched_sizes=True)
    assert is_initial("classifier.weight", model.classifier.weight, config)
    assert re.search(r"classifier\.weight.*starts anew", caplog.text)


def test_head_for_other_labels_needs_the_flag(tiny, caplog):
    config = AutoConfig.from_pretrained(tiny / "roberta", num_labels=7)
    with pytest.raises(InputError, match=r"\[3, 32\].*\[7, 32\].*--ignore_mismatched_sizes"):
        load(tiny / "roberta", config)
    head = load(tiny / "roberta", config, ignore_mismatched_sizes=True).classifier
    assert is_initial("classifier.out_proj.weight", head.out_proj.weight, config)
    assert not is_initial("classifier.dense.weight", head.dense.weight, config)
    assert re.search(r"classifier\.out_proj\.weight.*starts anew", caplog.text)


def test_head_that_generates_is_not_made_anew(tiny, tmp_path):
    config = AutoConfig.from_pretrained(tiny / "bart", tie_word_embeddings=False)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no weights for .*lm_head\.weight"):
        load(tmp_path, config, AutoModelForSeq2SeqLM)


@pytest.mark.parametrize("kind", ["bart", "marian", "pegasus"])
def test_positions_are_enlarged_where_that_is_asked_for(kind, tmp_path):
    sizes = dict(vocab_size=40, d_model=8, max_position_embeddings=64, pad_token_id=1, eos_token_id=2)
    sizes |= {
        f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")
    }
    config = AutoConfig.for_model(kind, **sizes, decoder_start_token_id=1)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    lengths = {"max_source_length": 100, "max_target_length": 9, "val_max_target_length": None}

    def with_flag(resize):
        flags = lengths | {"resize_position_embeddings": resize}
        return load(tmp_path, AutoConfig.from_pretrained(tmp_path), AutoModelForSeq2SeqLM, **flags).eval()

    with pytest.raises(InputError, match="--max_source_length 100: the model has only 64 positions"):
        with_flag(False)
    model, tokens = with_flag(True), torch.full((1, 100), 5)
    assert model.config.max_position_embeddings == 100
    table = model.model.encoder.embed_positions.weight
    assert table.requires_grad == (kind == "bart")
    if kind == "bart":
        assert torch.equal(table[66:], table[2:38])
    found = model(input_ids=tokens, decoder_input_ids=tokens[:, :9]).logits
    model.save_pretrained(tmp_path / "longer")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "longer").eval()
    expected = again(input_ids=tokens, decoder_input_ids=tokens[:, :9]).logits
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)


@pytest.mark.parametrize("kind", decoders.MODEL_TYPES)
def test_new_decoder_has_transformers_distributions(kind):
    """So do those of the other forms, which draw the same."""
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=60, pad_token_id=5)
    sizes |= {} if kind == "gpt2" else dict(intermediate_size=48, num_key_value_heads=2, head_dim=8)
    config = AutoConfig.for_model(kind, **sizes, attention_bias=True, bos_token_id=1, eos_token_id=1)
    found = load(None, config, AutoModelForCausalLM)
    theirs = dict(AutoModelForCausalLM.from_config(config).named_parameters())
    for name, parameter in found.named_parameters():
        assert is_initial(name, parameter, config), name
        wanted, value = theirs[name].detach().numpy(), parameter.detach().numpy()
        margin = 6 * float(wanted.std()) / np.sqrt(value.size) + 1e-9
        assert value.mean() == pytest.approx(wanted.mean(), abs=margin), name
        assert value.std() == pytest.approx(wanted.std(), rel=5 / np.sqrt(value.size), abs=1e-9), name
        assert np.array_equal(~value.any(axis=-1), ~wanted.any(axis=-1)), "padding's row"


@pytest.mark.parametrize("kind", initial_weights.BERTS)
def test_texts_are_held_to_the_positions(tiny, kind):
    model = load(tiny / kind, AutoConfig.from_pretrained(tiny / kind))
    tokens = torch.full((1, 64), 5)
    assert model(tokens, torch.ones_like(tokens)).logits.shape == (1, 3)
    models.require_positions(model, SimpleNamespace(max_seq_length=64))
    with pytest.raises(InputError, match="the model has only 64 positions"):
        models.require_positions(model, SimpleNamespace(max_seq_length=65))
    with pytest.raises(InputError, match="--max_seq_length 65"):
        load(tiny / kind, AutoConfig.from_pretrained(tiny / kind), max_seq_length=65)

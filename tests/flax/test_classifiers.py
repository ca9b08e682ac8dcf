"""BERT and its kin in flax.nnx against PyTorch: scores, gradients, dropout, checkpoints, heads."""

import json
import logging
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals
from pytorch_answers import CLASSIFIERS
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.flax import conversion, models, random
from triptych.models import initial_weights, tensor_files

TEXTS, TOKENS = "ForSequenceClassification", "ForTokenClassification"
QUESTIONS, CHOICES, MASKED = "ForQuestionAnswering", "ForMultipleChoice", "ForMaskedLM"
HALF = ("roberta", "roberta-tokens", "distilbert-choices", "roberta-masked", "deberta-uneven")


def load(folder, **options):
    return conversion.load(folder, AutoConfig.from_pretrained(folder), **options)


def inputs_of(folder):
    return dict(np.load(folder / "inputs.npz"))


def scored(texts):
    """What has a score that counts: PyTorch's kinds of attention differ in what they make of a row or a
    choice that has no token, and of padding which sees none in its window. Bool [rows, 1] or [rows, choices],
    and [rows, length, 1] where each token has a score."""
    real = texts["attention_mask"] == 1
    if real.ndim == 3:
        return real.any(-1)
    return real.any(-1, keepdims=True) if texts["labels"].ndim == 1 else real[..., None]


def tensors_of(model):
    return conversion.to_numpy(nnx.state(model))


def loss_of(params, graphdef, texts, key):
    """The cross entropy summed over the labels that are not -100, and the logits."""
    inputs = {name: value for name, value in texts.items() if name != "labels"}
    rngs = None if key is None else nnx.Rngs(dropout=key)
    logits = scores = nnx.merge(graphdef, params)(**inputs, rngs=rngs)
    if texts["attention_mask"].ndim == 3:
        scores = jnp.where(scored(texts), scores, -1e9)
    elif texts["labels"].shape == (*scores.shape[:1], 2):  # of questions: over the places
        scores = jnp.where(texts["attention_mask"][:, None], scores.swapaxes(1, 2), -1e9)
    counts = texts["labels"] != -100
    labels = np.where(counts, texts["labels"], 0)[..., None]
    scores = jnp.take_along_axis(jax.nn.log_softmax(scores), labels, axis=-1)[..., 0]
    return -(scores * counts).sum(), logits


def test_scores_and_gradients_equal_pytorchs(made, classifier):
    folder = made / "classifiers" / classifier
    texts = inputs_of(folder)
    graphdef, params = nnx.split(load(folder, gradient_checkpointing=True), nnx.Param)
    difference = jax.value_and_grad(loss_of, has_aux=True)
    (loss, logits), gradients = difference(params, graphdef, texts, None)
    expected = np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    off = np.where(scored(texts), logits - expected, 0)
    np.testing.assert_allclose(off, 0, atol=1e-5 * np.abs(expected).max())

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    gradients = conversion.to_numpy(gradients)
    assert gradients.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-6 * largest
        np.testing.assert_allclose(gradients[name], wanted, rtol=0, atol=margin, err_msg=name)


@pytest.mark.parametrize("name", ["bert-masked", "modernbert-masked", "deberta-masked"])
def test_head_for_hidden_tokens_reads_their_places_alone(made, name):
    model, inputs = load(made / "classifiers" / name), inputs_of(made / "classifiers" / name)
    del inputs["labels"]
    places = np.array([[3, 0, -100], [1, 2, 4], [0, -100, -100], [8, 1, -100]], np.int32)
    found, every = model(**inputs, places=places), model(**inputs)
    assert found.shape == (4, 3, 120)
    expected = np.take_along_axis(np.array(every), np.maximum(places, 0)[..., None], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_head_with_a_table_of_its_own_is_refused(made):
    config = AutoConfig.from_pretrained(made / "classifiers/bert-masked")
    config.tie_word_embeddings = False
    with pytest.raises(InputError, match="tie_word_embeddings=False"):
        conversion.load(None, config, MASKED)


def test_bias_is_found_under_either_of_its_names(made, tmp_path):
    source = made / "classifiers/bert-masked"
    tensors = tensor_files.read_model(source)
    bias = tensors.pop("cls.predictions.bias")
    tensors |= {"cls.predictions.decoder.bias": bias}
    tensor_files.write_model(tmp_path, tensors, AutoConfig.from_pretrained(source), None, MASKED)
    assert np.array_equal(tensors_of(load(tmp_path))["cls.predictions.bias"], bias)


def test_types_of_tokens_are_zero_where_none_are_given(made, texts):
    model, inputs = load(made / "classifiers/bert"), (texts["input_ids"], texts["attention_mask"])
    assert np.array_equal(model(*inputs), model(*inputs, np.zeros_like(texts["input_ids"])))
    assert not np.array_equal(model(*inputs), model(*inputs, texts["token_type_ids"]))


def test_dropout_stands_where_pytorch_has_it(made, classifier, monkeypatch):
    folder = made / "classifiers" / classifier
    applied, keeps = [], random.keeps

    def record(key, draw, rate, shape):
        applied.append([pytest.approx(rate), list(shape)])
        return keeps(key, draw, rate, shape)

    monkeypatch.setattr(random, "keeps", record)
    graphdef, params = nnx.split(load(folder))
    jax.eval_shape(lambda key: loss_of(params, graphdef, inputs_of(folder), key), jax.random.key(0))
    assert applied == json.loads((folder / "dropouts.json").read_text())


def test_gradient_checkpointing_keeps_less(made, texts, capsys):
    def residuals(gradient_checkpointing):
        model = load(made / "classifiers/bert", gradient_checkpointing=gradient_checkpointing)
        graphdef, params = nnx.split(model)
        print_saved_residuals(lambda params: loss_of(params, graphdef, texts, jax.random.key(0))[0], params)
        return len(capsys.readouterr().out.splitlines()) - len(jax.tree.leaves(params))

    assert 0 < residuals(True) < residuals(False) / 2


@pytest.mark.parametrize("name", HALF)
def test_bfloat16_is_for_products_only(made, name):
    folder = made / "classifiers" / name
    graphdef, params = nnx.split(load(folder, dtype=jnp.bfloat16))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float32"}
    texts = inputs_of(folder)
    logits = loss_of(params, graphdef, texts, None)[1]
    expected = np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert 1e-5 < np.abs((logits - expected) * scored(texts)).max() / np.abs(expected).max() < 0.03


def test_pytorch_opens_what_was_saved_and_scores_the_same(made, tmp_path, ask_pytorch):
    jobs = []
    for name in CLASSIFIERS:
        source, folder = made / "classifiers" / name, tmp_path / name
        conversion.save(load(source), AutoConfig.from_pretrained(source), folder)
        about = {"folder": folder, "inputs": source / "inputs.npz", "outputs": folder / "logits.npz"}
        jobs += [{"command": "check", "folder": folder, "outputs": folder / "check.json"}]
        jobs += [{"command": "logits", **about}]
    ask_pytorch(tmp_path, jobs)
    for name in CLASSIFIERS:
        source, folder = made / "classifiers" / name, tmp_path / name
        found = json.loads((folder / "check.json").read_text())
        assert found["missing_keys"] == found["unexpected_keys"] == found["mismatched_keys"] == []
        ours, theirs = tensor_files.read_model(folder), tensor_files.read_model(source)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
        ours, theirs = (np.load(place / "logits.npz")["logits"] for place in (folder, source))
        assert np.array_equal(ours, theirs)
        architectures = [AutoConfig.from_pretrained(place).architectures for place in (folder, source)]
        assert architectures[0] == architectures[1]


@pytest.mark.parametrize(
    ("name", "head", "new", "unused"),
    [
        ("bert-bare", TEXTS, 2, None),
        ("bert-masked", TEXTS, 4, "cls.predictions.bias"),
        ("bert-bare", TOKENS, 2, "bert.pooler.dense.weight"),
        ("bert-masked", TOKENS, 2, "cls.predictions.bias"),
        ("xlm-roberta-bare", TEXTS, 4, "roberta.pooler.dense.weight"),
        ("xlm-roberta-masked", TOKENS, 2, "lm_head.dense.weight"),
        ("bert", TOKENS, 0, "bert.pooler.dense.weight"),
        ("roberta", TOKENS, 2, "classifier.out_proj.weight"),
        ("distilbert-tokens", TEXTS, 2, None),
        ("bert", QUESTIONS, 2, "bert.pooler.dense.weight"),
        ("xlm-roberta-bare", QUESTIONS, 2, "roberta.pooler.dense.weight"),
        ("bert-bare", CHOICES, 2, None),
        ("roberta", CHOICES, 4, "classifier.out_proj.weight"),
        ("xlm-roberta-masked", CHOICES, 4, "lm_head.dense.weight"),
        ("distilbert-questions", CHOICES, 4, "qa_outputs.weight"),
        ("modernbert-bare", QUESTIONS, 4, None),
        ("modernbert-masked", TEXTS, 2, "decoder.bias"),
        ("bert-bare", MASKED, 5, None),
        ("xlm-roberta-bare", MASKED, 5, "roberta.pooler.dense.weight"),
        ("roberta-tokens", MASKED, 5, "classifier.weight"),
        ("distilbert", MASKED, 5, "pre_classifier.weight"),
        ("modernbert-bare", MASKED, 3, None),
        ("electra", MASKED, 5, "classifier.out_proj.weight"),
        ("electra-masked", CHOICES, 4, "generator_lm_head.bias"),
        ("deberta-bare", TOKENS, 2, None),
        ("deberta", QUESTIONS, 2, "pooler.dense.weight"),
        ("deberta-authors-masked", CHOICES, 4, "lm_predictions.lm_head.bias"),
        ("deberta-bare", MASKED, 5, None),
    ],
)
def test_model_of_another_head_gets_a_new_one_by_the_seed(made, name, head, new, unused, caplog):
    caplog.set_level(logging.INFO)
    folder = made / "classifiers" / name
    config, stored = AutoConfig.from_pretrained(folder), tensor_files.read_model(folder)
    drawn = 0
    for key, value in tensors_of(conversion.load(folder, config, head, seed=3)).items():
        same = key.partition(".")[2] if name.endswith("-bare") else key
        if same in stored:
            assert np.array_equal(value, stored[same]), key
        else:
            assert np.array_equal(value, initial_weights.initial(key, value.shape, config, 3)), key
            assert key in caplog.text
            drawn += 1
    assert drawn == new
    assert unused is None or re.search(rf"Not used of the checkpoint: .*\b{re.escape(unused)}\b", caplog.text)


def test_new_model_is_drawn_by_the_seed(classifier, made):
    config = AutoConfig.from_pretrained(made / "classifiers" / classifier)
    found = tensors_of(conversion.load(None, config, conversion.head_of(config), seed=3))
    assert found.keys() == tensor_files.read_model(made / "classifiers" / classifier).keys()
    for name, value in found.items():
        assert np.array_equal(value, initial_weights.initial(name, value.shape, config, 3)), name


def test_run_states_its_head_and_whether_it_may_be_replaced(made, caplog):
    caplog.set_level(logging.INFO)
    folder = made / "classifiers/roberta"
    model_args = SimpleNamespace(model_name_or_path=folder)
    args = SimpleNamespace(seed=0, bf16=False, gradient_checkpointing=False)

    def run(labels=3, length=38, **options):
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        data_args = SimpleNamespace(max_seq_length=length, **options)
        return models.load(model_args, data_args, args, config, TEXTS)

    assert run().classifier.out_proj.kernel.shape == (32, 3)
    with pytest.raises(InputError, match=r"\[3, 32\].*\[7, 32\].*--ignore_mismatched_sizes"):
        run(labels=7)
    assert run(labels=7, ignore_mismatched_sizes=True).classifier.out_proj.kernel.shape == (32, 7)
    assert "out_proj.weight has shape [3, 32]" in caplog.text
    with pytest.raises(InputError, match=r"--max_seq_length 39: the model has only 38 positions\. Give"):
        run(length=39)


@pytest.mark.parametrize("head", [TEXTS, TOKENS, QUESTIONS, CHOICES, MASKED])
def test_refusal_of_another_architecture_lists_those_that_work(head):
    known = "bert, roberta, xlm-roberta, distilbert, electra, modernbert, deberta-v2"
    with pytest.raises(InputError, match=rf"'t5' is not supported.*: {known}\."):
        conversion.load(None, AutoConfig.for_model("t5"), head)


def test_text_longer_than_the_positions_is_refused(made):
    for name, places in (("bert", 40), ("roberta", 38), ("xlm-roberta", 38)):
        model = load(made / "classifiers" / name)
        assert jax.eval_shape(model, *2 * [np.ones((1, places), int)]).shape == (1, 3)
        with pytest.raises(InputError, match=f"{places + 1} tokens.*{places} positions"):
            jax.eval_shape(model, *2 * [np.ones((1, places + 1), int)])

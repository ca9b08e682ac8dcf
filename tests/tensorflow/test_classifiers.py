"""BERT and its kin in Keras against PyTorch: scores, gradients, dropout, checkpoints, heads."""

import json
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pytorch_answers import CLASSIFIERS
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.models import initial_weights, tensor_files
from triptych.tensorflow import conversion, devices, models

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
    places = conversion.places(model)
    return conversion.scatter(places, [place.variable.numpy() for place in places])


def loss_of(model, texts, seed=None):
    """The cross entropy summed over the labels that are not -100, and the logits; a seed means dropout."""
    inputs = {name: values for name, values in texts.items() if name != "labels"}
    logits = scores = model(inputs, training=seed is not None, seed=seed)
    if texts["attention_mask"].ndim == 3:
        scores = tf.where(scored(texts), scores, -1e9)
    elif texts["labels"].shape == (*scores.shape[:1], 2):  # of questions: over the places
        scores = tf.where(texts["attention_mask"][:, None] == 1, tf.transpose(scores, (0, 2, 1)), -1e9)
    counts = texts["labels"] != -100
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(np.where(counts, texts["labels"], 0), scores)
    return tf.reduce_sum(tf.where(counts, losses, 0)), logits


def loss_and_gradients(model, texts, seed=None):
    with tf.GradientTape() as tape:
        loss, logits = loss_of(model, texts, seed)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, logits, [tf.convert_to_tensor(gradient) for gradient in gradients]


def test_scores_and_gradients_equal_pytorchs(made, classifier):
    folder = made / "classifiers" / classifier
    texts = inputs_of(folder)
    model = load(folder)
    loss, logits, gradients = loss_and_gradients(model, texts)
    expected = np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    off = np.where(scored(texts), logits - expected, 0)
    np.testing.assert_allclose(off, 0, atol=1e-5 * np.abs(expected).max())

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(model, gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-6 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)


@pytest.mark.parametrize("name", ["bert-masked", "modernbert-masked", "deberta-masked"])
def test_head_for_hidden_tokens_reads_their_places_alone(made, name):
    model, inputs = load(made / "classifiers" / name), inputs_of(made / "classifiers" / name)
    del inputs["labels"]
    places = np.array([[3, 0, -100], [1, 2, 4], [0, -100, -100], [8, 1, -100]], np.int32)
    found, every = model(inputs | {"places": places}), model(inputs)
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
    model, inputs = load(made / "classifiers/bert"), dict(texts)
    given = model(inputs)
    zero = model(inputs | {"token_type_ids": np.zeros_like(texts["input_ids"])})
    del inputs["token_type_ids"]
    assert np.array_equal(model(inputs), zero)
    assert not np.array_equal(model(inputs), given)


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "bert-choices", "modernbert-tokens", "deberta-tokens", "deberta-uneven"]
)
def test_one_trace_serves_all_lengths(made, name):
    model, texts = load(made / "classifiers" / name), inputs_of(made / "classifiers" / name)
    names = ("input_ids", "attention_mask")
    traces, axes = [], texts["input_ids"].ndim

    @tf.function(input_signature=[{name: tf.TensorSpec(axes * [None], tf.int32) for name in names}])
    def scores(inputs):
        traces.append(1)
        return model(inputs)

    inputs = {name: texts[name] for name in names}
    more = [(0, 0), *[(0, 1)] * (axes - 2), (0, 9)]  # a choice of padding, and padding of each text
    long = {name: np.pad(values, more) for name, values in inputs.items()}
    long["input_ids"] = np.where(long["attention_mask"], long["input_ids"], 1)
    found = scores(inputs)
    np.testing.assert_allclose(found, model(inputs), atol=1e-6)
    off = np.where(scored(texts), found - scores(long)[:, : found.shape[1]], 0)
    np.testing.assert_allclose(off, 0, atol=1e-6)
    assert len(traces) == 1


def test_dropout_stands_where_pytorch_has_it(made, classifier, monkeypatch):
    folder = made / "classifiers" / classifier
    applied, drop = [], tf.nn.experimental.stateless_dropout

    def record(values, rate, **others):
        applied.append([rate, list(values.shape)])
        return drop(values, rate=rate, **others)

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", record)
    loss_of(load(folder), inputs_of(folder), seed=1)
    assert applied == json.loads((folder / "dropouts.json").read_text())


@pytest.mark.parametrize(("name", "layers"), [("bert", 2), ("modernbert", 3), ("deberta-uneven", 2)])
def test_gradient_checkpointing_drops_the_same_and_dropout_follows_the_seed(made, name, layers, monkeypatch):
    folder = made / "classifiers" / name
    texts = inputs_of(folder)
    anew, recompute = [], tf.recompute_grad
    monkeypatch.setattr(tf, "recompute_grad", lambda layer: anew.append(layer) or recompute(layer))

    def gradients(seed=1, **options):
        model = load(folder, **options)
        found = tf.function(lambda: loss_and_gradients(model, texts, seed)[2])()
        return np.concatenate([gradient.numpy().ravel() for gradient in found])

    expected = gradients()
    assert not anew
    assert np.abs(gradients(gradient_checkpointing=True) - expected).max() < 1e-5 * np.abs(expected).max()
    assert len(anew) == layers
    assert np.array_equal(gradients(), expected)
    assert not np.array_equal(gradients(seed=2), expected)


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize(("dtype", "margin"), [("mixed_bfloat16", 0.03), ("mixed_float16", 0.005)])
def test_half_precision_is_for_products_only(made, dtype, margin, name):
    folder = made / "classifiers" / name
    model, texts = load(folder, dtype=dtype), inputs_of(folder)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    logits, expected = loss_of(model, texts)[1], np.load(folder / "logits.npz")["logits"]
    assert logits.dtype == tf.float32
    assert 1e-5 < np.abs((logits - expected) * scored(texts)).max() / np.abs(expected).max() < margin
    texts["attention_mask"][-1] = 0  # of padding only
    _, logits, gradients = loss_and_gradients(model, texts, seed=1)
    assert all(np.isfinite(values).all() for values in (logits, *gradients))


def test_pytorch_opens_what_was_saved_and_scores_the_same(made, tmp_path, ask_pytorch):
    jobs = []
    for name in CLASSIFIERS:
        source, folder = made / "classifiers" / name, tmp_path / name
        conversion.save(load(source), folder)
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


def test_weight_decay_spares_what_has_one_dimension_in_pytorch(made, classifier):
    model = load(made / "classifiers" / classifier)
    pairs = zip(model.trainable_variables, conversion.decayed(model), strict=True)
    marked = conversion.to_numpy(model, [np.full(variable.shape, decays) for variable, decays in pairs])
    for name, decays in marked.items():
        assert (decays == (decays.ndim > 1)).all(), name


def test_run_states_its_head_and_whether_it_may_be_replaced(made, caplog):
    caplog.set_level(logging.INFO)
    folder = made / "classifiers/roberta"
    model_args = SimpleNamespace(model_name_or_path=folder)
    args = SimpleNamespace(seed=0, bf16=False, fp16=False, gradient_checkpointing=False)
    world = devices.World(tf.distribute.get_strategy())

    def run(labels=3, length=38, **options):
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        data_args = SimpleNamespace(max_seq_length=length, **options)
        model = models.load(model_args, data_args, args, config, TEXTS, world)
        return tensors_of(model)["classifier.out_proj.weight"].shape

    assert run() == (3, 32)
    with pytest.raises(InputError, match=r"\[3, 32\].*\[7, 32\].*--ignore_mismatched_sizes"):
        run(labels=7)
    assert run(labels=7, ignore_mismatched_sizes=True) == (7, 32)
    assert "out_proj.weight has shape [3, 32]" in caplog.text
    with pytest.raises(InputError, match=r"--max_seq_length 39: the model has only 38 positions\. Give"):
        run(length=39)


@pytest.mark.parametrize("head", [TEXTS, TOKENS, QUESTIONS, CHOICES, MASKED])
def test_refusal_of_another_architecture_lists_those_that_work(head):
    known = "bert, roberta, xlm-roberta, distilbert, electra, modernbert, deberta-v2"
    with pytest.raises(InputError, match=rf"'t5' is not supported.*: {known}\."):
        conversion.load(None, AutoConfig.for_model("t5"), head)

"""T5 and BART of KerasHub's layers against PyTorch: scores, gradients, first weights, dropout, precision."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from transformers import AutoConfig

from triptych.errors import InputError
from triptych.models import tensor_files
from triptych.tensorflow import architectures, conversion


def loss_of(model, batch, seed=None):
    """The cross entropy summed over labels that are not -100, and the logits; a seed means dropout."""
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    logits = model(inputs, training=seed is not None, seed=seed)
    real = batch["labels"] != -100
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(real, batch["labels"], 0), logits)
    return tf.reduce_sum(tf.where(real, losses, 0.0)), logits


def loss_and_gradients(model, batch, seed=None):
    with tf.GradientTape() as tape:
        loss, logits = loss_of(model, batch, seed)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, logits, [tf.convert_to_tensor(gradient) for gradient in gradients]


def test_scores_and_gradients_equal_pytorchs(made, batch, variant, load):
    model = load(made / variant)
    loss, logits, gradients = loss_and_gradients(model, batch)

    real = batch["decoder_attention_mask"] != 0
    expected = np.load(made / variant / "logits.npz")["logits"][real]
    assert np.abs(logits.numpy()[real] - expected).max() <= 1e-5 * np.abs(expected).max()

    expected = dict(np.load(made / variant / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(model, gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-7 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)


def test_decoder_is_causal_without_a_mask_of_its_own(made, batch, load):
    """A batch has none where padding stands at the end of targets, as their labels are not counted."""
    for name in ("t5", "bart"):
        model, inputs = load(made / name), {key: values for key, values in batch.items() if key != "labels"}
        given = model(inputs)
        mask = inputs.pop("decoder_attention_mask") != 0
        np.testing.assert_allclose(model(inputs)[mask], given[mask], atol=1e-5)


def test_distances_beyond_the_furthest_share_its_bucket():
    """Where a logarithm's last bit decides, too: T5 1.1's own 32 buckets up to 128."""
    both, behind = (architectures.distance_buckets(32, 128, both_ways) for both_ways in (True, False))
    assert both[128 + np.array([0, 1, 7, 8, 16, 32, 64, 127, 128])].tolist() == [
        0,
        17,
        23,
        24,
        26,
        28,
        30,
        31,
        31,
    ]
    assert both[128 - np.array([1, 8, 16, 32, 64, 128])].tolist() == [1, 8, 10, 12, 14, 15]
    assert behind[128 - np.array([-5, 0, 15, 16, 32, 64, 128])].tolist() == [0, 0, 15, 16, 21, 26, 31]


def test_initial_weights_have_transformers_distributions(made, variant):
    if variant == "t5-v1.1-untied":
        pytest.skip("a configuration of T5 always ties: the reference parts the tables by hand")
    config = AutoConfig.from_pretrained(made / variant / "initial")
    model = conversion.load(None, config, seed=1)
    places = conversion.places(model)
    drawn = conversion.scatter(places, [place.variable.numpy() for place in places])
    expected = tensor_files.read_model(made / variant / "initial")
    assert drawn.keys() == expected.keys()
    for name, value in drawn.items():
        wanted = expected[name]
        assert value.shape == wanted.shape, name
        assert value.std() == pytest.approx(wanted.std(), rel=5 / math.sqrt(value.size), abs=1e-9), name
        margin = 6 * float(wanted.std()) / math.sqrt(value.size) + 1e-9
        assert value.mean() == pytest.approx(wanted.mean(), abs=margin), name
    if "t5" not in variant:
        assert not drawn["model.shared.weight"][config.pad_token_id].any()


def test_same_seed_same_weights_other_seed_others(made):
    config = AutoConfig.from_pretrained(made / "bart")
    first, again, other = (conversion.load(None, config, seed=seed).shared.embeddings for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["t5", "t5-v1.1", "bart", "mbart", "marian", "pegasus", "m2m_100"])
def test_dropout_stands_where_pytorch_has_it(made, batch, load, name, monkeypatch):
    applied, drop = [], tf.nn.experimental.stateless_dropout

    def record(values, rate, **others):
        applied.append([rate, list(values.shape)])
        return drop(values, rate=rate, **others)

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", record)
    loss_of(load(made / name), batch, seed=1)
    assert applied == json.loads((made / name / "dropouts.json").read_text())


@pytest.mark.parametrize("name", ["t5-v1.1", "bart"])
def test_dropout_follows_the_seed(made, batch, load, name):
    model = load(made / name)
    first, again, other = (float(loss_of(model, batch, seed)[0]) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_gradient_checkpointing_keeps_less_and_drops_the_same(made, batch, load, name):
    def gradients(**options):
        """Gradients, and how many numbers their computation takes from that of the loss."""
        model = load(made / name, **options)

        @tf.function
        def step():
            graph = tf.compat.v1.get_default_graph()
            with tf.GradientTape() as tape:
                loss, _ = loss_of(model, batch, seed=1)
            forward = set(graph.get_operations())
            found = tape.gradient(loss, model.trainable_variables)
            backward = set(graph.get_operations()) - forward
            taken = {id(x): x for operation in backward for x in operation.inputs if x.op in forward}
            kept.append(sum(x.shape.num_elements() or 0 for x in taken.values() if x.op.inputs))
            return [tf.convert_to_tensor(gradient) for gradient in found]

        kept = []
        return np.concatenate([gradient.numpy().ravel() for gradient in step()]), kept[0]

    expected, most = gradients()
    found, least = gradients(gradient_checkpointing=True)
    assert 0 < least < most / 3
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_layer_dropout_skips_layers(made, batch):
    config = AutoConfig.from_pretrained(made / "bart")
    config.encoder_layerdrop = 1.0
    config.dropout = config.attention_dropout = config.activation_dropout = 0.0
    model = conversion.load(made / "bart", config)
    model.seeds.seed = 0
    skipped = model.encode(batch["input_ids"], batch["attention_mask"], training=True)
    kept = model.encode(batch["input_ids"], batch["attention_mask"])
    model.encoder_layers = []
    without = model.encode(batch["input_ids"], batch["attention_mask"])
    assert np.array_equal(skipped, without)
    assert not np.array_equal(kept, without)


@pytest.mark.parametrize(("dtype", "margin"), [("mixed_bfloat16", 0.03), ("mixed_float16", 0.005)])
@pytest.mark.parametrize("name", ["t5-v1.1", "bart"])
def test_half_precision_is_for_products_only(made, batch, load, name, dtype, margin):
    """One source is padding only, where float16 has no room for a lower number than the lowest."""
    model, batch = load(made / name, dtype=dtype), {**batch, "attention_mask": batch["attention_mask"].copy()}
    assert {variable.dtype for variable in model.weights} == {"float32"}
    batch["attention_mask"][2] = 0
    _, logits, gradients = loss_and_gradients(model, batch, seed=1)
    assert logits.dtype == tf.float32
    assert all(np.isfinite(gradient).all() for gradient in gradients)

    _, logits = loss_of(model, batch)
    real, expected = batch["decoder_attention_mask"] != 0, np.load(made / name / "logits.npz")["logits"]
    real[2] = False
    assert 1e-5 < np.abs(logits.numpy() - expected)[real].max() / np.abs(expected).max() < margin


def test_unknown_activation_and_architecture_are_refused(made):
    config = AutoConfig.from_pretrained(made / "bart")
    config.activation_function = "laplace"
    with pytest.raises(InputError, match=r"laplace.*gelu_new"):
        conversion.load(made / "bart", config)
    with pytest.raises(InputError, match=r"led.*t5, mt5, bart, mbart, marian, pegasus, m2m_100"):
        conversion.load(made / "bart", AutoConfig.for_model("led"))

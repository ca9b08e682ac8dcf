"""GPT-2, Llama and its kin in Keras against PyTorch: scores, gradients, files, initial weights, dropout."""

import numpy as np
import pytest
import tensorflow as tf

from triptych.tensorflow import conversion


def loss_of(model, batch, seed=None):
    """The cross entropy summed over labels that are not -100, and the logits; a seed means dropout."""
    logits = model(batch, training=seed is not None, seed=seed)
    real = batch["labels"] != -100
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(real, batch["labels"], 0), logits)
    return tf.reduce_sum(tf.where(real, losses, 0.0)), logits


def test_scores_and_gradients_equal_pytorchs(made_decoders, packed, decoder, load):
    folder = made_decoders / decoder
    model = load(folder, gradient_checkpointing=True)
    with tf.GradientTape() as tape:
        loss, logits = loss_of(model, packed)
    gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, model.trainable_variables)]

    real = np.cumsum(packed["labels"][:, ::-1] != -100, axis=1)[:, ::-1] > 0
    expected = np.load(folder / "logits.npz")["logits"][real]
    assert np.abs(logits.numpy()[real] - expected).max() <= 1e-5 * np.abs(expected).max()

    expected = dict(np.load(folder / "gradients.npz"))
    assert float(loss) == pytest.approx(float(expected.pop("loss")), rel=1e-6)
    found = conversion.to_numpy(model, gradients)
    assert found.keys() == expected.keys(), "PyTorch trains other parameters"
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, wanted in expected.items():
        margin = 2e-5 * np.abs(wanted).max() + 1e-7 * largest
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=margin, err_msg=name)


def test_texts_of_a_row_are_as_if_alone(made_decoders, packed, decoder, load):
    model = load(made_decoders / decoder)
    together = model(packed)
    for row, start, length in ((1, 0, 9), (1, 9, 7), (1, 16, 4), (2, 1, 14)):
        tokens = packed["input_ids"][row : row + 1, start : start + length]
        alone = model({"input_ids": tokens, "position_ids": np.arange(length, dtype=np.int32)[None]})
        assert np.abs(together[row, start : start + length] - alone[0]).max() < 1e-5, (row, start)

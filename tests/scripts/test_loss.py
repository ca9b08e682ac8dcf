"""The loss is a mean over the target tokens of a whole optimizer step, however the step is cut into batches,
batches are padded, and activations are kept or computed anew.

That the Trainer of transformers does otherwise is shown by tests/pytorch/test_stock_trainer.py.
"""

import numpy as np
import pytest
from harness import flags
from safetensors.numpy import load_file

ROWS = 11  # two steps of 8 and 3 rows: the last window of accumulation is partial in every cut


@pytest.fixture(scope="session")
def cut_run(shared_run, start, files):
    """Two epochs of plain gradient descent, in which an update is proportional to its gradient; where steps
    are cut, batches are padded as far as they may be, and activations are computed anew."""

    def run(form, size, accumulation):
        words = flags(
            model_name_or_path=start(form),
            **files,
            **form.longest(200, pad_to_max_length=accumulation > 1),
            do_train=True,
            do_eval=True,
            max_train_samples=ROWS,
            max_eval_samples=6,
            max_target_length=40 if form.tests.get("generates") else None,
            label_smoothing_factor=0.1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=2,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0,
            logging_steps=1,
            gradient_checkpointing=accumulation > 1,
            preprocessing_num_workers=2 if accumulation > 1 else None,
        )
        return shared_run(form, f"loss-{size}x{accumulation}", *words)

    return run


@pytest.mark.crossed
@pytest.mark.parametrize(("size", "accumulation"), [(4, 2), pytest.param(2, 4, marks=pytest.mark.sampled)])
def test_cut_padded_and_recomputed_steps_are_those_of_a_large_batch(form, size, accumulation, cut_run, start):
    large, small = cut_run(form, 8, 1), cut_run(form, size, accumulation)
    assert len(large.log("loss")) == 4
    for expected, found in zip(large.log("loss"), small.log("loss"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
    expected, found = (run.json("eval_results.json")["eval_loss"] for run in (large, small))
    assert found == pytest.approx(expected, rel=1e-6)
    before = load_file(start(form) / "model.safetensors")
    expected, found = (
        load_file(large.output / "model.safetensors"),
        load_file(small.output / "model.safetensors"),
    )
    assert set(expected) == set(found) == set(before)
    largest = max(np.abs(expected[name] - before[name]).max() for name in before)
    assert largest > 1e-3  # or nothing would be compared
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=0, atol=1e-6, err_msg=name)


def test_update_equals_the_first_forms(first_form, other_form, cut_run):
    first, other = cut_run(first_form, 4, 2), cut_run(other_form, 4, 2)
    for expected, found in zip(first.log("loss"), other.log("loss"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    expected, found = (load_file(run.output / "model.safetensors") for run in (first, other))
    assert set(expected) == set(found)
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=0, atol=1e-6, err_msg=name)

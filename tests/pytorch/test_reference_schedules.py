"""The learning-rate table against `transformers.get_scheduler`: every schedule, every detail of each."""

import json

import numpy as np
import pytest
import torch
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from triptych import schedule
from triptych.arguments import TrainingArguments
from triptych.errors import InputError

PEAK, TOTAL, WARMUP = 0.05, 40, 7
DETAILS = {
    "linear": [{}],
    "cosine": [{}, {"num_cycles": 1.5}],
    "cosine_with_restarts": [{}, {"num_cycles": 3}],
    "polynomial": [{}, {"power": 2.0, "lr_end": 1e-3}],
    "constant": [{}],
    "constant_with_warmup": [{}],
    "inverse_sqrt": [{}, {"timescale": 50}],
    "cosine_with_min_lr": [{"min_lr": 0.01}, {"min_lr_rate": 0.1, "num_cycles": 1.5}],
    "cosine_warmup_with_min_lr": [{"min_lr": 0.01}, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.3}],
    "warmup_stable_decay": [
        {"num_decay_steps": 10},
        {"num_decay_steps": 10, "num_stable_steps": 15, "min_lr_ratio": 0.1},
        {"num_decay_steps": 12, "warmup_type": "cosine", "decay_type": "1-sqrt", "min_lr_ratio": 0.05},
        {"num_decay_steps": 12, "decay_type": "linear"},
    ],
}
CASES = [(name, details) for name, several in DETAILS.items() for details in several]


def test_every_schedule_of_transformers_is_known():
    assert set(schedule.SCHEDULES) == {kind.value for kind in SchedulerType}
    assert set(DETAILS) == set(schedule.SCHEDULES) - set(schedule.ADAPTIVE)


@pytest.mark.parametrize("warmup", [0, WARMUP])
@pytest.mark.parametrize(("name", "details"), CASES, ids=str)
def test_rates_equal_those_of_transformers(name, details, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=PEAK)
    reference = get_scheduler(name, optimizer, warmup, TOTAL, scheduler_specific_kwargs=dict(details))
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    args = TrainingArguments(
        learning_rate=PEAK,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=json.dumps(details),
        warmup_steps=warmup,
    )
    rates = schedule.learning_rates(args, TOTAL)[:TOTAL]
    np.testing.assert_allclose(rates, expected, rtol=1e-9, atol=1e-15)
    assert rates.max() > 0.2 * PEAK


def test_warmup_as_a_share_is_rounded_up_as_in_the_trainer():
    args = TrainingArguments(learning_rate=1.0, warmup_ratio=0.11)
    rates = schedule.learning_rates(args, TOTAL)  # ceil(4.4) steps
    assert rates[4:6].tolist() == [0.8, 1.0]


FOLLOWING = [
    ("reduce_lr_on_plateau", {}),
    ("reduce_lr_on_plateau", {"patience": 1, "factor": 0.5, "cooldown": 2, "min_lr": 0.004}),
    ("reduce_lr_on_plateau", {"mode": "max", "patience": 0, "threshold": 0.05, "threshold_mode": "abs"}),
    ("greedy", {"patience": 2, "min_lr": 1e-4}),
    ("greedy", {"patience": 1, "factor": 0.5, "cooldown": 2, "warmup": 1, "max_lr": 0.08}),
    ("greedy", {"patience": 0, "mode": "max", "smooth": True, "window_size": 3, "reset_start": 2}),
    ("greedy", {"patience": 0, "factor": 0.5, "min_lr": 0.02, "reset_start": 1, "threshold_mode": "rel"}),
]


@pytest.mark.parametrize(("name", "details"), FOLLOWING, ids=str)
def test_rates_that_follow_evaluations_equal_those_of_transformers(name, details):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=PEAK)
    reference = get_scheduler(name, optimizer, scheduler_specific_kwargs=dict(details))
    draw = np.random.default_rng(3)
    metrics = (2 + np.cos(np.arange(90) / 9) + 0.05 * draw.standard_normal(90)).tolist()
    args = TrainingArguments(
        learning_rate=PEAK, lr_scheduler_type=name, lr_scheduler_kwargs=json.dumps(details)
    )
    rates = []
    for done in range(1, len(metrics) + 1):
        reference.step(metrics[done - 1])
        rates.append(optimizer.param_groups[0]["lr"])
        assert schedule.adaptive_rate(args, metrics[:done]) == pytest.approx(rates[-1], rel=1e-12), done
    assert len(set(rates)) > 1


def test_unknown_detail_of_such_a_schedule_is_refused():
    args = TrainingArguments(lr_scheduler_type="greedy", lr_scheduler_kwargs='{"patienc": 3}')
    with pytest.raises(InputError, match="patienc"):
        schedule.learning_rates(args, TOTAL)

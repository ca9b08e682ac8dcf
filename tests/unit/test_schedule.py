import dataclasses

import numpy as np
import pytest

from triptych import schedule
from triptych.arguments import TrainingArguments
from triptych.errors import InputError
from triptych.run.state import RunState


def args(**given):
    return TrainingArguments(per_device_train_batch_size=4, gradient_accumulation_steps=2, **given)


def test_steps_are_counted_over_partial_batches_and_partial_windows():
    plan = schedule.plan(args(num_train_epochs=2.5), rows=101)  # 26 batches, 13 steps an epoch
    assert (plan.batches_per_epoch, plan.steps_per_epoch, plan.total_steps, plan.epochs) == (26, 13, 33, 3)
    assert (
        schedule.plan(args(num_train_epochs=1), rows=97).steps_per_epoch == 13
    )  # 25 batches: the last is alone
    assert schedule.plan(args(num_train_epochs=1), rows=97, processes=2).steps_per_epoch == 7
    assert schedule.plan(args(num_train_epochs=1, dataloader_drop_last=True), rows=95).batches_per_epoch == 23
    assert schedule.plan(args(max_steps=5), rows=None).total_steps == 5


def test_an_epoch_is_measured_in_batches_as_the_trainer_measures_it():
    plan = schedule.plan(args(num_train_epochs=2), rows=97)
    assert plan.epoch_after(1) == 2 / 25
    assert plan.epoch_after(13) == 1
    assert plan.epoch_after(14) == 1 + 2 / 25


def test_events_happen_at_steps_at_shares_of_the_run_and_at_epochs():
    plan = schedule.plan(
        args(
            max_steps=30,
            logging_steps=10,
            logging_first_step=True,
            eval_strategy="epoch",
            save_steps=0.25,
            do_train=True,
        ),
        rows=101,
    )
    happens = {
        "log": [step for step in range(1, 31) if plan.logs_after(step)],
        "evaluate": [step for step in range(1, 31) if plan.evaluates_after(step)],
        "save": [step for step in range(1, 31) if plan.saves_after(step, is_best=False)],
    }
    assert happens == {"log": [1, 10, 20, 30], "evaluate": [13, 26, 30], "save": [8, 16, 24, 30]}


def evaluations(**given):
    plan = schedule.plan(args(max_steps=30, **given), rows=101)
    return [step for step in range(31) if plan.evaluates_after(step)]


def test_evaluations_may_begin_late_and_before_the_first_step():
    assert evaluations(eval_strategy="steps", eval_steps=10, eval_delay=11) == [20, 30]
    assert evaluations(eval_strategy="epoch", eval_delay=1.5) == [26, 30]
    assert evaluations(eval_strategy="epoch", eval_on_start=True) == [0, 13, 26, 30]
    assert evaluations(eval_on_start=True) == [0]
    assert evaluations(eval_on_start=True, eval_strategy="steps", eval_steps=10, eval_delay=30) == [0, 30]


def test_an_evaluation_before_the_first_step_is_made_once_and_never_the_best():
    given = args(eval_on_start=True, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="epoch")
    plan, state = schedule.plan(given, rows=101), RunState()
    assert state.evaluation_due(plan)
    assert not state.evaluated({"eval_loss": 1.0}, given)
    state.log_history.append({"eval_loss": 1.0, "step": 0})
    assert not state.evaluation_due(plan)
    assert (state.best_metric, state.best_step, state.evaluations_without_gain) == (None, None, 0)
    patient = dataclasses.replace(given, lr_scheduler_kwargs='{"patience": 0}')
    assert state.learning_rate(plan, patient) == given.learning_rate
    state.log_history.append({"eval_loss": 2.0, "step": 13})  # the first that counts
    assert state.learning_rate(plan, patient) == given.learning_rate


@pytest.mark.parametrize(
    ("steps", "entries"), [(1, 1), (2, 2), (7, 7), (20, 20), (50, 18), (333, 21), (50_000, 101)]
)
def test_without_a_number_of_steps_a_run_of_any_length_shows_its_curve(steps, entries):
    plan = schedule.plan(args(max_steps=steps), rows=101)
    logged = [step for step in range(1, steps + 1) if plan.logs_after(step)]
    assert (logged[0], logged[-1], len(logged)) == (1, steps, entries)
    assert plan.evaluation == schedule.Every(0)
    by_epochs = schedule.plan(args(max_steps=30, logging_strategy="epoch"), rows=101)
    assert [step for step in range(1, 31) if by_epochs.logs_after(step)] == [13, 26, 30]
    assert not any(
        map(schedule.plan(args(max_steps=9, logging_strategy="no"), rows=101).logs_after, range(1, 10))
    )
    assert args(eval_strategy="steps").eval_steps == 500


def test_best_saves_the_best_alone_and_no_saves_nothing():
    best = schedule.plan(args(save_strategy="best", eval_strategy="epoch"), rows=101)
    never = schedule.plan(args(save_strategy="no"), rows=101)
    assert [best.saves_after(13, is_best) for is_best in (True, False)] == [True, False]
    assert not any(never.saves_after(step, True) for step in range(1, never.total_steps + 1))


def test_unknown_details_of_a_schedule_are_an_error():
    with pytest.raises(InputError, match="linear does not take power"):
        schedule.learning_rates(args(lr_scheduler_kwargs='{"power": 2}'), 10)


@pytest.mark.parametrize("name", [name for name in schedule.SCHEDULES if name not in schedule.ADAPTIVE])
def test_every_schedule_warms_up_to_the_rate_and_stays_in_bounds(name):
    details = '{"num_decay_steps": 20}' if name == "warmup_stable_decay" else None
    given = args(lr_scheduler_type=name, lr_scheduler_kwargs=details, warmup_ratio=0.1, learning_rate=0.5)
    rates = schedule.learning_rates(given, 100)
    assert rates.shape == (101,)
    assert rates.max() == pytest.approx(0.5, rel=1e-3)
    assert rates.min() >= 0
    if name != "constant":
        assert np.all(np.diff(rates[:10]) > 0)


def test_patience_counts_evaluations_without_gain():
    given = args(metric_for_best_model="rouge1", early_stopping_patience=2)
    state = RunState()
    told = []
    for state.step, value in enumerate([1.0, 2.0, 2.0, 1.5], start=1):
        told.append((state.evaluated({"eval_rouge1": value}, given), state.out_of_patience(given)))
    assert told == [(True, False), (True, False), (False, False), (False, True)]
    assert (state.best_metric, state.best_step) == (2.0, 2)


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    state = RunState(step=3, best_metric=1.5, best_step=2, log_history=[{"loss": 1.0, "step": 3}])
    state.save(tmp_path)
    assert RunState.load(tmp_path) == dataclasses.replace(state, checkpoint=tmp_path)

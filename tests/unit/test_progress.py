import math
from types import SimpleNamespace

import pytest

from triptych import schedule
from triptych.arguments import TrainingArguments
from triptych.errors import RunError
from triptych.output.reporting import Reporters
from triptych.run.progress import Progress
from triptych.run.state import RunState


def progress(**flags):
    args = TrainingArguments(max_steps=4, logging_steps=2, disable_tqdm=True, **flags)
    return Progress(schedule.plan(args, 8, 1), args, RunState(), SimpleNamespace(process=1), Reporters({}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_or_gradient_that_is_no_number_ends_the_run_naming_the_step(value):
    with pytest.raises(RunError, match=r"The loss of step 3 is (nan|inf)"):
        progress().step(3, value, 0.1, 1.0, 10)
    with pytest.raises(RunError, match=r"The gradient's norm of step 3 is (nan|inf)"):
        progress().step(3, 1.0, 0.1, value, 10)


def test_scaled_loss_of_float16_may_overflow_a_gradient():
    progress(fp16=True).step(3, 1.0, 0.1, math.inf, 10)


def test_training_loss_is_that_of_all_steps_whichever_process_did_them():
    first = progress()
    for step, loss in enumerate((4.0, 3.0, 2.0), start=1):
        first.step(step, loss, 0.1, 1.0, 10)
    second = progress()
    second.state.loss_sum, second._start = first.state.loss_sum, 3
    second.step(4, 1.0, 0.1, 1.0, 10)
    assert second.train_metrics(4)["train_loss"] == 2.5
    third = progress()
    third.state.loss_sum, third._start = second.state.loss_sum, 4
    assert third.train_metrics(4) == {"epoch": 4.0, "train_loss": 2.5, "train_samples": 8}

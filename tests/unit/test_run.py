"""How a run begins: what is looked at before anything is written."""

from types import SimpleNamespace

import pytest

from triptych import data, run
from triptych.arguments import (
    DataArguments,
    LabelArguments,
    ModelArguments,
    PairArguments,
    Seq2SeqArguments,
    TrainingArguments,
)
from triptych.errors import InputError, RunError
from triptych.output import lock
from triptych.run.evaluation import Evaluation

datasets = pytest.importorskip("datasets")

WORLD = SimpleNamespace(process=0, processes=1, share=0, shares=1, devices=2, description="cpu")
WORLD.gather = lambda values: values


@pytest.fixture
def start(tmp_path):
    def begin(**flags):
        args = TrainingArguments(output_dir=str(tmp_path / "out"), **flags)
        rows = {"train": datasets.Dataset.from_dict({"input_ids": [[1], [2], [3]]})}
        given = (ModelArguments(), DataArguments(train_file="rows.jsonl"), args)
        return run.start(*given, rows, rows, WORLD, 10, None)

    yield begin
    lock.release()


def test_rows_that_fill_no_batch_are_told_instead_of_waited_for(start, tmp_path):
    flags = {"do_train": True, "dataloader_drop_last": True, "max_steps": 3}
    with pytest.raises(InputError, match=r"leaves out all 3 training rows: .* one batch of 4"):
        start(per_device_train_batch_size=2, **flags)
    lock.release()
    assert not (tmp_path / "out").exists()
    assert start(per_device_train_batch_size=1, **flags).plan.total_steps == 3


def test_command_at_the_end_has_what_the_model_has_learnt_with(tmp_path, capsys):
    data_args = Seq2SeqArguments(train_file="x", source_prefix="summarize: ")
    run.show(data_args, TrainingArguments(do_train=True, output_dir=str(tmp_path)), {"train_loss": 1.0})
    shown = capsys.readouterr().out
    assert f"--model_name_or_path {tmp_path} --source_prefix 'summarize: ' --do_predict" in shown
    assert "--lang" not in shown
    data_args = PairArguments(train_file="x", source_lang="en", target_lang_column="to")
    run.show(data_args, TrainingArguments(do_train=True, output_dir=str(tmp_path)), {"train_loss": 1.0})
    assert "--source_lang en --target_lang_column to --do_predict" in capsys.readouterr().out


def test_no_epoch_is_said_to_be_none(start, caplog):
    start(do_train=True, num_train_epochs=0)
    assert "--num_train_epochs 0 makes no step" in caplog.text


def test_folder_is_looked_at_again_when_its_lock_is_taken(start, tmp_path):
    """Another run may have ended there while this one read its data."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/theirs").touch()
    with pytest.raises(InputError, match=r"is not empty \(theirs\)"):
        start(do_train=True)
    lock.release()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_evaluation_whose_loss_is_no_number_ends_the_run(start, loss):
    evaluation = Evaluation("eval", start(do_eval=True))
    evaluation.add([0, 1], loss, 2, None)
    with pytest.raises(RunError, match=rf"loss of the rows to eval is {loss}"):
        evaluation.result(lambda answers, rows: {}, [{}, {}])


def test_answers_to_parts_of_a_row_come_together_as_its_own_and_rows_are_counted_once(start):
    evaluation = Evaluation("predict", start(do_predict=True))
    args = evaluation.training.args
    args.per_device_eval_batch_size = 2
    windows = datasets.Dataset.from_dict({"input_ids": [[1], [2], [3]], data.ROW: [0, 0, 2]})
    for rows, _ in evaluation.batches(windows, lambda rows, draws: {}, ()):
        evaluation.add(rows, 0.0, 1, [[[row, 0.5]] for row in rows])
    scored = []
    values, answers = evaluation.result(lambda *given: scored.append(given) or {}, ["a", "b", "c"])
    assert [[part.tolist() for part in parts] for parts in answers] == [
        [[[0, 0.5]], [[1, 0.5]]],
        [],
        [[[2, 0.5]]],
    ]
    assert values["predict_samples"] == 3
    assert scored == [(answers, ["a", "b", "c"])]
    assert answers[0][0].nbytes == 8  # where a list would take a hundred


def test_lengths_beams_and_metrics_are_looked_at_with_the_flags():
    lengths = {"max_source_length": 0, "max_target_length": 1, "num_beams": 0}
    found = "\n".join(Seq2SeqArguments(train_file="x", **lengths).problems())
    for name in lengths:
        assert f"--{name} " in found
    found = "\n".join(LabelArguments(train_file="x", metric_name="f1, acuracy").problems())
    assert "--metric_name acuracy: there is no such metric; there are: accuracy, f1" in found
    assert "--metric_name f1" not in found


def test_seeds_have_bounds():
    found = "\n".join(TrainingArguments(seed=1 << 32, data_seed=-1).problems())
    assert "--seed 4294967296: must be below 4294967296." in found
    assert "--data_seed -1: must be at least 0." in found

import json

import pytest

from triptych.arguments import TrainingArguments
from triptych.errors import InputError, RunError
from triptych.output import checkpoints, ownership, record, results

sha256 = checkpoints._sha256


def write(folder, step, text="weights"):
    with checkpoints.writing(folder, step) as checkpoint:
        (checkpoint / "model.safetensors").write_text(text)
        (checkpoint / "deeper").mkdir()
        (checkpoint / "deeper" / "more.json").write_text("{}")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_that_was_written_verifies(tmp_path):
    write(tmp_path, 3)
    assert names(tmp_path) == ["checkpoint-3"]
    assert checkpoints.verify(tmp_path / "checkpoint-3") == []


def test_a_failure_while_writing_leaves_the_one_before_and_nothing_else(tmp_path):
    write(tmp_path, 3)

    def fail():
        with checkpoints.writing(tmp_path, 3) as checkpoint:
            (checkpoint / "model.safetensors").write_text("half")
            raise OSError("disk full")

    with pytest.raises(
        RunError, match=r"checkpoint-3 could not be written \(\d+ bytes or more, [\d,]+ are free\): disk full"
    ):
        fail()
    assert names(tmp_path) == ["checkpoint-3"]
    assert (tmp_path / "checkpoint-3" / "model.safetensors").read_text() == "weights"


def test_output_folder_that_has_vanished_is_not_begun_anew(tmp_path):
    with pytest.raises(RunError, match="No such file"):
        write(tmp_path / "gone", 3)
    assert not (tmp_path / "gone").exists()


def test_killed_while_replacing_there_is_one_of_the_two(tmp_path):
    """The one before counts until the new one has its name; then it is left-over."""
    write(tmp_path, 3)
    aside = (tmp_path / "checkpoint-3").rename(tmp_path / f"{checkpoints.REPLACED}checkpoint-3")
    (tmp_path / f"{checkpoints.UNFINISHED}checkpoint-3").mkdir()
    assert checkpoints.newest(tmp_path) == (aside, [])
    checkpoints.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [aside.name]
    write(tmp_path, 3, "better")
    assert names(tmp_path) == ["checkpoint-3"]


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "config.json").write_text("old")

    def replace(fail):
        with checkpoints.replacing(tmp_path) as folder:
            (folder / "config.json").write_text("new")
            if fail:
                raise OSError("disk full")

    with pytest.raises(RunError, match="disk full"):
        replace(fail=True)
    assert (tmp_path / "config.json").read_text() == "old"
    replace(fail=False)
    assert (tmp_path / "config.json").read_text() == "new"
    assert names(tmp_path) == ["config.json"]


def test_writing_again_replaces_the_checkpoint(tmp_path):
    write(tmp_path, 3)
    write(tmp_path, 3, "better")
    assert names(tmp_path) == ["checkpoint-3"]
    assert (tmp_path / "checkpoint-3" / "model.safetensors").read_text() == "better"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda c: (c / "model.safetensors").write_text("weighTs"), "has changed"),
        (lambda c: (c / "model.safetensors").write_text("weigh"), "5 bytes instead of 7"),
        (lambda c: (c / "deeper" / "more.json").unlink(), "deeper/more.json is missing"),
        (lambda c: (c / "manifest.json").unlink(), "holds no manifest.json"),
        (lambda c: (c / "manifest.json").write_text("{"), "cannot be read"),
        (lambda c: (c / "manifest.json").write_text('{"files": [1]}'), "cannot be read"),
        (
            lambda c: (c / "manifest.json").write_text('{"files": {"../x": {"size": 1, "sha256": ""}}}'),
            "../x is missing",
        ),
    ],
)
def test_damage_is_found_and_the_one_before_is_taken(damage, told, tmp_path):
    write(tmp_path, 3)
    write(tmp_path, 20)
    (tmp_path / "x").write_text("x")
    damage(tmp_path / "checkpoint-20")
    assert told in " ".join(checkpoints.verify(tmp_path / "checkpoint-20"))
    assert checkpoints.newest(tmp_path)[0] == tmp_path / "checkpoint-3"


def test_the_newest_is_by_number_not_by_name(tmp_path):
    for step in (9, 10, 100):
        write(tmp_path, step)
    assert checkpoints.newest(tmp_path) == (tmp_path / "checkpoint-100", [])


def test_rotation_spares_the_newest_the_best_and_what_is_not_ours(tmp_path):
    for step in range(1, 7):
        write(tmp_path, step)
    for foreign in ("checkpoint-old", "checkpoint-0"):
        (tmp_path / foreign).mkdir()
    checkpoints.rotate(tmp_path, 3, best_step=2)
    assert names(tmp_path) == [
        "checkpoint-0",
        "checkpoint-2",
        "checkpoint-5",
        "checkpoint-6",
        "checkpoint-old",
    ]
    checkpoints.rotate(tmp_path, 1, best_step=2)
    assert names(tmp_path) == ["checkpoint-0", "checkpoint-2", "checkpoint-6", "checkpoint-old"]
    checkpoints.rotate(tmp_path, None, best_step=None)
    assert len(names(tmp_path)) == 4


def test_a_run_that_cannot_fit_on_the_disk_is_refused(tmp_path):
    args = TrainingArguments(do_train=True)
    checkpoints.require_space(tmp_path / "not" / "there", 1000, args)
    with pytest.raises(InputError, match=r"take 28,000,000,000,000,000 bytes"):
        checkpoints.require_space(tmp_path, 10**15, args)


def test_an_output_folder_that_is_not_empty_needs_a_checkpoint_or_permission(tmp_path):
    assert ownership.problems(str(tmp_path / "new" / "deeper"), True, False) == []
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not empty (notes.txt)" in ownership.problems(str(tmp_path), True, False)[0]
    assert ownership.problems(str(tmp_path), False, False) == []
    assert ownership.problems(str(tmp_path), True, True) == []
    write(tmp_path, 3)
    assert ownership.problems(str(tmp_path), True, False) == []
    assert "is a file" in ownership.problems(str(tmp_path / "notes.txt"), True, True)[0]


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    files = ["run.json", "arguments.json", "model.safetensors", "train_results.json"]
    run = json.dumps({"versions": {"triptych": "0.2.0"}, "files": files})
    for name in ("run.json", "arguments.json", "run.json.123.partial"):
        (tmp_path / name).write_text(run)
    for name in (f"{checkpoints.UNFINISHED}checkpoint-3", "runs"):
        (tmp_path / name).mkdir()
    assert ownership.problems(str(tmp_path), True, False) == []
    (tmp_path / "run.json").write_text("{}")
    assert "is not empty" in ownership.problems(str(tmp_path), True, False)[0], "somebody else's run.json"
    (tmp_path / "run.json").write_text(run)
    (tmp_path / "model.safetensors").write_text("put there when the run was killed")
    assert ownership.problems(str(tmp_path), True, False) == []
    (tmp_path / "train_results.json").write_text("the end of a run without checkpoints")
    assert "is not empty" in ownership.problems(str(tmp_path), True, False)[0]


def test_overwriting_removes_only_what_a_run_of_ours_wrote(tmp_path):
    (tmp_path / "config.json").write_text("somebody's")
    assert "config.json would be overwritten" in ownership.problems(str(tmp_path), True, True)[0]
    ownership.clear(tmp_path)
    assert names(tmp_path) == ["config.json"]
    record.save_run(tmp_path, {})
    results.save_metrics(tmp_path, "eval", {"eval_loss": 1.0})
    (tmp_path / "config.json").unlink()
    for name in ("README.md", "notes.txt", "vocab.json", "predictions.tsv"):
        (tmp_path / name).write_text("my own")
    (tmp_path / "checkpoint-old").mkdir()
    write(tmp_path, 3)
    ownership.clear(tmp_path)
    assert names(tmp_path) == ["README.md", "checkpoint-old", "notes.txt", "predictions.tsv", "vocab.json"]


def test_a_file_of_somebody_else_is_kept_when_a_run_writes_one_of_its_name(tmp_path):
    record.save_run(tmp_path, {})
    (tmp_path / "predictions.tsv").write_text("mine")
    results.save_table(tmp_path, [("row",)], "predictions.tsv")
    results.save_table(tmp_path, [("row",), (1,)], "predictions.tsv")
    assert (tmp_path / "predictions.tsv").read_text() == "row\n1\n"
    assert (tmp_path / "predictions.tsv.kept-1").read_text() == "mine"
    assert record.written(tmp_path) == {"run.json", "predictions.tsv"}


def test_a_checkpoint_is_hashed_once_as_long_as_it_stays_as_it_is(tmp_path, monkeypatch):
    write(tmp_path, 3)
    hashed = []
    monkeypatch.setattr(checkpoints, "_sha256", lambda path: hashed.append(path) or sha256(path))
    for _ in range(3):
        assert checkpoints.newest(tmp_path)[0] is not None
    assert len(hashed) == 2  # the files of one checkpoint
    (tmp_path / "checkpoint-3/model.safetensors").write_text("WEIGHTS")
    assert checkpoints.newest(tmp_path)[0] is None, "a change was overlooked"

"""What labels are taken for, which number each gets, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from triptych.arguments import LabelArguments
from triptych.data import columns, glue, label_schema
from triptych.errors import InputError, RunError
from triptych.metrics.labels import COMBINED, OF_KIND, by_label, names_for
from triptych.output import results

datasets = pytest.importorskip("datasets")

ARGS = SimpleNamespace(label_smoothing_factor=0.0)


def settle(model=None, flags=None, smoothing=0.0, **splits):
    """The labels and the configuration of rows, by split lists of labels, or datasets."""
    from transformers import BertConfig

    config = model or BertConfig()
    raw = {
        split: values if not isinstance(values, list) else datasets.Dataset.from_dict({"label": values})
        for split, values in splits.items()
    }
    data_args = LabelArguments(train_file="x", **(flags or {}))
    args = SimpleNamespace(label_smoothing_factor=smoothing)
    return label_schema.settle(config, raw, "label", data_args, args), config, raw


def a_model(names=("b", "a", "c"), kind="single_label_classification"):
    from transformers import BertConfig

    config = BertConfig(architectures=["BertForSequenceClassification"], problem_type=kind)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    return config


def problems(*arguments, **keywords):
    with pytest.raises(InputError) as caught:
        settle(*arguments, **keywords)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("values", "flags", "kind", "names", "targets"),
    [
        (["x", "B", "x"], {}, "SINGLE", ("B", "x"), [1, 0, 1]),
        ([10, 2, 10], {}, "SINGLE", ("2", "10"), [1, 0, 1]),
        (["10", "2", "-1"], {}, "SINGLE", ("-1", "2", "10"), [2, 1, 0]),
        ([True, False], {}, "SINGLE", ("False", "True"), [1, 0]),
        ([1.5, 2.0], {}, "REGRESSION", (), [1.5, 2.0]),
        ([1.0, 2.0], {"do_regression": False}, "SINGLE", ("1.0", "2.0"), [0, 1]),
        (["1.5", "2"], {"do_regression": True}, "REGRESSION", (), [1.5, 2.0]),
        ([["b", "a"], [], ["a"]], {}, "MULTI", ("a", "b"), [[1, 1], [0, 0], [1, 0]]),
        (["b; a", ";", "a"], {"label_delimiter": ";"}, "MULTI", ("a", "b"), [[1, 1], [0, 0], [1, 0]]),
        ([[3], [11, 3]], {}, "MULTI", ("3", "11"), [[1, 0], [1, 1]]),
    ],
)
def test_kind_and_numbers_follow_from_the_labels(values, flags, kind, names, targets):
    labels, config, _ = settle(train=values, flags=flags)
    assert labels.problem_type == config.problem_type == getattr(label_schema, kind)
    assert labels.names == names
    assert labels.encode(values) == targets
    assert config.num_labels == (len(names) or 1)
    if names:
        assert config.id2label == dict(enumerate(names))
        assert config.label2id == {name: number for number, name in enumerate(names)}


def test_classes_of_a_dataset_keep_their_order_and_names():
    features = datasets.Features({"label": datasets.ClassLabel(names=["neutral", "bad", "good"])})
    train = datasets.Dataset.from_dict({"label": [2, 1]}, features=features)
    test = datasets.Dataset.from_dict({"label": [-1, -1]}, features=features)
    labels, _, raw = settle(train=train, test=test)
    assert labels.names == ("neutral", "bad", "good")
    assert labels.encode([2, 0]) == [2, 0]
    assert raw["test"].column_names == []  # GLUE's way to say that there are no labels
    # The numbers of a dataset are not those of a model that has the classes in another order.
    labels, _, _ = settle(a_model(("good", "neutral", "bad")), train=train)
    assert labels.encode([2, 0]) == [0, 1]
    several = datasets.Features({"label": datasets.List(features["label"])})
    labels, _, _ = settle(train=datasets.Dataset.from_dict({"label": [[0, 2], []]}, features=several))
    assert labels.encode([[0, 2], []]) == [[1, 0, 1], [0, 0, 0]]


def test_a_model_keeps_its_order_in_training_and_without():
    for splits in ({"train": ["a", "b", "c"]}, {"train": ["c", "a"]}, {"validation": ["a", "b"]}, {}):
        labels, config, _ = settle(a_model(), **splits)
        assert labels.encode(["b", "a", "c"]) == [0, 1, 2], splits
        assert config.id2label == {0: "b", 1: "a", 2: "c"}


def test_other_labels_need_a_new_head():
    found = problems(a_model(), train=["a", "d", "e"])
    assert "The model knows labels b, a, c, but the rows have labels d, e" in found
    assert "--ignore_mismatched_sizes" in found
    labels, config, _ = settle(a_model(), train=["a", "d"], flags={"ignore_mismatched_sizes": True})
    assert labels.names == ("a", "d")
    assert config.num_labels == 2
    assert "values (a regression)" in problems(a_model(), train=[1.5, 2.5])
    assert "the rows have labels" in problems(a_model(), train=[["a"], ["b"]])


def test_a_model_of_values_stays_one_and_tells_what_is_no_number():
    model = a_model(("LABEL_0",), "regression")
    assert settle(model, train=["1", "2.5"])[0].encode(["1"]) == [1.0]
    assert "'high' in row 2" in problems(model, train=["1", "high"])


def test_names_like_label_0_are_no_names(caplog):
    labels, config, _ = settle(a_model(("LABEL_0", "LABEL_1", "LABEL_2")), train=[0, 2])
    assert labels.encode([2]) == [2]
    assert config.num_labels == 3
    labels, _, _ = settle(a_model(("LABEL_0", "LABEL_1")), train=["no", "yes"])
    assert labels.names == ("no", "yes")
    assert "no names" in caplog.text


def test_unseen_labels_are_listed_for_every_split():
    found = problems(train=["a", "b"], validation=["a", "x", "y", "x"], test=["z", "a"])
    assert "validation: labels that the model does not know: 'x' (row 2), 'y' (row 3)" in found
    assert "test: labels that the model does not know: 'z' (row 1)" in found
    assert "It knows: a, b" in found


def test_rows_to_predict_may_lack_labels():
    for values in ([None, None], ["", " "], ["-1", "-1"]):
        _, _, raw = settle(train=["a", "b"], test=values)
        assert raw["test"].column_names == []
    _, _, raw = settle(train=["-1", "1"], test=["-1", "1"])
    assert raw["test"].column_names == ["label"]


@pytest.mark.parametrize(
    ("train", "test", "flags", "answers", "decided", "targets"),
    [
        (["a", "b"], ["b", None, "a", ""], {}, [[0.2, 0.8]] * 4, [1, 1], [1, 0]),
        (["1", "2"], ["2.5", "", "1"], {"do_regression": True}, [1.5, 2.5, 3.5], [1.5, 3.5], [2.5, 1.0]),
        (
            ["a|b", "a"],
            ["b", "", "|"],
            {"label_delimiter": "|"},
            [[0.9, 0.9], [0.1, 0.1], [0.1, 0.9]],
            [[1, 1], [0, 1]],
            [[0, 1], [0, 0]],
        ),
    ],
)
def test_one_row_without_a_label_does_not_switch_off_the_score_of_all(
    train, test, flags, answers, decided, targets
):
    labels, _, raw = settle(train=train, test=test, flags=flags)
    predictions, references = labels.scored(answers, raw["test"])
    assert (predictions.tolist(), references) == (decided, targets)
    encoded = np.array(labels.encode(test))
    assert encoded.shape[0] == len(test)
    assert [number for number, row in enumerate(encoded) if (row == -100).all()] == [
        number for number, value in enumerate(test) if value in (None, "")
    ]


def test_rows_whose_class_is_minus_1_are_left_out(caplog):
    """As those of SNLI on which people did not agree."""
    features = datasets.Features({"label": datasets.ClassLabel(names=["yes", "no"])})
    rows = datasets.Dataset.from_dict({"label": [1, -1, 0]}, features=features)
    labels, _, raw = settle(train=rows, validation=rows, test=rows)
    assert [raw[split]["label"][:] for split in ("train", "validation", "test")] == [
        [1, 0],
        [1, 0],
        [1, -1, 0],
    ]
    assert "train: 1 of 3 rows left out, their label being -1: row 2" in caplog.text
    assert labels.scored([[0.1, 0.9]] * 3, raw["test"])[1] == [1, 0]
    _, _, raw = settle(a_model(("yes", "no")), train=rows.to_iterable_dataset())
    assert [row["label"] for row in raw["train"]] == [1, 0]
    assert "not one of 2 rows has a label" in problems(train=rows.select([1, 1]))


def test_label_that_no_model_knows_is_told_in_training_rows_as_well():
    features = datasets.Features({"label": datasets.ClassLabel(names=["yes", "no"])})
    rows = datasets.Dataset.from_dict({"label": [0, 1]}, features=features)
    table = rows.data.table.set_column(0, rows.data.table.schema.field(0), [[0, 7]])
    assert "train: labels that the model does not know: '7' (row 2)" in problems(
        train=datasets.Dataset(table, info=rows.info)
    )
    labels, _, _ = settle(train=["a", "b"])
    with pytest.raises(InputError, match="does not know the label 'c'"):
        labels.encode(["a", "c"])  # of a stream


def test_placeholder_in_a_file_to_predict_may_be_left_out():
    assert "'?' (row 1)" in (found := problems(train=["a", "b"], test=["?", "?"]))
    assert "leave the column out" in found
    assert "leave the column out" in problems(train=[1.5, 2.5], test=["?", "?"])
    assert "leave the column out" not in problems(train=["a", "b"], validation=["?", "?"])


def test_vectors_of_0_and_1_name_no_labels(caplog):
    for vectors, flags in (
        ([[1, 0, 1], [0, 0, 0]], {}),
        ([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], {}),
        ([[True, False, True], [False, False, False]], {}),
        (["1 0 1", "0 0 0"], {"label_delimiter": " "}),
    ):
        caplog.clear()
        labels, _, _ = settle(train=vectors, flags=flags)
        assert (labels.problem_type, labels.names) == (label_schema.MULTI, ("0", "1", "2"))
        assert labels.encode(vectors) == [[1, 0, 1], [0, 0, 0]]
        assert "vectors: each row says 0 or 1 of 3 labels" in caplog.text
    model = a_model(kind=label_schema.MULTI)
    labels, _, _ = settle(model, train=[[1, 0, 1], [0, 1, 0]])
    assert (labels.names, labels.encode([[1, 0, 0]])) == (("b", "a", "c"), [[1, 0, 0]])
    assert settle(model, validation=[[1, 0, 1]])[0].names == ("b", "a", "c")
    assert "has 3 labels, the rows say 0 or 1 of 2" in problems(model, validation=[[1, 0], [0, 0]])
    found = problems(train=[[1, 0, 1], [0, 0]])
    assert "train: [1, 0, 1] in row 1" in found
    assert "have another length: 2, 3" in found
    assert "holds decimals" in problems(train=[[0.3, 0.7], [0.5, 0.5]])
    # These are names.
    assert settle(train=[[0], [1], []])[0].encode([[1]]) == [[0, 1]]
    assert settle(train=[[0, 1], [0]])[0].encode([[0]]) == [[1, 0]]


def test_lists_written_as_text_are_no_names():
    for values in (["[1, 0, 1]", "[0, 0, 1]"], ["['a', 'b']", "[]"]):
        found = problems(train=values)
        assert f"{values[0]!r} in row 1" in found
        assert "--label_delimiter" in found
    assert settle(train=["[a]", "b"])[0].names == ("[a]", "b")


def test_numbers_in_text_are_in_order_and_many_of_them_are_doubted(caplog):
    values = [f"{number}.0" for number in range(11)]
    assert settle(train=values)[0].names == tuple(values)
    assert "--do_regression" not in caplog.text
    settle(train=[f"{number / 7:.3f}" for number in range(20)])
    assert "20 different ones such as 0.143: --do_regression" in caplog.text


def test_answers_that_are_no_numbers_end_the_run():
    labels, _, _ = settle(train=["a", "b"])
    with pytest.raises(RunError, match="nan"):
        labels.decide([[float("nan")] * 2])


def best(name, kind=label_schema.SINGLE, asked=None, **flags):
    given = {"do_train": True, "eval_strategy": "steps", "metric_for_best_model": name}
    return names_for(kind, asked, SimpleNamespace(**given | flags))


def test_metric_of_the_best_checkpoint_is_one_that_the_labels_can_give():
    assert best("f1") == [*best("loss"), "f1"]
    assert best("eval_accuracy", asked="f1") == ["f1", "accuracy"]
    assert best("accuracy") == best(None)
    with pytest.raises(InputError, match=r"--metric_for_best_model pearson: for a single label .* f1_macro"):
        best("pearson")
    assert best("pearson", do_train=False) == best("loss")
    possible = {name for names, _ in OF_KIND.values() for name in names}
    assert set(LabelArguments.scores) == {*possible, COMBINED}


def test_metrics_of_each_glue_task_are_asked_for_without_a_complaint():
    for _, asked in glue.TASKS.values():
        assert {*asked.split(",")} <= {*LabelArguments.scores}


def test_what_cannot_be_learnt_is_refused():
    assert "the same label, 'a'" in problems(train=["a", "a"])
    assert "2 of 3 labels are not a number: 'x' in row 2, 'nan' in row 3" in problems(
        train=["1", "x", "nan"], flags={"do_regression": True}
    )
    assert "not one label: ['a', 'b'] in row 1" in problems(a_model(), validation=[["a", "b"]])
    assert "no labels to smooth" in problems(train=[0.5, 1.5], smoothing=0.1)
    assert "no head that knows labels" in problems()
    stream = datasets.Dataset.from_dict({"label": ["a", "b"]}).to_iterable_dataset()
    assert "streamed rows" in problems(train=stream)
    assert settle(a_model(), train=stream)[0].names == ("b", "a", "c")


def test_a_value_of_minus_100_counts():
    labels, _, _ = settle(train=[-100.0, 1.5])
    (encoded, _) = np.array(labels.encode([-100.0, 1.5]), np.float32)
    assert encoded != -100
    assert encoded == pytest.approx(-100)


def test_saved_predictions_are_read_back_with_their_words(tmp_path):
    labels = label_schema.Labels("label", label_schema.SINGLE, ("tab\there", 'quote "q"'))
    answers = [[0.25, 0.75], [0.9, 0.1]]
    results.save_table(tmp_path, labels.table(answers, [1, 2]), "predictions.tsv")
    import csv

    with open(tmp_path / "predictions.tsv", newline="") as file:
        assert list(csv.reader(file, delimiter="\t")) == [
            ["row", "label", "probability"],
            ["1", 'quote "q"', "0.7500"],
            ["2", "tab\there", "0.9000"],
        ]
    scored = labels.scored(answers, datasets.Dataset.from_dict({"label": ['quote "q"'] * 2}))
    assert by_label(scored, labels.names)['quote "q"'] == {
        "precision": 1,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "rows": 2,
        "predicted": {'quote "q"': 1, "tab\there": 1},
    }

    several = label_schema.Labels("label", label_schema.MULTI, ("a", "b"), delimiter="|")
    table = several.table([[0.6, 0.7], [0.1, 0.2]], [4, 9])
    assert table[1:] == [(4, "a|b", "0.6000|0.7000"), (9, "", "")]
    values = label_schema.Labels("label", label_schema.REGRESSION)
    assert values.table([1 / 3], [7]) == [("row", "value"), (7, "0.333333")]


def test_glue_fills_in_what_is_not_said():
    def arguments(**given):
        filled = LabelArguments()
        vars(filled).update({"task_name": None, "text_column_names": None} | given)
        glue.fill_in(filled)
        return filled

    mnli = arguments(task_name="mnli")
    assert (mnli.dataset_name, mnli.dataset_config_name) == ("nyu-mll/glue", "mnli")
    assert columns.text_roles(mnli.text_column_names) == {"text": "premise", "text_pair": "hypothesis"}
    own = arguments(task_name="stsb", train_file="mine.csv", metric_name="pearson")
    assert (own.dataset_name, own.metric_name, own.do_regression) == (None, "pearson", True)
    assert len(glue.TASKS) == 9
    kinds = {task: "regression" if task == "stsb" else "single_label_classification" for task in glue.TASKS}
    for task, kind in kinds.items():
        assert names_for(
            kind, glue.TASKS[task][1], SimpleNamespace(do_train=False, metric_for_best_model=None)
        )


def test_the_flag_of_a_column_is_told_by_its_name(tmp_path):
    from dataclasses import dataclass

    @dataclass
    class Arguments(LabelArguments):
        text_column_names: str | None = None

        def wanted_columns(self):
            return {**columns.text_roles(self.text_column_names), "label": self.label_column_name}

    (tmp_path / "rows.csv").write_text("premise,hypothesis,gold\na,b,c\n")
    file = str(tmp_path / "rows.csv")
    found = "\n".join(Arguments(train_file=file, text_column_names="premise,hypotesis").problems())
    assert "--text_column_names 'hypotesis': no such column; did you mean 'hypothesis'?" in found
    assert "Name it with --label_column_name" in found
    assert Arguments(test_file=file, text_column_names="premise,hypothesis").problems() == []

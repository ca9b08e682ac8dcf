"""The tasks of GLUE (Wang et al. 2018, arXiv:1804.07461), and XNLI (Conneau et al. 2018, 1809.05053)."""

from typing import Any

# By name: the columns of the texts, and the metrics
TASKS: dict[str, tuple[str, str]] = {
    "cola": ("sentence", "matthews_correlation"),
    "mnli": ("premise,hypothesis", "accuracy"),
    "mrpc": ("sentence1,sentence2", "accuracy,f1,combined_score"),
    "qnli": ("question,sentence", "accuracy"),
    "qqp": ("question1,question2", "accuracy,f1,combined_score"),
    "rte": ("sentence1,sentence2", "accuracy"),
    "sst2": ("sentence", "accuracy"),
    "stsb": ("sentence1,sentence2", "pearson,spearman,combined_score"),
    "wnli": ("sentence1,sentence2", "accuracy"),
}


def fill_in(data_args: Any) -> None:
    """Fills in what the flag task_name, a task of GLUE, leaves to be said: dataset_name and
    dataset_config_name if there are no own files, text_column_names, metric_name, and do_regression for the
    task with values. The flag language alone stands for XNLI."""
    own = (data_args.dataset_name, data_args.train_file, data_args.validation_file, data_args.test_file)
    if data_args.language and not data_args.task_name:
        if not any(own):
            data_args.dataset_name = "facebook/xnli"
        data_args.dataset_config_name = data_args.dataset_config_name or data_args.language
    if data_args.task_name not in TASKS:
        return
    texts, metrics = TASKS[data_args.task_name]
    if not any(own):
        data_args.dataset_name, data_args.dataset_config_name = "nyu-mll/glue", data_args.task_name
    data_args.text_column_names = data_args.text_column_names or texts
    data_args.metric_name = data_args.metric_name or metrics
    data_args.do_regression = data_args.do_regression or (data_args.task_name == "stsb" or None)

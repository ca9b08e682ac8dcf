"""The flags that every task has, with the names and defaults of `transformers.TrainingArguments`."""

import dataclasses
import functools
import importlib.util
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from triptych import launchers
from triptych.data import (
    NUMBER,
    PHASES,
    answer_spans,
    choice_columns,
    choice_rows,
    columns,
    dialogues,
    documents,
    is_stream,
    join_texts,
    language_codes,
    noise,
    packing,
    pairs,
    pictures,
    questions,
    readers,
    tagged_rows,
)
from triptych.errors import InputError
from triptych.metrics import fillings, perplexity, translation
from triptych.models.tensor_files import OPTIMIZER
from triptych.output import checkpoints, ownership, reporting
from triptych.schedule import SCHEDULES

IMAGE = "image"  # the role of a column of pictures
LENGTHS = ("max_seq_length", "max_source_length", "max_target_length")  # flags, in tokens, of a task
FALLING = (*translation.FALLING, *perplexity.FALLING)  # metrics: the lower, the better


def flag(default: Any, help: str, choices: tuple[str, ...] | None = None, free: bool = False) -> Any:
    """One flag of an arguments dataclass.

    Args:
        free: whether it may differ when a run is continued. Flags that choose the rows may: they count by the
            rows themselves. So may those that choose the number of steps: they count by the learning rates of
            the steps already done.
    """
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "free": free})


@dataclass
class StartArguments:
    """Model"""

    model_name_or_path: str | None = flag(
        None, "checkpoint to start from: a local folder or a name on the hub"
    )
    config_name: str | None = flag(None, "configuration (folder or hub name) of a model trained from scratch")
    model_type: str | None = flag(
        None, "architecture of a model trained from scratch with default sizes, e.g. t5"
    )
    config_overrides: str | None = flag(None, "changes to the configuration: d_model=128,num_layers=2")
    model_revision: str = flag("main", "branch, tag or commit of the model on the hub")
    cache_dir: str | None = flag(
        None, "where models and data from the hub are kept (default: HF_HOME)", free=True
    )
    trust_remote_code: bool = flag(False, "run code that comes with a model or dataset on the hub", free=True)

    def problems(self) -> list[str]:
        """What is wrong with the values, as far as it can be told without loading anything."""
        found = []
        if not (self.model_name_or_path or self.config_name or self.model_type):
            found.append(
                "No model: give --model_name_or_path, or --config_name or --model_type to train from scratch."
            )
        if self.model_name_or_path and (self.config_name or self.model_type):
            found.append(
                "--model_name_or_path starts from a checkpoint, --config_name and --model_type from scratch: "
                "give one or the other."
            )
        for name, needs in (
            ("model_name_or_path", "config.json"),
            ("config_name", "config.json"),
            ("tokenizer_name", "tokenizer_config.json"),
            ("image_processor_name", "preprocessor_config.json"),
        ):
            value = getattr(self, name, None)
            if value and Path(value).is_dir():
                if not (Path(value) / needs).is_file():
                    found.append(f"--{name} {value}: the folder holds no {needs}.")
            elif value and (
                value.count("/") > 1 or value.startswith((".", "/", "~")) or Path(value).exists()
            ):
                found.append(f"--{name} {value}: there is no such folder.")
        for part in (self.config_overrides or "").split(","):
            if part and "=" not in part:
                found.append(f"--config_overrides: {part!r} is not of the form name=value.")
        return found


@dataclass
class ModelArguments(StartArguments):
    """Tokenizer"""

    tokenizer_name: str | None = flag(None, "tokenizer (folder or hub name), if it is not the model's own")

    def problems(self) -> list[str]:
        found = super().problems()
        if not self.model_name_or_path and not self.tokenizer_name:
            found.append(
                "A model from scratch needs --tokenizer_name; `python -m triptych.samples tokenizer -h` "
                "tells how to train one on your text."
            )
        return found


@dataclass
class PictureModelArguments(StartArguments):
    """Image processor"""

    image_processor_name: str | None = flag(
        None, "what pictures become for the model (folder or hub name), if it is not the model's own"
    )


@dataclass
class DataArguments:
    """Data"""

    dataset_name: str | None = flag(None, "dataset: a name on the hub or a local folder", free=True)
    dataset_config_name: str | None = flag(None, "configuration of the dataset, e.g. 3.0.0", free=True)
    train_file: str | None = flag(
        None, "training rows: .csv .tsv .json .jsonl .parquet .txt, also .gz; a,b or a glob", free=True
    )
    validation_file: str | None = flag(None, "validation rows, likewise", free=True)
    test_file: str | None = flag(None, "rows to predict, likewise", free=True)
    train_split_name: str | None = flag(None, "split of the dataset to train on (default: train)", free=True)
    validation_split_name: str | None = flag(
        None, "split to evaluate on (default: validation, dev ...)", free=True
    )
    test_split_name: str | None = flag(None, "split to predict (default: test)", free=True)
    remove_splits: str | None = flag(None, "splits that are not to be used: a,b", free=True)
    remove_columns: str | None = flag(None, "columns that are not to be used: a,b", free=True)
    shuffle_train_dataset: bool = flag(
        False, "shuffle the training rows before --max_train_samples takes the first of them"
    )
    shuffle_seed: int = flag(42, "seed of that")
    max_train_samples: int | None = flag(None, "use at most this many training rows", free=True)
    max_eval_samples: int | None = flag(None, "use at most this many validation rows", free=True)
    max_predict_samples: int | None = flag(None, "use at most this many rows to predict", free=True)
    preprocessing_num_workers: int | None = flag(None, "processes that tokenize", free=True)
    overwrite_cache: bool = flag(False, "read and tokenize again instead of using cached results", free=True)
    streaming: bool = flag(False, "read training rows as they are needed (with --max_steps)")

    predicted_roles: ClassVar[tuple[str, ...]] = ()  # roles of the columns that a task predicts
    kept_columns: ClassVar[tuple[str, ...]] = ()  # names of columns that stay with the rows if they are there
    value_roles: ClassVar[tuple[str, ...]] = ()  # of these, columns of any values, not of text
    list_roles: ClassVar[tuple[str, ...]] = ()  # roles of columns of lists of texts
    writes: ClassVar[bool] = False  # whether a decoder learns to write texts, with an end and in a language
    generates: ClassVar[bool] = False  # whether its answers are such texts
    media_roles: ClassVar[tuple[str, ...]] = ()  # roles of columns of pictures: paths, or files' bytes
    unit: ClassVar[str] = "tokens"  # what training's progress counts
    has_lengths: ClassVar[bool] = True  # whether rows differ in length
    needs_padding: ClassVar[bool] = True  # whether the tokenizer must have a token to fill batches with
    needs_mask: ClassVar[bool] = False  # whether it must have one that hides others
    # Metrics of an evaluation that may choose the best checkpoint; None where they are not known beforehand
    scores: ClassVar[tuple[str, ...] | None] = None

    def config_of(self, split: str) -> str | None:
        """The configuration of the dataset that a split is taken from."""
        return self.dataset_config_name

    def source(self, split: str) -> str | None:
        """What is given on this machine for the rows of a split: files, or of pictures a folder."""
        return getattr(self, f"{split}_file")

    def source_flag(self, split: str) -> str:
        """The flag that gives it."""
        return f"{split}_file"

    def holds_out(self) -> bool:
        """Whether the rows to evaluate are a share of the training rows; see `hold_out`."""
        return False

    def hold_out(self, rows: Any, columns: dict[str, str], seed: int) -> dict[str, Any]:
        """Training rows and rows to evaluate, from those that there are, of a task that has a flag for it.

        Args:
            columns: by role, in these rows.
        """
        raise NotImplementedError

    def wanted_columns(self) -> dict[str, str | None]:
        """Column by role, as given on the command line; a task with columns says which."""
        return {}

    def column_flag(self, role: str) -> str:
        """The flag that names the column of a role; one for a text and its pair."""
        stem = f"{role.removesuffix('_pair')}_column"
        names = (f"{stem}_names", f"{stem}_name")
        return f"--{next((name for name in names if hasattr(self, name)), stem)}"

    def names_in_order(self) -> dict[str, tuple[str, ...]]:
        """Usual names of columns by role, see `columns.resolve`; a task that has several says which."""
        return {}

    def joined_columns(self) -> list[str]:
        """Columns whose texts `prepare` joins to one; a task with texts says which."""
        return []

    def aligned_files(self, split: str) -> dict[str, str]:
        """Files of a split whose lines belong together, by the column that each becomes; a task that has such
        says which."""
        return {}

    def peek(self, split: str) -> tuple[list[str], list[str]]:
        """Column names in the files of a split, and what is wrong with them, by the flag; see
        `readers.peek`."""
        available, wrong = readers.peek(str(self.source(split)), format=getattr(self, "format", None))
        return available, [f"--{self.source_flag(split)}: {problem}" for problem in wrong]

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        """What a task makes of raw rows, as many as there were, before empty ones are left out; with column
        by role in them.

        Args:
            rows: as they are in their source.
            columns: by role, as `resolve_columns` gives them.
        """
        return rows, columns

    def condense(self, answer: Any) -> Any:
        """What is kept of the answer to a row until all rows have theirs, for a task that needs less than the
        device gives."""
        return answer

    def resolve_columns(
        self, available: list[str], split: str, tell: bool = True, before: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Column by role for one split; rows of the test split may lack those of `predicted_roles`.

        Args:
            available: names of the columns there are.
            tell: whether the log says what was taken.
            before: column by role of the splits before.

        Raises:
            InputError: see `columns.resolve`.
        """
        removed = [name.strip() for name in (self.remove_columns or "").split(",")]
        available = [name for name in available if name not in removed]
        wanted, several = self.wanted_columns(), self.joined_columns()
        flags = {role: self.column_flag(role) for role in wanted}
        if lacking := [name for name in several if name not in available]:
            there_are = f"there are: {', '.join(available) or 'none'}"
            raise InputError([f"{flags['text']} {name!r}: no such column; {there_are}." for name in lacking])
        if several:
            available = [*available, columns.name_of_joined(several)]
        resolve = functools.partial(
            columns.resolve,
            available,
            dataset_name=self.dataset_name,
            flags=flags,
            tell=tell,
            before=before,
            in_order=self.names_in_order(),
        )
        if not split.startswith("test"):
            return resolve(wanted)
        try:
            return resolve(wanted, not_guessed=self.predicted_roles)
        except InputError:
            return resolve({role: name for role, name in wanted.items() if role not in self.predicted_roles})

    def problems(self) -> list[str]:
        """What is wrong with the values and the first rows of the files, without loading a dataset."""
        found = []
        sources = {split: value for split in PHASES.values() if (value := self.source(split)) is not None}
        flags = [f"--{self.source_flag(split)}" for split in sources]
        if self.dataset_name and sources:
            found.append(f"--dataset_name and {flags[0]} name two sources of data: give one of them.")
        if not self.dataset_name and not sources:
            found.append("No data: give --dataset_name, or --train_file, --validation_file, --test_file.")
        splits = ("train_split_name", "validation_split_name", "test_split_name", "remove_splits")
        if sources and (of_datasets := [name for name in splits if getattr(self, name)]):
            found.append(
                f"--{of_datasets[0]} is for --dataset_name; own files are splits by their flags: "
                f"{', '.join(flags)}."
            )
        at_least = dict.fromkeys(("max_train_samples", "max_eval_samples", "max_predict_samples"), 1)
        at_least |= dict.fromkeys(("preprocessing_num_workers", "num_beams", *LENGTHS), 1)
        # A generated text has the decoder's start and at least one token more.
        at_least |= dict.fromkeys(("max_target_length", "val_max_target_length"), 2)
        for name, least in at_least.items():
            if (value := getattr(self, name, None)) is not None and value < least:
                found.append(f"--{name} {value}: must be at least {least}.")
        before: dict[str, str] = {}
        for split, value in sources.items():
            available, wrong = self.peek(split)
            found += wrong
            if available:
                try:
                    before |= self.resolve_columns(available, split, tell=False, before=before)
                except InputError as error:
                    found += [f"{value}: {problem}" for problem in error.problems]
        return found


@dataclass
class LabelledArguments(DataArguments):
    """Labels"""

    label_column_name: str | None = flag(None, "column of the labels (default: found by its name)")
    label_delimiter: str | None = flag(None, "what stands between the labels of a row that may have several")
    do_regression: bool | None = flag(None, "predict values (default: if the labels have decimals)")
    metric_name: str | None = flag(
        None, "metrics, e.g. accuracy,f1 (default: those usual for the labels)", free=True
    )
    ignore_mismatched_sizes: bool = flag(False, "replace a head that was trained for other labels")

    predicted_roles: ClassVar[tuple[str, ...]] = ("label",)
    value_roles: ClassVar[tuple[str, ...]] = ("label",)

    scores: ClassVar[tuple[str, ...]] = (
        *("accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "matthews_correlation"),
        *("pearson", "spearman", "mean_squared_error", "combined_score"),
    )

    def problems(self) -> list[str]:
        found = super().problems()
        unknown = {name.strip() for name in (self.metric_name or "").split(",")} - {"", *self.scores}
        return found + [
            f"--metric_name {name}: there is no such metric; there are: {', '.join(self.scores)}."
            for name in sorted(unknown)
        ]


@dataclass
class LabelArguments(LabelledArguments):
    """Texts and labels"""

    text_column_delimiter: str | None = flag(
        None, 'join the texts of the columns of --text_column_names by this (of more than two: default " ")'
    )
    language: str | None = flag(None, "language of XNLI, if no other data are given, e.g. de", free=True)
    train_language: str | None = flag(None, "language of its training rows (default: --language)", free=True)

    def joined_columns(self) -> list[str]:
        return columns.joined(getattr(self, "text_column_names", None), self.text_column_delimiter)

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        several = self.joined_columns()
        return (join_texts(rows, several, self.text_column_delimiter) if several else rows), columns

    def config_of(self, split: str) -> str | None:
        """The languages of XNLI are configurations of it."""
        own = self.train_language if split == "train" else None
        return own or self.dataset_config_name

    def problems(self) -> list[str]:
        found = super().problems()
        if self.train_language and not self.language:
            found.append("--train_language needs --language, that of the rows to evaluate and to predict.")
        if self.language and not self.dataset_name:
            found.append("--language is for datasets of the hub; own files need none.")
        return found


@dataclass
class PictureArguments(DataArguments):
    """Pictures"""

    train_dir: str | None = flag(
        None, "folder of training pictures: a folder for each class, or with a metadata.csv", free=True
    )
    validation_dir: str | None = flag(None, "folder of pictures to evaluate, likewise", free=True)
    test_dir: str | None = flag(None, "folder of pictures to predict, likewise or without classes", free=True)
    train_val_split: float | None = flag(
        None, "evaluate on this share of the training pictures, told apart by a hash and --seed, e.g. 0.1"
    )
    image_column_name: str | None = flag(
        None, "column of the pictures: paths or files' bytes (default: found by its name)"
    )
    image_size: int | None = flag(
        None, "height and width of what the model sees (default: as its image processor says)"
    )
    freeze_backbone: bool = flag(False, "train the head alone")
    augment: str = flag(
        "none",
        "what training pictures get by chance: nothing; crops, mirrored; or these changed by TrivialAugment",
        pictures.AUGMENTATIONS,
    )
    crop_scale: float = flag(0.08, "least share of a picture that a crop shows")
    horizontal_flip: bool = flag(True, "mirror half of the crops; not for letters, or where sides matter")

    media_roles: ClassVar[tuple[str, ...]] = (IMAGE,)
    unit: ClassVar[str] = "images"
    has_lengths: ClassVar[bool] = False

    def source(self, split: str) -> str | None:
        folder = getattr(self, f"{split}_dir")
        return (pictures.metadata_of(folder) or folder) if folder else super().source(split)

    def source_flag(self, split: str) -> str:
        return f"{split}_dir" if getattr(self, f"{split}_dir") else super().source_flag(split)

    def holds_out(self) -> bool:
        return self.train_val_split is not None

    def hold_out(self, rows: Any, columns: dict[str, str], seed: int) -> dict[str, Any]:
        return pictures.held_out(rows, columns[IMAGE], self.train_val_split or 0.0, seed)

    def wanted_columns(self) -> dict[str, str | None]:
        return {IMAGE: self.image_column_name}

    def column_flag(self, role: str) -> str:
        return "--image_column_name" if role == IMAGE else super().column_flag(role)

    def resolve_columns(
        self, available: list[str], split: str, tell: bool = True, before: dict[str, str] | None = None
    ) -> dict[str, str]:
        own = (pictures.FOLDER, pictures.SIZE)
        return super().resolve_columns([name for name in available if name not in own], split, tell, before)

    def peek(self, split: str) -> tuple[list[str], list[str]]:
        source = str(self.source(split))
        if source != getattr(self, f"{split}_dir"):
            return super().peek(split)
        flag = self.source_flag(split)
        return [], [f"--{flag}: {problem}" for problem in pictures.folder_problems(source, split)]

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        return (rows if is_stream(rows) else pictures.readable(rows, columns[IMAGE], split)), columns

    def problems(self) -> list[str]:
        found = super().problems()
        if self.dataset_name and pictures.is_folder_of_pictures(self.dataset_name):
            found.append(
                f"--dataset_name {self.dataset_name} is a folder of pictures: give --train_dir, "
                "--validation_dir, --test_dir."
            )
        both = [s for s in PHASES.values() if getattr(self, f"{s}_dir") and getattr(self, f"{s}_file")]
        found += [f"--{split}_dir and --{split}_file: give one of them." for split in both]
        share = self.train_val_split
        if share is not None and not 0 < share < 1:
            found.append(f"--train_val_split {share:g}: must be above 0 and below 1.")
        if share is not None and self.source("validation"):
            found.append(
                "--train_val_split takes the rows to evaluate from the training rows, "
                f"--{self.source_flag('validation')} from elsewhere: give one of them."
            )
        if self.streaming and (share is not None or self.train_dir):
            flag = "train_dir" if self.train_dir else "train_val_split"
            found.append(f"--streaming is for files and datasets, not for --{flag}: leave it out.")
        if self.image_size is not None and self.image_size < 1:
            found.append(f"--image_size {self.image_size}: must be at least 1.")
        if not 0 < self.crop_scale <= 1:
            found.append(f"--crop_scale {self.crop_scale:g}: must be above 0 and at most 1.")
        if self.augment == "none":
            changed = {"crop_scale": 0.08, "horizontal_flip": True}
            found += [
                f"--{name} is for --augment crop or trivial: pictures are seen whole else."
                for name, default in changed.items()
                if getattr(self, name) != default
            ]
        return found


@dataclass
class TaggingArguments(DataArguments):
    """Words and tags"""

    text_column_name: str | None = flag(
        None, "column of the words, or of texts whose tags are spans (default: found by its name)"
    )
    label_column_name: str | None = flag(
        None, "column of the tags or spans (default: found by its name, first <task_name>_tags)"
    )
    task_name: str = flag("ner", "what the tags are: entities, parts of speech, chunks", tuple(columns.TAGS))
    format: str | None = flag(
        None,
        "what the files are, if their extension does not say it (.conll .conllu .iob .iob2 .bio)",
        ("conll",),
        free=True,
    )
    scheme: str | None = flag(
        None,
        "how tags mark where entities begin and end (default: told from the tags)",
        ("iob1", "iob2", "iobes", "bilou", "none"),
    )
    repair_tags: bool = flag(False, "mend tags that break the scheme, as conlleval reads them")
    max_seq_length: int | None = flag(
        None,
        "longest window in tokens (default: the model's own, at most 512); longer rows are read in several",
    )
    stride: int = flag(32, "tokens that a window shares with the next")
    ignore_mismatched_sizes: bool = flag(False, "replace a head that was trained for other tags")
    constrained_decoding: bool = flag(
        False,
        "predict the likeliest sequence of tags that the scheme allows, not each tag by itself",
        free=True,
    )
    return_entity_level_metrics: bool = flag(
        True, "write the metrics of each label, too, as eval_by_label", free=True
    )

    predicted_roles: ClassVar[tuple[str, ...]] = ("tags",)
    value_roles: ClassVar[tuple[str, ...]] = ("tags",)
    list_roles: ClassVar[tuple[str, ...]] = ("tokens",)
    scores: ClassVar[tuple[str, ...]] = ("precision", "recall", "f1", "f1_macro", "accuracy")

    def wanted_columns(self) -> dict[str, str | None]:
        return {"tokens": self.text_column_name, "tags": self.label_column_name}

    def column_flag(self, role: str) -> str:
        return {"tokens": "--text_column_name", "tags": "--label_column_name"}[role]

    def names_in_order(self) -> dict[str, tuple[str, ...]]:
        return {"tokens": columns.TOKENS, "tags": columns.TAGS[self.task_name]}

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        return tagged_rows.prepare(rows, columns, split, self.overwrite_cache)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.stride < 0:
            found.append(f"--stride {self.stride}: must be at least 0.")
        if self.max_seq_length is not None and self.stride >= self.max_seq_length:
            found.append(
                f"--stride {self.stride}: must be less than --max_seq_length, {self.max_seq_length}, so that "
                "the next window gets further."
            )
        scheme = "none" if self.task_name == "pos" else self.scheme
        why = "--task_name pos" if self.task_name == "pos" else "--scheme none"
        if self.task_name == "pos" and self.scheme not in (None, "none"):
            found.append(
                f"--scheme {self.scheme}: --task_name pos has tags of single words, without a scheme."
            )
        for name in ("repair_tags", "constrained_decoding"):
            if scheme == "none" and getattr(self, name):
                found.append(f"--{name} is for tags with a scheme; with {why} any may follow any.")
        return found


@dataclass
class QuestionArguments(DataArguments):
    """Questions and contexts"""

    question_column: str | None = flag(None, "column of the questions (default: found by its name)")
    context_column: str | None = flag(None, "column of the texts that hold the answers, likewise")
    answer_column: str | None = flag(
        None, "column of the answers: texts with their places as SQuAD has them, or texts, likewise"
    )
    max_seq_length: int | None = flag(
        None,
        "longest window in tokens (default: 384, if the model has room for it); longer contexts have several",
    )
    doc_stride: int | None = flag(
        None,
        "tokens of the context that a window shares with the next (default: 128, or a third of the window)",
    )
    version_2_with_negative: bool = flag(False, "some questions have no answer in their context")
    null_score_diff_threshold: float = flag(
        0.0, "no answer is given if it scores higher than the best span by more than this", free=True
    )
    null_threshold: str | None = flag(
        None,
        "auto: the threshold with which the validation rows have the best F1, kept with the model",
        ("auto",),
        True,
    )
    n_best_size: int = flag(20, "candidates that are kept, and written, for each row", free=True)
    max_answer_length: int = flag(30, "longest answer in tokens", free=True)

    predicted_roles: ClassVar[tuple[str, ...]] = (questions.ANSWERS,)
    value_roles: ClassVar[tuple[str, ...]] = (questions.ANSWERS,)
    scores: ClassVar[tuple[str, ...]] = (
        *("exact_match", "exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"),
        *("best_exact", "best_f1"),
    )

    def wanted_columns(self) -> dict[str, str | None]:
        named = {"question": self.question_column, "context": self.context_column}
        return {**named, questions.ANSWERS: self.answer_column}

    def column_flag(self, role: str) -> str:
        return "--answer_column" if role == questions.ANSWERS else super().column_flag(role)

    def names_in_order(self) -> dict[str, tuple[str, ...]]:
        return questions.NAMES

    def resolve_columns(
        self, available: list[str], split: str, tell: bool = True, before: dict[str, str] | None = None
    ) -> dict[str, str]:
        found = super().resolve_columns(available, split, tell, before)
        return found | questions.more_columns(available, found, self.remove_columns)

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        return questions.prepare(rows, columns, split, self)

    def condense(self, answer: Any) -> Any:
        return answer_spans.best(answer, self.n_best_size, self.max_answer_length)

    def problems(self) -> list[str]:
        found = super().problems()
        at_least = {"n_best_size": 1, "max_answer_length": 1, "doc_stride": 0}
        found += [
            f"--{name} {value}: must be at least {least}."
            for name, least in at_least.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        longest, shared = self.max_seq_length, self.doc_stride
        if longest is not None and shared is not None and shared >= longest:
            found.append(
                f"--doc_stride {shared}: must be less than --max_seq_length, {longest}, so that the next "
                "window gets further."
            )
        if self.null_threshold and self.null_score_diff_threshold:
            found.append("--null_threshold auto chooses --null_score_diff_threshold: give one of them.")
        for name in ("null_threshold", "null_score_diff_threshold"):
            if getattr(self, name) and not self.version_2_with_negative:
                found.append(f"--{name} is for --version_2_with_negative: else every question has an answer.")
        return found


@dataclass
class ChoiceArguments(DataArguments):
    """Questions and choices"""

    context_column: str | None = flag(
        None, "column of the text that a question is about; it alone is cut (default: found by its name)"
    )
    question_column: str | None = flag(
        None, "column of the question, likewise; one of the two may be missing"
    )
    choices_columns: str | None = flag(
        None, "column of lists of choices, or those of a choice each: a,b,c,d (default: found by their names)"
    )
    label_column_name: str | None = flag(None, "column of the right choice (default: found by its name)")
    first_choice_number: int | None = flag(
        None, "what labels that are numbers call the first choice: 0 or 1 (default: told from all labels)"
    )
    max_seq_length: int | None = flag(
        None, "most tokens of a choice with what stands before it (default: the model's own, at most 512)"
    )
    ignore_mismatched_sizes: bool = flag(False, "replace a head that was trained for something else")

    predicted_roles: ClassVar[tuple[str, ...]] = ("label",)
    value_roles: ClassVar[tuple[str, ...]] = ("label",)
    list_roles: ClassVar[tuple[str, ...]] = ("question", "choices")
    scores: ClassVar[tuple[str, ...]] = ("accuracy",)

    def wanted_columns(self) -> dict[str, str | None]:
        names = (self.context_column, self.question_column, self.choices_columns, self.label_column_name)
        return dict(zip(choice_columns.FLAGS, names, strict=True))

    def column_flag(self, role: str) -> str:
        return choice_columns.flag(role)

    def resolve_columns(
        self, available: list[str], split: str, tell: bool = True, before: dict[str, str] | None = None
    ) -> dict[str, str]:
        removed = [name.strip() for name in (self.remove_columns or "").split(",")]
        available = [name for name in available if name not in removed]
        given = choice_columns.wanted(self.wanted_columns())
        is_test = split.startswith("test")
        if is_test and given.get("label") not in available:
            given.pop("label", None)
        return choice_columns.find(available, given, not is_test, tell, before)

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        return choice_rows.prepare(rows, columns, split, self)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.first_choice_number not in (None, 0, 1):
            found.append(f"--first_choice_number {self.first_choice_number}: must be 0 or 1.")
        return found


@dataclass
class Seq2SeqArguments(DataArguments):
    """Texts and generation"""

    source_prefix: str = flag("", 'put before every text; T5 was pretrained with "summarize: "')
    max_source_length: int = flag(1024, "cut texts to this many tokens")
    max_target_length: int = flag(128, "cut targets to this many tokens in training")
    val_max_target_length: int | None = flag(
        None, "longest generated text (default: --max_target_length)", free=True
    )
    pad_to_max_length: bool = flag(False, "pad batches to the maximum lengths instead of their longest rows")
    ignore_pad_token_for_loss: bool = flag(True, "leave padding of the targets out of the loss")
    num_beams: int | None = flag(
        None, "beams of the search in generation (default: as the checkpoint says)", free=True
    )
    forced_bos_token: str | None = flag(
        None, "first generated token of a multilingual model (default: the language's)", free=True
    )
    resize_position_embeddings: bool = flag(False, "enlarge a position table that is shorter than the texts")

    writes: ClassVar[bool] = True
    generates: ClassVar[bool] = True


@dataclass
class PairArguments(Seq2SeqArguments):
    """Sources and targets"""

    source_lang: str | None = flag(
        None, "language of the sources, as tokenizer or pairs spell it: en, en_XX, eng_Latn"
    )
    target_lang: str | None = flag(None, "language of the targets, likewise")
    max_source_length: int = flag(512, "cut sources to this many tokens")  # a Marian has room for no more
    source_column: str | None = flag(None, "column of the sources (default: found by its name)")
    target_column: str | None = flag(None, "column of the targets, likewise")
    source_lang_column: str | None = flag(
        None, "column of each source's language, where a file has several directions"
    )
    target_lang_column: str | None = flag(None, "column of each target's language, likewise")
    train_target_file: str | None = flag(
        None, "targets, where --train_file has a source a line: as many lines, in the same order", free=True
    )
    validation_target_file: str | None = flag(None, "likewise of --validation_file", free=True)
    test_target_file: str | None = flag(None, "likewise of --test_file", free=True)
    predicted_roles: ClassVar[tuple[str, ...]] = ("target",)

    def wanted_columns(self) -> dict[str, str | None]:
        own = {role: getattr(self, f"{side}_lang_column") for side, role in pairs.LANGUAGES.items()}
        given = {role: name for role, name in own.items() if name is not None}
        return {"source": self.source_column, "target": self.target_column} | given

    def column_flag(self, role: str) -> str:
        return f"--{role.removesuffix(' language')}{'_lang' * role.endswith(' language')}_column"

    def names_in_order(self) -> dict[str, tuple[str, ...]]:
        codes = {"source": self.source_lang, "target": self.target_lang}
        return {side: language_codes.spellings(code) for side, code in codes.items() if code}

    def aligned_files(self, split: str) -> dict[str, str]:
        """Source and target file; of rows to predict the former alone will do, if its extension is no
        table's."""
        sources, targets = getattr(self, f"{split}_file"), getattr(self, f"{split}_target_file")
        if sources and targets:
            return {"source": sources, "target": targets}
        paths = readers.find_files(sources, readers.LINES)[0] if sources and split == "test" else []
        of_lines = paths and not any(map(readers.file_format, paths))
        return {"source": sources} if of_lines else {}

    def peek(self, split: str) -> tuple[list[str], list[str]]:
        if aligned := self.aligned_files(split):
            return list(aligned), pairs.problems_of_aligned(aligned, split)
        available, wrong = super().peek(split)
        if any("extension must be" in problem for problem in wrong):
            wrong.append(
                f"If that file has a source a line, name that of the targets: --{split}_target_file."
            )
        return available, wrong

    def resolve_columns(
        self, available: list[str], split: str, tell: bool = True, before: dict[str, str] | None = None
    ) -> dict[str, str]:
        if aligned := self.aligned_files(split):
            return {side: side for side in aligned}
        holding = pairs.column_of_pairs(available)
        if holding is None or self.source_column or self.target_column:
            return super().resolve_columns(available, split, tell, before)
        wanted = {pairs.PAIRS: holding, **self.wanted_columns()}
        wanted = {role: name for role, name in wanted.items() if role not in pairs.SIDES}
        return columns.resolve(available, wanted, flags={role: self.column_flag(role) for role in wanted})

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        return pairs.prepare(rows, columns, split, self)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.source_lang and self.source_lang == self.target_lang:
            found.append(f"--source_lang and --target_lang are both {self.source_lang}: they must differ.")
        found += [
            f"--{side}_lang is one language for all rows, --{side}_lang_column gives each its own: give "
            "one of them."
            for side in pairs.SIDES
            if getattr(self, f"{side}_lang") and getattr(self, f"{side}_lang_column")
        ]
        given = [split for split in PHASES.values() if getattr(self, f"{split}_file")]
        for split in PHASES.values():
            if getattr(self, f"{split}_target_file") and split not in given:
                found.append(f"--{split}_target_file needs --{split}_file, the sources.")
        of_lines = [split for split in given if self.aligned_files(split)]
        named = ["source_lang_column", "target_lang_column"]
        named += ["source_column", "target_column"] if of_lines == given else []
        found += [
            f"--{name}: --{of_lines[0]}_file has a text a line, and no columns."
            for name in named
            if of_lines and getattr(self, name)
        ]
        return found


@dataclass
class CorpusArguments(DataArguments):
    """Texts"""

    text_column: str | None = flag(None, "column of the texts (default: found by its name)")
    keep_linebreaks: bool = flag(
        False, "a .txt file is one text (default: a line is); files with other extensions, as .py, always are"
    )
    validation_split_percentage: float | None = flag(
        None, "evaluate on this share of the training rows, the first, and train on the others", free=True
    )

    needs_padding: ClassVar[bool] = False
    kept_columns: ClassVar[tuple[str, ...]] = perplexity.DOMAINS

    @property
    def format(self) -> str:
        """What a file is whose extension does not say it; see `readers.file_format`."""
        return readers.WHOLE_TEXTS if self.keep_linebreaks else readers.DOCUMENTS

    def wanted_columns(self) -> dict[str, str | None]:
        return {"text": self.text_column}

    def holds_out(self) -> bool:
        return self.validation_split_percentage is not None

    def hold_out(self, rows: Any, columns: dict[str, str], seed: int) -> dict[str, Any]:
        """The first rows, which are evaluated, and the others."""
        percentage = self.validation_split_percentage or 0.0
        count = max(1, int(len(rows) * percentage / 100))
        if count >= len(rows):
            raise InputError(
                f"--validation_split_percentage {percentage:g}: of {len(rows)} training rows that leaves "
                "none."
            )
        return {"train": rows.select(range(count, len(rows))), "validation": rows.select(range(count))}

    def problems(self) -> list[str]:
        found, share = super().problems(), self.validation_split_percentage
        if share is not None and not 0 < share < 100:
            found.append(f"--validation_split_percentage {share:g}: must be above 0 and below 100.")
        if share is not None and self.validation_file:
            found.append(
                "--validation_split_percentage takes the rows to evaluate from the training rows, "
                "--validation_file from a file: give one of them."
            )
        if share is not None and self.streaming:
            found.append("--validation_split_percentage: the number of --streaming rows is not known.")
        return found


@dataclass
class MaskingArguments(CorpusArguments):
    """Texts, and what is hidden in them"""

    words_column: str | None = flag(
        None, "column of lists of words, for texts that do not show where words begin, instead of texts"
    )
    max_seq_length: int | None = flag(
        None, "longest sequence in tokens (default: the model's own, at most 512)"
    )
    line_by_line: bool = flag(
        False,
        "a text is a sequence, or several if it is longer (default: all texts one behind the other, cut)",
    )
    mlm_probability: float = flag(0.15, "share of the tokens that are to be found")
    mask_replace_prob: float = flag(0.8, "share of these that become the mask token")
    random_replace_prob: float = flag(0.1, "share that become any other token; the rest stay as they are")
    whole_word_mask: bool = flag(False, "hide all tokens of a word, or none")

    needs_padding: ClassVar[bool] = True
    needs_mask: ClassVar[bool] = True
    list_roles: ClassVar[tuple[str, ...]] = ("words",)
    scores: ClassVar[tuple[str, ...]] = ("accuracy", "perplexity")

    def wanted_columns(self) -> dict[str, str | None]:
        return {"words": self.words_column} if self.words_column else super().wanted_columns()

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        if "words" in columns and not is_stream(rows):
            name, texts = columns["words"], ("string", "large_string")
            inner = getattr(rows.features[name], "feature", None)
            if getattr(inner, "dtype", None) not in texts:
                raise InputError(f"{split}: column {name!r} of --words_column must hold lists of words.")
        return rows, columns

    def condense(self, answer: Any) -> Any:
        return fillings.condensed(answer)

    def problems(self) -> list[str]:
        found = super().problems()
        if not 0 < self.mlm_probability <= 1:
            found.append(f"--mlm_probability {self.mlm_probability:g}: must be above 0 and at most 1.")
        shares = {name: getattr(self, name) for name in ("mask_replace_prob", "random_replace_prob")}
        found += [
            f"--{name} {share:g}: must be from 0 to 1."
            for name, share in shares.items()
            if not 0 <= share <= 1
        ]
        if sum(shares.values()) > 1 + 1e-9:
            found.append(
                f"--mask_replace_prob {self.mask_replace_prob:g} and --random_replace_prob "
                f"{self.random_replace_prob:g} are more than all together: what is left stays as it is."
            )
        if self.text_column and self.words_column:
            found.append("--text_column and --words_column: rows are texts or lists of words, give one.")
        return found


@dataclass
class CausalArguments(CorpusArguments):
    """Texts, and how they go on"""

    prompt_column: str | None = flag(None, "column of texts that are only read, before a completion")
    completion_column: str | None = flag(None, "column of what follows them: the loss is on that alone")
    messages_column: str | None = flag(
        None, "column of dialogues, for the tokenizer's chat template: the loss is on the assistant's turns"
    )
    packing: str = flag(
        "blocks",
        "blocks: all texts one behind the other, cut; documents: whole texts where they fit, by best fit; "
        "none: a text a row. No text sees another",
        packing.KINDS,
    )
    block_size: int | None = flag(
        None, "tokens of a block (default: the model's positions, at most 1024); longer texts go on in others"
    )
    add_eos: bool = flag(True, "each text ends with the tokenizer's end token")
    fim_rate: float = flag(0.0, "share of the training rows in which a hole is to be filled")
    fim_spm_rate: float = flag(0.5, "share of these in which what is behind the hole comes first")
    fim_tokens: str = flag(
        "auto", "tokens before each part: before the hole, behind it, in it: a,b,c (default: those it knows)"
    )
    resize_token_embeddings: bool = flag(
        False, "enlarge the model's tables for the tokens that the tokenizer has beyond them"
    )
    max_new_tokens: int | None = flag(
        None, "continue the rows to predict, by at most so many tokens: generated_predictions.txt", free=True
    )
    num_beams: int | None = flag(None, "beams of the search in that", free=True)
    do_sample: bool = flag(
        False, "draw the tokens in that, the same in every form, by --data_seed", free=True
    )
    temperature: float | None = flag(None, "what their logits are divided by", free=True)
    top_k: int | None = flag(None, "draw from so many of the likeliest tokens", free=True)
    top_p: float | None = flag(None, "draw from the likeliest that have this probability together", free=True)

    predicted_roles: ClassVar[tuple[str, ...]] = (documents.COMPLETION,)
    scores: ClassVar[tuple[str, ...]] = ("accuracy", "perplexity", "bits_per_byte")

    def wanted_columns(self) -> dict[str, str | None]:
        if self.messages_column is not None:
            return {dialogues.MESSAGES: self.messages_column}
        if self.prompt_column is None and self.completion_column is None:
            return super().wanted_columns()
        return {documents.PROMPT: self.prompt_column, documents.COMPLETION: self.completion_column}

    def prepare(self, rows: Any, columns: dict[str, str], split: str) -> tuple[Any, dict[str, str]]:
        if dialogues.MESSAGES not in columns:
            return rows, columns
        return dialogues.prepare(rows, columns[dialogues.MESSAGES], split, self)

    def condense(self, answer: Any) -> Any:
        return packing.by_piece(answer) if answer.ndim == 2 else answer

    def continues(self, rows: Any) -> bool:
        """Whether these rows are prompts to be continued."""
        return self.max_new_tokens is not None and NUMBER in rows.column_names

    def problems(self) -> list[str]:
        found = super().problems()
        at_least = {"block_size": 2, "max_new_tokens": 1, "top_k": 1}
        found += [
            f"--{name} {value}: must be at least {least}."
            for name, least in at_least.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        if self.temperature is not None and self.temperature <= 0:
            found.append(f"--temperature {self.temperature:g}: must be above 0.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            found.append(f"--top_p {self.top_p:g}: must be above 0 and at most 1.")
        if self.completion_column and not self.prompt_column:
            found.append("--completion_column needs --prompt_column, what the completions follow.")
        kinds = [name for name in ("text", "prompt", "messages") if getattr(self, f"{name}_column")]
        if len(kinds) > 1:
            found.append(
                f"--{kinds[0]}_column and --{kinds[1]}_column: rows are texts, or prompts with completions, "
                "or dialogues."
            )
        if self.messages_column and importlib.util.find_spec("jinja2") is None:
            found.append(
                "--messages_column needs the package jinja2, in which chat templates are written: "
                "pip install 'jinja2>=3.1.2,<4'."
            )
        for name in ("fim_rate", "fim_spm_rate"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                found.append(f"--{name} {share:g}: must be from 0 to 1.")
        if self.fim_rate and kinds not in ([], ["text"]):
            found.append(f"--fim_rate is for texts: leave out --{kinds[-1]}_column.")
        generation = ("num_beams", "do_sample", "temperature", "top_k", "top_p")
        given = [name for name in generation if getattr(self, name)]
        if given and self.max_new_tokens is None:
            found.append(f"--{given[0]} is for --max_new_tokens: rows to predict are not continued else.")
        if self.do_sample and (self.num_beams or 1) > 1:
            found.append("--do_sample draws one text: leave out --num_beams.")
        drawing = [name for name in generation[2:] if getattr(self, name) is not None]
        if drawing and not self.do_sample:
            found.append(f"--{drawing[0]} is for --do_sample: the likeliest token is taken else.")
        return found


@dataclass
class CorruptionArguments(CorpusArguments):
    """Texts to be restored"""

    objective: str = flag(
        "spans",
        "spans: T5's, what stood in each span is written; infilling: BART's, all of the text is",
        tuple(noise.OBJECTIVES),
    )
    noise_density: float | None = flag(None, "share of the tokens that are noise (spans; default: 0.15)")
    mean_noise_span_length: float | None = flag(None, "tokens of a span (spans; default: 3)")
    mask_ratio: float | None = flag(
        None, "share of the tokens that masks stand for (infilling; default: 0.3)"
    )
    poisson_lambda: float | None = flag(
        None, "mean tokens of a span, some of which have none (infilling; default: 3)"
    )
    permute_sentence_ratio: float | None = flag(
        None, "share of the sentences that change places (infilling; default: 1)"
    )
    max_seq_length: int | None = flag(
        None, "most tokens of a corrupted text (default: the model's positions, at most 512)"
    )
    line_by_line: bool = flag(
        False, "a text is a row, or several if it is longer (default: all, one behind the other, are cut)"
    )
    lang: str | None = flag(None, "language code of the texts, for multilingual models")
    max_new_tokens: int | None = flag(
        None,
        "fill the holes of the rows to predict, by at most so many tokens: generated_predictions.txt",
        free=True,
    )
    num_beams: int | None = flag(None, "beams of the search in that", free=True)

    writes: ClassVar[bool] = True
    needs_padding: ClassVar[bool] = True
    kept_columns: ClassVar[tuple[str, ...]] = ()
    forced_bos_token: ClassVar[str | None] = None  # that of the language, see `languages.use`
    scores: ClassVar[tuple[str, ...]] = ("accuracy", "perplexity")

    def permutes(self) -> bool:
        """Whether sentences change places, so that a tokenizer must say which token begins one."""
        return self.objective == "infilling" and self.permute_sentence_ratio != 0

    def fills(self, rows: Any) -> bool:
        """Whether these rows have holes to be filled."""
        return self.max_new_tokens is not None and NUMBER in rows.column_names

    def problems(self) -> list[str]:
        found = super().problems()
        found += [
            f"--{name} is for --objective {objective}, not for {self.objective}."
            for objective, names in noise.OBJECTIVES.items()
            for name in names
            if objective != self.objective and getattr(self, name) is not None
        ]
        ranges = {
            "noise_density": (lambda share: 0 < share < 1, "above 0 and below 1"),
            "mean_noise_span_length": (lambda length: length >= 1, "at least 1"),
            "mask_ratio": (lambda share: 0 < share <= 1, "above 0 and at most 1"),
            "poisson_lambda": (lambda mean: 0.1 <= mean <= 100, "from 0.1 to 100"),
            "permute_sentence_ratio": (lambda share: 0 <= share <= 1, "from 0 to 1"),
            "max_new_tokens": (lambda tokens: tokens >= 1, "at least 1"),
        }
        found += [
            f"--{name} {value:g}: must be {said}."
            for name, (is_right, said) in ranges.items()
            if (value := getattr(self, name)) is not None and not is_right(value)
        ]
        if self.num_beams and self.max_new_tokens is None:
            found.append("--num_beams is for --max_new_tokens: no hole is filled else.")
        return found


@dataclass
class RunArguments:
    """Run"""

    output_dir: str | None = flag(
        None, "folder for the model, checkpoints and results (default: a new one in ./runs)", free=True
    )
    overwrite_output_dir: bool = flag(
        False, "start anew in a folder that holds an earlier run, and remove that run", free=True
    )
    do_train: bool = flag(
        False, "train (with none of these three: train and evaluate, as there are data)", free=True
    )
    do_eval: bool = flag(False, "evaluate on the validation rows", free=True)
    do_predict: bool = flag(False, "predict the test rows", free=True)
    seed: int = flag(42, "seed of weights, order of rows and dropout")
    data_seed: int | None = flag(None, "seed of the order of rows alone (default: --seed)")
    use_cpu: bool = flag(False, "use the CPU even if there is an accelerator", free=True)
    bf16: bool = flag(False, "compute in bfloat16, with weights in float32")
    fp16: bool = flag(False, "compute in float16, with weights in float32 and loss scaling; not on a CPU")
    gradient_checkpointing: bool = flag(
        False, "recompute activations in the backward pass: less memory, more time", free=True
    )
    torch_compile: bool = flag(False, "compile the model with torch.compile (PyTorch)", free=True)


@dataclass
class OptimizationArguments:
    """Optimization"""

    per_device_train_batch_size: int = flag(8, "rows per device and forward pass in training", free=True)
    per_device_eval_batch_size: int = flag(8, "rows per device in evaluation and prediction", free=True)
    gradient_accumulation_steps: int = flag(1, "forward passes per optimizer step")
    num_train_epochs: float = flag(3.0, "passes over the training rows", free=True)
    max_steps: int = flag(-1, "optimizer steps; if positive, overrides --num_train_epochs", free=True)
    learning_rate: float = flag(5e-5, "highest learning rate of the schedule")
    lr_scheduler_type: str = flag("linear", "learning-rate schedule", SCHEDULES)
    lr_scheduler_kwargs: str | None = flag(None, 'details of the schedule as JSON: {"num_cycles": 2}')
    warmup_steps: float = flag(
        0, "steps in which the rate rises to its highest; below 1, a share of all steps"
    )
    warmup_ratio: float = flag(0.0, "the same as a share of all steps")
    optim: str = flag(
        "adamw_torch_fused",
        "optimizer: adamw_torch, adamw_torch_fused or sgd in every form; PyTorch knows more",
    )
    weight_decay: float = flag(0.0, "decoupled weight decay of all parameters but biases and norms")
    adam_beta1: float = flag(0.9, "decay of AdamW's first moment")
    adam_beta2: float = flag(0.999, "decay of AdamW's second moment")
    adam_epsilon: float = flag(1e-8, "epsilon of AdamW")
    max_grad_norm: float = flag(1.0, "clip gradients to this global norm; 0 does not clip")
    label_smoothing_factor: float = flag(0.0, "share of the target given to all tokens alike (training only)")
    group_by_length: bool = flag(False, "put rows of similar length into a batch: less padding")
    max_tokens_per_batch: int | None = flag(
        None, "most tokens, padding included, that a device computes at once; a larger batch goes in parts"
    )
    dataloader_num_workers: int = flag(0, "processes that prepare batches", free=True)
    dataloader_drop_last: bool = flag(False, "leave out the last batch of an epoch if it is not full")


@dataclass
class ReportArguments:
    """Logging, evaluation and generation"""

    logging_strategy: str = flag("steps", "when to log", ("no", "steps", "epoch"), free=True)
    logging_steps: float | None = flag(
        None,
        "steps between logs; below 1, a share of all steps (default: the first step, the last, and twenty "
        "between, at least one in 500)",
        free=True,
    )
    logging_first_step: bool = flag(False, "log the first step as well", free=True)
    logging_dir: str | None = flag(
        None, "folder for TensorBoard (default: runs/ in the output folder)", free=True
    )
    report_to: str = flag(
        "none",
        "none, all that are installed, or of tensorboard, wandb, mlflow, trackio, comet_ml: a,b",
        free=True,
    )
    disable_tqdm: bool = flag(False, "no progress bars", free=True)
    eval_strategy: str = flag("no", "when to evaluate during training", ("no", "steps", "epoch"), free=True)
    eval_steps: float | None = flag(
        None, "steps between evaluations (default: --logging_steps, or 500)", free=True
    )
    eval_delay: float = flag(
        0, "no evaluation before this step, or with --eval_strategy epoch this epoch", free=True
    )
    eval_on_start: bool = flag(
        False, "evaluate before the first step as well; no checkpoint is the best by it", free=True
    )
    predict_with_generate: bool = flag(
        False, "generate in evaluation, and compute metrics of the text", free=True
    )
    load_best_model_at_end: bool = flag(False, "end with the best checkpoint instead of the last", free=True)
    metric_for_best_model: str | None = flag(
        None, "what best means: loss, or a metric such as rouge1 (default: loss)"
    )
    greater_is_better: bool | None = flag(
        None, "whether that metric should rise (default: unless it is a loss)"
    )
    early_stopping_patience: int | None = flag(
        None, "stop after this many evaluations without a better metric", free=True
    )


@dataclass
class CheckpointArguments:
    """Checkpoints and sharing"""

    save_strategy: str = flag(
        "steps", "when to save a checkpoint", ("no", "steps", "epoch", "best"), free=True
    )
    save_steps: float = flag(
        500, "steps between checkpoints; below 1, a share of all steps; -1: no checkpoints", free=True
    )
    save_total_limit: int | None = flag(
        None, "keep this many checkpoints; the best and the newest always stay", free=True
    )
    resume_from_checkpoint: str | None = flag(
        None, "continue from this checkpoint (default: the newest in output_dir)", free=True
    )
    push_to_hub: bool = flag(False, "upload the model and its card to the hub", free=True)
    hub_model_id: str | None = flag(
        None, "repository to push to (default: the output folder's name)", free=True
    )
    hub_token: str | None = flag(None, "token of the hub (default: that of `hf auth login`); never stored")
    hub_strategy: str = flag(
        "end",
        "what is pushed: the result at the end, the model at every_save, besides it the last checkpoint, or "
        "all_checkpoints",
        ("end", "every_save", "checkpoint", "all_checkpoints"),
        free=True,
    )
    hub_private_repo: bool | None = flag(None, "make the repository private", free=True)


@dataclass
class TrainingArguments(
    CheckpointArguments, ReportArguments, OptimizationArguments, RunArguments
):  # dataclasses collect fields from the last base to the first
    """The run's flags in the explicit loops; the Trainer form has the Trainer's others as well."""

    optimizer_file: ClassVar[str] = OPTIMIZER  # in the checkpoints that a form can continue
    other_trackers: ClassVar[Mapping[str, str]] = {}  # for --report_to, with the module that each needs
    free: ClassVar[frozenset[str]] = frozenset()  # flags declared by transformers that may differ likewise
    chosen: ClassVar[frozenset[str]] = frozenset()  # flags that the command line left out; see `left_out`

    def __post_init__(self) -> None:
        # As transformers does: to ask for evaluations is to ask for evaluation.
        self.do_eval = self.do_eval or self.eval_strategy != "no" or self.eval_on_start
        self.warmup_steps = self.warmup_steps or self.warmup_ratio
        self.eval_steps = self.eval_steps or self.logging_steps or 500
        if self.save_steps == -1:  # no checkpoints, as in transformers
            self.save_steps = CheckpointArguments.save_steps
            self.save_strategy = "no" if self.save_strategy == "steps" else self.save_strategy
        self.data_seed = self.seed if self.data_seed is None else self.data_seed
        self.metric_for_best_model = self.metric_for_best_model or "loss"
        if self.greater_is_better is None:
            name = self.metric_for_best_model.removeprefix("eval_")
            self.greater_is_better = not name.endswith(("loss", "error")) and name not in FALLING

    def problems(self) -> list[str]:
        """What is wrong with the values and the output folder."""
        found = []
        if not (self.do_train or self.do_eval or self.do_predict):
            found.append("Nothing to do: give --do_train, --do_eval or --do_predict.")
        at_least = {
            "per_device_train_batch_size": 1,
            "per_device_eval_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "max_tokens_per_batch": 1,
            "num_train_epochs": 0,
            "warmup_steps": 0,
            "weight_decay": 0,
            "max_grad_norm": 0,
            "dataloader_num_workers": 0,
            "eval_delay": 0,
            "save_total_limit": 1,
            "early_stopping_patience": 1,
            "seed": 0,
            "data_seed": 0,
        }
        for name, least in at_least.items():
            if (value := getattr(self, name)) is not None and value < least:
                found.append(f"--{name} {value}: must be at least {least}.")
        for name in ("seed", "data_seed"):
            if (getattr(self, name) or 0) >= 1 << 32:
                found.append(f"--{name} {getattr(self, name)}: must be below {1 << 32}.")
        found += reporting.problems(self.report_to, self.other_trackers)
        for name in ("learning_rate", "logging_steps", "eval_steps", "save_steps"):
            if (value := getattr(self, name)) is not None and value <= 0:
                found.append(f"--{name} {value}: must be above 0.")
        if not 0 <= self.label_smoothing_factor < 1:
            found.append(
                f"--label_smoothing_factor {self.label_smoothing_factor}: must be from 0 to below 1."
            )
        if self.bf16 and self.fp16:
            found.append("--bf16 and --fp16 exclude each other.")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            found.append("--early_stopping_patience needs --load_best_model_at_end.")
        if self.load_best_model_at_end and self.save_strategy != "best":
            if self.eval_strategy == "no" or self.eval_strategy != self.save_strategy:
                found.append(
                    f"--load_best_model_at_end needs --eval_strategy ({self.eval_strategy}) and "
                    f"--save_strategy ({self.save_strategy}) to be the same, steps or epoch."
                )
            elif self.eval_strategy == "steps" and self.save_steps % (self.eval_steps or 1):
                found.append(
                    f"--load_best_model_at_end needs --save_steps ({self.save_steps:g}) to be a multiple of "
                    f"--eval_steps ({self.eval_steps:g})."
                )
        if self.eval_delay > 0 and self.eval_strategy == "no":
            found.append("--eval_delay needs --eval_strategy steps or epoch.")
        if self.save_strategy == "best" and self.eval_strategy == "no":
            found.append("--save_strategy best needs --eval_strategy steps or epoch.")
        if self.lr_scheduler_type == "reduce_lr_on_plateau" and self.eval_strategy == "no":
            found.append("--lr_scheduler_type reduce_lr_on_plateau needs --eval_strategy steps or epoch.")
        if isinstance(self.lr_scheduler_kwargs, str):
            try:
                json.loads(self.lr_scheduler_kwargs)
            except ValueError as error:
                found.append(f"--lr_scheduler_kwargs {self.lr_scheduler_kwargs}: not JSON ({error}).")
        if self.resume_from_checkpoint:
            found += [
                f"--resume_from_checkpoint {self.resume_from_checkpoint}: {problem}"
                for problem in checkpoints.verify(self.resume_from_checkpoint)
            ]
        if self.output_dir is not None:
            found += ownership.problems(self.output_dir, self.do_train, self.overwrite_output_dir)
        if self.do_train and self.output_dir and not found:
            own = [] if self.overwrite_output_dir else checkpoints.found(self.output_dir)
            asked_for = [Path(self.resume_from_checkpoint)] if self.resume_from_checkpoint else []
            found += [
                f"{checkpoint}: is a checkpoint of another form, which this one cannot continue; choose "
                "another --output_dir, or give --overwrite_output_dir to start anew."
                for checkpoint in asked_for or own
                if not (checkpoint / self.optimizer_file).is_file()
            ]
        return found


def left_out(given: dict[str, Any], *others: Any) -> dict[str, Any]:
    """Values by flag for what a command line leaves out: which phases, and where the results go.

    With none of --do_train, --do_eval, --do_predict a run does what there are rows for: of own files each
    that is given; of a dataset, whose splits are not known before it is loaded, training and evaluation (see
    `data.load`). The folder is a new one in ./runs, named for script, model and time.

    Args:
        given: values by flag.
        others: the other dataclasses of the command line.
    """
    values: dict[str, Any] = {}
    data_args = next((one for one in others if isinstance(one, DataArguments)), None)
    if not given.keys() & PHASES and data_args:
        files = {phase: data_args.source(split) is not None for phase, split in PHASES.items()}
        files["do_eval"] |= data_args.holds_out()
        values |= files if any(files.values()) else {"do_train": True, "do_eval": True}
    if not given.get("output_dir"):
        model = next((one for one in others if isinstance(one, StartArguments)), StartArguments())
        name = model.model_name_or_path or model.config_name or model.model_type or "model"
        task = Path(launchers.script_started()).stem.removeprefix("run_").removesuffix("_no_trainer")
        parts = (task, Path(name).resolve().name, time.strftime("%Y%m%d-%H%M%S"))
        folder = Path("runs", "-".join(parts))
        same = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
        values["output_dir"] = str(folder if not folder.exists() else next(f for f in same if not f.exists()))
    return values

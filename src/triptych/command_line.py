"""How a command line or an argument file becomes dataclasses, or a list of everything that is wrong with it.

The parser is our own because a command line with mistakes should be answered in a moment, and completely:
`transformers.HfArgumentParser` takes over a second to import and stops at the first mistake.
"""

import argparse
import dataclasses
import difflib
import json
import math
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

from triptych import launchers, spellings
from triptych.arguments import DataArguments, TrainingArguments, left_out
from triptych.data import PHASES

SECRET = {"hub_token"}
NEAR = (
    0.8  # least likeness of a flag that is proposed, as difflib measures it: a slip of the pen, not a guess
)


def _together(data_args: DataArguments, args: TrainingArguments) -> list[str]:
    """What is wrong between the flags of different groups."""
    found = []
    for phase, split in PHASES.items():
        lacks = not data_args.dataset_name and not data_args.source(split)
        if split == "validation" and data_args.holds_out():
            lacks = lacks and not data_args.source("train")  # of which they are a share
        if getattr(args, phase) and lacks and phase not in args.chosen:
            found.append(f"--{phase} needs --{split}_file (or --dataset_name).")
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if args.do_train and args.eval_strategy != "no" and best != "loss":
        possible = ("loss", *(data_args.scores or ()))
        if data_args.generates and not args.predict_with_generate:
            found.append(
                f"--metric_for_best_model {best} needs --predict_with_generate: without it an evaluation "
                "gives the loss alone."
            )
        if data_args.scores is not None and best not in possible:
            found.append(
                f"--metric_for_best_model {best}: there is no such metric{_similar(best, possible)}; "
                f"there are: {', '.join(possible)}."
            )
    if args.predict_with_generate and not data_args.generates:
        found.append("--predict_with_generate: this task generates no text; its metrics need no flag.")
    for name in () if data_args.has_lengths else ("group_by_length", "max_tokens_per_batch"):
        if getattr(args, name):
            found.append(
                f"--{name} is for rows of different lengths; these {data_args.unit} all have one size: "
                "leave it out."
            )
    if args.max_tokens_per_batch and getattr(data_args, "pad_to_max_length", False):
        found.append("--max_tokens_per_batch and --pad_to_max_length exclude each other.")
    if args.max_tokens_per_batch and not getattr(data_args, "ignore_pad_token_for_loss", True):
        found.append(
            "--max_tokens_per_batch needs --ignore_pad_token_for_loss: a loss that counts padding would be "
            "another one in parts."
        )
    if data_args.streaming:
        if args.do_train and args.max_steps < 1:
            found.append("--streaming needs --max_steps: the number of rows is not known beforehand.")
        if args.group_by_length:
            found.append("--streaming and --group_by_length exclude each other: grouping needs all lengths.")
    return found


def parse(*classes: type, description: str | None = None, argv: list[str] | None = None) -> tuple[Any, ...]:
    """Reads the command line, or one `.json` or `.yaml` file named on it, into dataclasses.

    Ends the process with exit code 0 after `-h`, and with 2 and all problems at once if anything is wrong:
    unknown flags (those of other scripts with what to write instead; see `triptych.spellings`), values of the
    wrong type, and whatever the dataclasses' own `problems()` find.

    Args:
        classes: dataclasses whose fields are made with `flag`; each becomes one value of the result.
        description: text above the flags in the help.
        argv: the arguments (default: those of the process).
    """
    argv = sys.argv[1:] if argv is None else argv
    fields = {field.name: field for cls in classes for field in dataclasses.fields(cls)}
    kinds = {
        name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items() if name in fields
    }
    if {"-h", "--help"} & set(argv):
        print(_help(classes, kinds, description))
        sys.exit(0)
    problems: list[str] = []
    if len(argv) == 1 and argv[0].lower().endswith((".json", ".yaml", ".yml")):
        given = _read_file(argv[0], problems)
    else:
        given = _read_flags(argv, fields, kinds, problems)

    values: dict[str, Any] = {}
    for spelling, value in given.items():
        try:
            for name, meant in _meaning(spelling, value, given, fields).items():
                converted = _convert(meant, kinds[name], fields[name].metadata.get("choices"))
                if values.setdefault(name, converted) != converted:
                    raise ValueError(f"--{name} is given as well; give one of them")
        except LookupError as error:
            problems.append(f"--{spelling}: {error.args[0]}")
        except ValueError as error:
            if spelling in _listed(fields) or spelling not in fields:
                shown = "<hidden>" if SECRET & {spelling, spellings.known_name(spelling, fields)} else value
                problems.append(f"--{spelling} {shown}: {error}.")
            else:  # no other value would be taken
                problems.append(f"--{spelling}: {spellings.answer(spelling) or error}.")
    results: list[Any] = []
    chosen: dict[str, Any] = {}
    for cls in classes:
        try:
            if issubclass(cls, TrainingArguments):
                chosen = left_out(values, *results)
                values |= chosen
            results.append(
                cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values})
            )
            problems += results[-1].problems()
        except (
            ValueError,
            ImportError,
            OSError,
        ) as error:  # a dataclass of transformers checks in __post_init__
            problems.append(str(error))
    data_args = next((r for r in results if isinstance(r, DataArguments)), None)
    args = next((r for r in results if isinstance(r, TrainingArguments)), None)
    if args:
        vars(args)["chosen"] = frozenset(chosen)
    if data_args and args:
        problems += _together(data_args, args)
    if problems:
        refuse(problems)
    return tuple(results)


def refuse(problems: list[str]) -> typing.NoReturn:
    """Prints problems, each once, and ends the process with exit code 2."""
    problems = list(dict.fromkeys(problems))
    heading = "1 problem:" if len(problems) == 1 else f"{len(problems)} problems:"
    launchers.say_last(
        "\n".join([f"{launchers.script_started()}: {heading}", *(f"  - {p}" for p in problems)])
    )
    sys.exit(2)


def to_dict(*parsed: Any) -> dict[str, Any]:
    """All flags with their resolved values, as an argument file holds them; no secrets."""
    values: dict[str, Any] = {}
    for one in parsed:
        for field in dataclasses.fields(one):
            value, is_shown = getattr(one, field.name), field.init and field.name not in SECRET
            if is_shown and isinstance(value, str | int | float | bool | list | dict):
                # enums of transformers are strings with a value
                values[field.name] = getattr(value, "value", value)
    return values


def _read_file(path: str, problems: list[str]) -> dict[str, Any]:
    """Flags by name from a JSON or YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.lower().endswith(".json"):
            given = json.loads(text)
        else:
            import yaml

            given = yaml.safe_load(text)
    except Exception as error:  # whatever the file's parser raises
        refuse([f"{path}: cannot be read as arguments ({error})."])
    if not isinstance(given, dict):
        refuse([f"{path}: must hold one object of names and values."])
    return {str(name).removeprefix("--").replace("-", "_"): value for name, value in given.items()}


def _read_flags(argv: list[str], fields: dict, kinds: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Flags by name from a command line; values still as text (lists for flags of several values)."""
    given: dict[str, Any] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            problems.append(f"{word!r}: expected a flag that starts with --.")
            continue
        spelling, equals, value = word[2:].partition("=")
        spelling = spelling.replace("-", "_")
        name = spelling if _is_ours(spelling, fields) else spellings.known_name(spelling, fields)
        is_answered = name in spellings.FOREIGN and not _is_ours(name, fields)
        kind = None if is_answered else kinds.get(name)
        following = []
        while not equals and words and not (words[0].startswith("--") and len(words[0]) > 2):
            following.append(words.pop(0))
            if name in spellings.MEANINGS or (kind is not None and not _is_list(kind)):
                break
        if equals:
            given[spelling] = value
        elif not following and (kind is None or _is_bool(kind)):
            given[spelling] = "true"
        elif not following:
            problems.append(f"--{spelling}: a value is missing.")
        else:
            given[spelling] = following if _is_list(kind) else following[0]
        if name not in fields and spelling.startswith("no_") and _is_bool(kinds.get(spelling[3:])):
            given[spelling[3:]] = "false" if given.pop(spelling) == "true" else "true"
    return given


def _members(kind: Any) -> tuple:
    return (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )


def _is_bool(kind: Any) -> bool:
    return bool in _members(kind) and str not in _members(kind)


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(member) is list or member is list for member in _members(kind))


def _convert(value: Any, kind: Any, choices: tuple[str, ...] | None) -> Any:
    """A value of the flag's type.

    Raises:
        ValueError: with what was expected.
    """
    members = _members(kind)
    if choices and value in choices:
        return value  # "none" may be one
    if value is None or (
        isinstance(value, str) and value.lower() in ("none", "null") and type(None) in members
    ):
        if type(None) in members:
            return None
        raise ValueError("a value is needed")
    if _is_bool(kind):
        return spellings.truth(value)
    if int in members and float not in members:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError("expected a whole number")
        try:
            return int(value)
        except (ValueError, TypeError):
            raise ValueError("expected a whole number") from None
    if float in members:
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = float("nan")
        if isinstance(value, bool) or not math.isfinite(number):
            raise ValueError("expected a number")
        return number
    if choices and value not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}{_similar(str(value), choices)}")
    if isinstance(value, str | list):
        return value
    if isinstance(value, dict) and any(
        member is dict or typing.get_origin(member) is dict for member in members
    ):
        return value
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _similar(word: str, words: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _is_ours(name: str, fields: dict) -> bool:
    """Whether a flag is declared by us, not by transformers."""
    return name in fields and "free" in fields[name].metadata


def _listed(fields: dict) -> dict:
    """The flags that -h lists: without those of transformers that are refused, or are ours under other
    names."""
    return {
        name: field
        for name, field in fields.items()
        if _is_ours(name, fields) or name not in spellings.FOREIGN
    }


def _meaning(spelling: str, value: Any, given: dict[str, Any], fields: dict) -> dict[str, Any]:
    """Values by flag of what is given under a name that may be another script's.

    Raises:
        LookupError: if there is no such flag, with what to write instead.
        ValueError: if the value cannot be had.
    """
    name = spelling if _is_ours(spelling, fields) else spellings.known_name(spelling, fields)
    if name != spelling or _is_ours(name, fields):
        return {name: value}
    if spelling in spellings.MEANINGS:
        return spellings.MEANINGS[spelling](value, given)
    if spellings.asks_for_nothing(spelling, value):
        return {}
    if spelling in fields:
        return {spelling: value}
    if answer := spellings.answer(spelling):
        raise LookupError(f"{answer}.")
    close = difflib.get_close_matches(spelling, _listed(fields), n=1, cutoff=NEAR)
    raise LookupError(
        "there is no such flag" + (f"; did you mean --{close[0]}?" if close else "; -h lists them.")
    )


def _help(classes: tuple[type, ...], kinds: dict[str, Any], description: str | None) -> str:
    """All flags with types and defaults, each group under the docstring of the class that declares it."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s --flag value ...\n       %(prog)s arguments.json",
        description=textwrap.dedent(description or ""),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=34, width=110
        ),
        add_help=False,
    )
    fields = _listed({field.name: field for cls in classes for field in dataclasses.fields(cls)})
    # In the reader's order: what is given first on a command line comes first.
    owners = [owner for cls in classes for owner in reversed(cls.__mro__) if dataclasses.is_dataclass(owner)]
    owners.sort(key=lambda owner: not owner.__module__.startswith(("triptych.arguments", "__main__")))
    for owner in owners:
        names = [name for name in vars(owner).get("__annotations__", {}) if name in fields]
        if not names:
            continue
        group = parser.add_argument_group(textwrap.dedent(owner.__doc__ or "").strip().partition("\n")[0])
        for name in names:
            field = fields.pop(name)
            choices = field.metadata.get("choices")
            default = (
                None
                if field.default is dataclasses.MISSING
                else getattr(field.default, "value", field.default)
            )
            text = field.metadata.get("help", "").strip() + (f": {', '.join(choices)}" if choices else "")
            text += "" if default in (None, False, "") else f" (default: {default})"
            text = text.replace("%", "%%")
            if _is_bool(kinds[name]) and not default:
                group.add_argument(f"--{name}", action="store_true", help=text)
            else:
                kind = next(member for member in _members(kinds[name]) if member is not type(None))
                group.add_argument(f"--{name}", metavar=getattr(kind, "__name__", "value").upper(), help=text)
    return parser.format_help()

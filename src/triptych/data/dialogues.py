"""Dialogues: messages of users and assistants, written out by the tokenizer's own chat template."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from triptych.data.conversions import PROBLEMS, convert
from triptych.data.sources import is_stream
from triptych.errors import InputError

MESSAGES = "messages"  # role and column
ASSISTANT = "assistant"


class Written(NamedTuple):
    """A text, and where in it an assistant speaks.

    Attributes:
        text: as the template writes it.
        turns: start and end of what an assistant says with the sign that it has ended, in characters.
        prompt: the characters before what would be generated.
    """

    text: str
    turns: list[tuple[int, int]]
    prompt: int


def prepare(rows: Any, column: str, split: str, data_args: Any) -> tuple[Any, dict[str, str]]:
    """Rows whose column MESSAGES holds each dialogue as JSON, with the columns that are kept beside it.

    Raises:
        InputError: for dialogues that are none, or in which no assistant speaks where that is to be learnt.
    """
    import datasets

    needs_answer = not (split.startswith("test") and data_args.max_new_tokens is not None)
    names = rows.column_names or list(next(iter(rows), {}))
    kept = [name for name in data_args.kept_columns if name in names]

    def make(chunk: dict[str, list], numbers: list[int]) -> dict[str, list]:
        found = [_read(value) for value in chunk[column]]
        return {
            **{name: chunk[name] for name in kept},
            MESSAGES: [json.dumps(messages, ensure_ascii=False) if messages else "" for messages, _ in found],
            PROBLEMS: [
                [f"{split}, row {number + 1}: {said}." for said in _wrong(*each, needs_answer)]
                for number, each in zip(numbers, found, strict=True)
            ],
        }

    features = {} if is_stream(rows) else {name: rows.features[name] for name in kept}
    features |= {} if is_stream(rows) else {MESSAGES: datasets.Value("large_string")}
    made = convert(rows, make, features, f"Reading dialogues of {split}", data_args.overwrite_cache)
    return made, {MESSAGES: MESSAGES}


def _read(value: Any) -> tuple[list[dict[str, Any]], bool]:
    """The messages, without what they leave empty, and whether they are such; nothing is no message."""
    if not value:
        return [], True
    is_list = isinstance(value, list) and all(isinstance(message, dict) for message in value)
    found = [{k: v for k, v in message.items() if v is not None} for message in value] if is_list else []
    return found, is_list and all(isinstance(message.get("role"), str) for message in found)


def _wrong(messages: list[dict[str, Any]], are_such: bool, needs_answer: bool) -> list[str]:
    if not are_such:
        return ['a list of messages {"role": ..., "content": ...} was expected']
    if needs_answer and messages and not any(message["role"] == ASSISTANT for message in messages):
        return [f"the dialogue has no turn of an {ASSISTANT}, so that nothing could be learnt of it"]
    return []


def written(messages: Sequence[dict[str, Any]], tokenizer: Any) -> list[Written]:
    """A dialogue by the tokenizer's chat template: one text with all turns of the assistant; or, where the
    template writes earlier turns otherwise than the last (without what was thought, for example), a text for
    each turn, that ends with it. Without any turn it is what an assistant is to answer.

    Raises:
        InputError: if the template refuses the dialogue, or begins a turn otherwise than it asks for one.
    """
    from jinja2 import TemplateError

    def write(upto: int, asks: bool = False) -> str:
        return tokenizer.apply_chat_template(messages[:upto], tokenize=False, add_generation_prompt=asks)

    try:
        numbers = [number for number, each in enumerate(messages) if each["role"] == ASSISTANT]
        asked = [write(number, asks=True) for number in numbers]
        told = [write(number + 1) for number in numbers]
        if not numbers:
            asked = told = [write(len(messages), asks=True)]
    except TemplateError as error:
        raise InputError(f"The chat template refuses {str(messages)[:80]}: {error}.") from error
    for before, text in zip(asked, told, strict=True):
        if not text.startswith(before):
            raise InputError(
                "The tokenizer's chat template begins an assistant's turn otherwise than it asks for one, so "
                f"that it cannot be told what is to be learnt: {text[-80:]!r} after {before[-40:]!r}."
            )
    if not numbers:
        return [Written(told[0], [], len(told[0]))]
    turns = [(len(before), len(text)) for before, text in zip(asked, told, strict=True)]
    last, prompt = told[-1], turns[-1][0]
    if all(last.startswith(text) for text in told):
        return [Written(last, turns, prompt)]
    return [Written(text, [turn], turn[0]) for text, turn in zip(told, turns, strict=True)]

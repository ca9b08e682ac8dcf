"""Settings of a search for a model's answer, as `generate` of transformers understands them.

For the forms that search by themselves: each honours all of `Search`, and anything else is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from triptych.batching.draws import Draws
from triptych.errors import InputError
from triptych.models import agreement, languages, tensor_files

# Settings that change no token: those of caches, of assistants, and what is returned beside the tokens.
WITHOUT_EFFECT = frozenset(
    """
    use_cache cache_implementation cache_config max_cache_len prefill_chunk_size low_memory compile_config
    disable_compile continuous_batching_config is_assistant num_assistant_tokens
    num_assistant_tokens_schedule assistant_confidence_threshold max_matching_ngram_size
    assistant_lookbehind target_lookbehind assistant_ensemble_weight speculation_type output_attentions
    output_hidden_states output_scores output_logits return_dict_in_generate transformers_version
    """.split()  # noqa: SIM905
)
# Those of sampling, which change no token of a search without it; the first three are honoured.
OF_SAMPLING = ("temperature", "top_k", "top_p")
OTHERS_OF_SAMPLING = ("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
# Settings that cannot be honoured, and the value at which they change nothing; for all others it is None.
NEUTRAL = {
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0,
    "penalty_alpha": 0,
    "guidance_scale": 1,
    "encoder_repetition_penalty": 1,
    "encoder_no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
    "token_healing": False,
    "do_sample": False,  # where no prompts are continued
}

# Settings that a batch may have for each row, int64 (rows,), beside those of the search for all rows
OF_ROWS = START, FIRST = ("decoder_start_token_id", "forced_bos_token_id")
# The array of a batch with a number from 0 to below 1 for each new token, float32 (rows, tokens), by which
# sampling chooses: so all forms sample the same texts.
DRAWN = "drawn"
PURPOSE = 0x5A17  # of these numbers, so that no others of a row are the same
FLAGS = ("max_new_tokens", "num_beams", "do_sample", *OF_SAMPLING)  # of a task that continues prompts


@dataclass(frozen=True)
class Search:
    """Settings of a search under transformers' names; lengths count the decoder's start, or of a prompt the
    last token."""

    decoder_start_token_id: int | None  # None where prompts are continued
    pad_token_id: int
    eos_token_id: tuple[int, ...]
    max_length: int = 21
    min_length: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    bad_words_ids: tuple[int, ...] = ()  # those of one token, without the ends
    renormalize_logits: bool = False
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50  # 0 for any number, as in transformers
    top_p: float = 1.0

    @property
    def beams_filling(self) -> int:
        """What stands behind the end after a search with beams. In transformers a padding of 0 is none."""
        return self.pad_token_id or next(iter(self.eos_token_id), 0)

    def require_numbers(self, available: int) -> None:
        """Raises ValueError where a search that samples has not a number for each new token."""
        if self.do_sample and available < self.max_length - 1:
            raise ValueError(
                f"sampling needs {self.max_length - 1} numbers a row; batch[{DRAWN!r}] has {available}"
            )


def generation_config(folder: str | Path | None, config: Any) -> Any:
    """The transformers.GenerationConfig of a folder, in `generation_config.json` or, formerly, `config.json`;
    for a model from scratch, without a folder, the special tokens of its configuration."""
    from transformers import GenerationConfig

    if folder is None:
        names = ("decoder_start_token_id", "forced_eos_token_id", *agreement.SPECIAL)
        return GenerationConfig(**{name: getattr(config, name, None) for name in names})
    if (Path(folder) / "generation_config.json").exists():
        found = GenerationConfig.from_pretrained(folder)
    else:
        content = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        found = GenerationConfig.from_model_config(content)
    if found.decoder_start_token_id is None:
        found.decoder_start_token_id = getattr(config, "decoder_start_token_id", None)
    return found


def of_run(model_args: Any, data_args: Any, config: Any, tokenizer: Any) -> tuple[Any, Search | None]:
    """The transformers.GenerationConfig of a run's checkpoint, and the search that it and the flags describe;
    None instead where texts can be continued or filled, but none are.

    Raises:
        InputError: see `search_of` and `languages.use_flags`.
    """
    found = generation_config(tensor_files.local_folder(model_args), config)
    agreement.settle_generation(found, config)
    prompts = not config.is_encoder_decoder
    if getattr(data_args, "max_new_tokens", 1) is None:
        return found, None
    return found, search_of(found, prompts=prompts, **arguments(tokenizer, data_args, config))


def search_of(generation_config: Any, *, prompts: bool = False, **changes: Any) -> Search:
    """The search that a transformers.GenerationConfig describes.

    Args:
        generation_config: the model's.
        prompts: whether texts are continued, by a decoder alone, which may be done by sampling.
        changes: arguments of transformers' `generate`; None for what stays.

    Raises:
        InputError: naming every setting that cannot be honoured.
    """
    given = {name: value for name, value in generation_config.to_dict().items() if value is not None}
    given |= {name: value for name, value in changes.items() if value is not None}
    problems = _prompt_problems(given) if prompts else []
    for length in ("max", "min"):
        if (new := given.pop(f"{length}_new_tokens", None)) is not None:
            given[f"{length}_length"] = new + 1
    for name in ("eos_token_id", "forced_eos_token_id"):
        given[name] = token_ids(given.get(name))
    words = given.pop("bad_words_ids", None) or []
    longer = [word for word in words if len(word) > 1]
    tokens = (token for word in words for token in word)
    given["bad_words_ids"] = tuple(token for token in tokens if token not in given["eos_token_id"])

    # Entries that transformers does not know, as some published files have, change nothing there either.
    known = vars(type(generation_config)()).keys() | changes.keys()
    honoured = {field.name for field in fields(Search)} | {"bos_token_id", *WITHOUT_EFFECT}
    if not prompts:
        honoured -= {"do_sample"}
    if not (given.get("do_sample") and prompts):
        honoured |= {*OTHERS_OF_SAMPLING}
    problems += [
        f"Generation with {name}={value!r} is not supported in this form; set it to {NEUTRAL.get(name)}."
        for name, value in given.items()
        if name in known - honoured and not name.startswith("_") and value != NEUTRAL.get(name)
    ]
    if longer:
        problems.append(
            f"Generation with bad_words_ids={longer} is not supported in this form: only single tokens can "
            "be forbidden. Leave these out."
        )
    start = None if prompts else given.get("decoder_start_token_id", given.get("bos_token_id"))
    given["decoder_start_token_id"] = start
    given.setdefault("pad_token_id", next(iter(given["eos_token_id"]), 0))
    if start is None and not prompts:
        problems.append("The generation configuration names neither decoder_start_token_id nor bos_token_id.")
    if not given["eos_token_id"] and not prompts:
        problems.append("The generation configuration names no eos_token_id, so no text could end.")
    if (longest := given.get("max_length", 21)) < 2:
        problems.append(f"max_length={longest} leaves no room after the decoder's start: set 2 or more.")
    if (beams := given.get("num_beams", 1)) < 1:
        problems.append(f"num_beams={beams} is no number of beams: set 1 or more.")
    if given.get("early_stopping", False) not in (False, True, "never"):
        problems.append(f"early_stopping is {given['early_stopping']!r}; it can be False, True or 'never'.")
    if problems:
        raise InputError(problems)
    return Search(**{field.name: given[field.name] for field in fields(Search) if field.name in given})


def _prompt_problems(given: dict[str, Any]) -> list[str]:
    """What keeps prompts from being continued as a search says, or says nothing of prompts of other lengths.
    Lengths that count the prompt are left out of `given`."""
    problems = []
    longest, shortest = given.pop("max_length", None), given.pop("min_length", None)
    if longest is not None and "max_new_tokens" not in given:
        problems.append(f"max_length={longest} counts the prompt: set max_new_tokens instead.")
    if shortest and "min_new_tokens" not in given:
        problems.append(f"min_length={shortest} counts the prompt: set min_new_tokens instead.")
    if given.pop("forced_bos_token_id", None) is not None:
        problems.append("forced_bos_token_id is for models that do not continue prompts: leave it out.")
    if not given.get("do_sample"):
        return problems
    if (beams := given.get("num_beams", 1)) > 1:
        problems.append(f"do_sample with num_beams={beams} is not supported: set num_beams to 1.")
    if (temperature := given.get("temperature", 1.0)) <= 0:
        problems.append(
            f"temperature={temperature} must be above 0; for the likeliest token leave do_sample out."
        )
    if (most := given.get("top_k", 0)) < 0:
        problems.append(f"top_k={most} is no number of tokens: set 1 or more, or 0 for all.")
    if not 0 < (share := given.get("top_p", 1.0)) <= 1:
        problems.append(f"top_p={share} is no share: set more than 0, and at most 1.")
    return problems


def token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """No token, one or several, as transformers writes them, in a tuple."""
    return () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)


def arguments(tokenizer: Any, data_args: Any, config: Any) -> dict[str, Any]:
    """The arguments of `generate` that the flags ask for, and the start that training has, if any.

    Raises:
        InputError: see `languages.use_flags`.
    """
    if not config.is_encoder_decoder:
        given = {name: getattr(data_args, name) for name in FLAGS}
        return {name: value for name, value in given.items() if value is not None}
    if hasattr(data_args, "max_new_tokens"):
        asked = {"max_length": (data_args.max_new_tokens or 1) + 1}  # with the decoder's start
    else:
        asked = {"max_length": data_args.val_max_target_length or data_args.max_target_length}
    if data_args.num_beams:
        asked["num_beams"] = data_args.num_beams
    asked |= languages.use_flags(tokenizer, data_args)
    return asked | {"decoder_start_token_id": config.decoder_start_token_id}


def of_rows(features: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """The `OF_ROWS` that features have, as arrays of a batch. `languages.both` gives them."""
    return {name: np.array(features[name], np.int64) for name in OF_ROWS if name in features}


def drawn(draws: Draws, new_tokens: int) -> dict[str, np.ndarray]:
    """The array DRAWN of a batch of prompts. A row draws the same each time it is predicted for."""
    bits = draws.bits(new_tokens, PURPOSE) >> np.uint64(40)
    return {DRAWN: (bits * 2.0**-24).astype(np.float32)}  # 24 bits: all that a float32 below 1 holds


def lengths(answers: Sequence[Sequence[int]], tokenizer: Any) -> list[int]:
    """How many tokens each answer was generated of: its end counts, the decoder's start and padding do not.

    Args:
        answers: token ids as `generate` returns them, each beginning with the decoder's start.
    """
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id

    def length(ids: list[int]) -> int:
        # Behind the end may stand padding or, after a search with several beams, the end again.
        if end in ids:
            return ids.index(end) + 1
        return len(ids) - next((n for n, token in enumerate(reversed(ids)) if token != padding), len(ids))

    return [length([int(token) for token in ids[1:]]) for ids in answers]

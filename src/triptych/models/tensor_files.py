"""A folder's tensors as numpy arrays: in safetensors, with Hugging Face's names and PyTorch's layout.

For the forms whose library has no `from_pretrained` of its own.
"""

import copy
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from triptych.errors import InputError, shown

MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
# What published files of T5 hold and no T5 reads: a table of distances between sources and targets
UNREAD = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
# Classes of transformers that are not called after the architecture and the head
OTHER_CLASSES = {
    "MarianForConditionalGeneration": "MarianMTModel",
    "GPT2ForCausalLM": "GPT2LMHeadModel",
    "Gemma3TextForCausalLM": "Gemma3ForCausalLM",
}
COUNTS = "num_batches_tracked"  # how the names of tensors of whole numbers end
OTHER_FORMATS = ("pytorch_model*.bin", "*.h5", "*.msgpack")  # of weights, that are not read


def local_folder(model_args: Any) -> Path | None:
    """The folder of `--model_name_or_path`: itself where it is one, else this machine's copy of that
    repository of the hub; None for a model from scratch. What is missing is downloaded unless HF_HUB_OFFLINE
    is set.

    Raises:
        InputError: where there is neither folder nor repository.
    """
    name = model_args.model_name_or_path
    if name is None or Path(name).is_dir():
        return name and Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files = ["*.json", "*.model", "*.txt", "model*.safetensors"]
    hub = {"revision": model_args.model_revision, "cache_dir": model_args.cache_dir}
    try:
        return Path(snapshot_download(name, allow_patterns=files, **hub))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{name!r} is neither a folder nor a model of the hub in reach: {reason}") from error


def format_problems(name: str) -> list[str]:
    """What keeps the weights of a folder from being read; nothing of a name on the hub.

    Those of other formats are not read, pickles among them because they can run code.
    """
    folder = Path(name)
    if not folder.is_dir():
        return []
    command = f"python -m triptych.migrate {shlex.quote(name)} NEW_FOLDER"
    if present := _weights(folder):
        try:
            kind = format_of(folder / parts(present)[0])
        except InputError as error:
            return error.problems
        if kind in ("tf", "flax"):
            return [f"{present} has the names of {kind}, not PyTorch's. Make a folder that has: {command}"]
        return []
    others = sorted(path.name for pattern in OTHER_FORMATS for path in folder.glob(pattern))
    if not others:
        return [
            f"{folder} has no {MODEL}. Save the model there with save_pretrained of PyTorch, or make it of "
            "an older checkpoint: python -m triptych.migrate OLD_FOLDER NEW_FOLDER"
        ]
    pickle = ", a pickle, which is not opened because it can run code" if others[0].endswith(".bin") else ""
    return [
        f"{folder} has no {MODEL}, only {', '.join(others[:3])}{pickle}. Make a folder that has one, which "
        f"runs nothing of the old: {command}"
    ]


def format_of(path: Path) -> str:
    """Whose names a file of safetensors holds, as it says itself: pt, tf or flax; pt if it does not say.

    Raises:
        InputError: if it is none of safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            return (opened.metadata() or {}).get("format", "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _weights(folder: Path) -> Path | None:
    """The file of safetensors in a folder, or the index of several."""
    paths = (folder / MODEL, folder / f"{MODEL}.index.json")
    return next((path for path in paths if path.exists()), None)


def parts(path: Path) -> list[str]:
    """The names of the files that hold a model: of itself, or of those beside it that its index lists.

    Raises:
        InputError: if one is not there, or in another folder.
    """
    if not path.name.endswith(".index.json"):
        return [path.name]
    found = sorted(set(index(path).values()))
    problems = []
    for part in found:
        # Another folder's file could be anything of this machine's.
        if part in (".", "..") or not part.isprintable() or {"/", "\\"} & set(part):
            problems.append(f"{path} lists {shown(part)}, which is no name of a file beside it.")
        elif not (path.parent / part).is_file():
            problems.append(f"{path.parent} has no {shown(part)}, which {path.name} lists.")
    if problems:
        raise InputError(problems)
    return found


def index(path: Path) -> dict[str, str]:
    """By the name of a tensor, the file that it is in.

    Raises:
        InputError: if it is no index of a model in parts.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not listed or not all(type(name) is str for name in listed.values()):
            raise ValueError("it lists no files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no index of a model in parts: {shown(str(error))}.") from error
    return listed


def read_model(folder: str | Path) -> dict[str, np.ndarray]:
    """The tensors of `model.safetensors`, or of the files that its index lists, in their types; without those
    of `UNREAD`.

    Raises:
        InputError: where a file is missing or is none of safetensors.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    present = _weights(folder)
    if (problems := format_problems(str(folder))) or present is None:
        raise InputError(problems)
    tensors: dict[str, np.ndarray] = {}
    for file in parts(present):
        try:
            with safe_open(folder / file, framework="numpy") as opened:
                names = [name for name in opened.keys() if name not in UNREAD]  # noqa: SIM118
                tensors |= {name: opened.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise InputError(f"{folder / file} cannot be read: {error}") from error
    return tensors


def write_model(
    folder: str | Path,
    tensors: dict[str, np.ndarray],
    config: Any,
    generation_config: Any = None,
    head: str = "ForConditionalGeneration",
) -> None:
    """Writes what `from_pretrained` of transformers opens: `model.safetensors`, `config.json` and, if one is
    given, `generation_config.json`.

    Args:
        tensors: float32, contiguous; tied tables once.
        config: of transformers.
        head: what the class of transformers is called after the architecture's name.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {name: value.astype(np.int64) for name, value in tensors.items() if name.endswith(COUNTS)}
    save_file(tensors | counts, folder / MODEL, metadata={"format": "pt"})
    config = copy.deepcopy(config)
    config.dtype = "float32"  # else PyTorch would round to what the model was loaded from
    name = type(config).__name__.removesuffix("Config") + head
    config.architectures = [OTHER_CLASSES.get(name, name)]
    config.save_pretrained(folder)
    if generation_config is not None:
        generation_config.save_pretrained(folder)


def settle_tables(tensors: dict[str, np.ndarray], names: tuple[str, ...], tied: bool) -> set[str]:
    """Which tables of tokens are parameters of their own, by transformers 5's rule: all if the configuration
    ties none; else those that the files hold with other values, as T5 1.1's do. Makes `tensors` agree.

    Args:
        names: of the shared table, the head, and the tables of encoder and decoder.
        tied: `tie_word_embeddings` of the configuration.
    """
    shared, head, *embeddings = names
    source = next((name for name in names if name in tensors), None)
    if source is None:
        return set()
    tensors.setdefault(shared, tensors[source])
    if not tied:
        for name in embeddings:  # transformers 4 tied, and saved, these whatever the configuration said
            tensors.setdefault(name, tensors[shared])
        return {head, *embeddings}
    written = [name for name in (head, *embeddings) if name in tensors]
    same = [name for name in written if np.array_equal(tensors[name], tensors[shared])]
    for name in same:
        del tensors[name]
    return set(written) - set(same)


def write_optimizer(folder: Path, moments: Mapping[str, Mapping[str, np.ndarray]], step: Any) -> None:
    """Writes `optimizer.safetensors`: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`.

    Args:
        moments: by PyTorch's name of the moment, then by parameter; none for an optimizer without state.
        step: updates done, the same for all parameters.
    """
    from safetensors.numpy import save_file

    tensors = {f"{kind}.{name}": value for kind, values in moments.items() for name, value in values.items()}
    parameters = next(iter(moments.values()), {})
    tensors |= {f"step.{name}": np.array(step, np.float32) for name in parameters}
    save_file(tensors, folder / OPTIMIZER)


def read_optimizer(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """What `write_optimizer`, or the form in PyTorch, wrote: the moments, and the updates done."""
    from safetensors.numpy import load_file

    moments: dict[str, dict[str, np.ndarray]] = {}
    for key, value in load_file(folder / OPTIMIZER).items():
        kind, _, name = key.partition(".")
        moments.setdefault(kind, {})[name] = value
    steps = moments.pop("step", {})
    return moments, int(max(steps.values(), default=0))

"""The model card, `README.md` of an output folder."""

import json
import logging
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.data import PHASES
from triptych.launchers import by_the_first
from triptych.output import ownership, record

logger = logging.getLogger(__name__)


@by_the_first
def save(model_args: Any, data_args: Any, args: Any, task: str, metrics: dict[str, Any], name: str) -> None:
    """Writes the model card, `README.md`, with the metrics where the hub finds them; a card of somebody else
    stays.

    Args:
        task: the hub's name for it, e.g. `summarization`.
        metrics: of the evaluation, with the prefix `eval_`.
        name: of the model.
    """
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import EvalResult

    folder = Path(args.output_dir)
    path = folder / ownership.CARD
    if path.exists() and ownership.CARD_MARK not in path.read_text(errors="replace"):
        logger.warning("%s is not ours, so no model card was written.", path)
        return
    local = Path(model_args.model_name_or_path or "").exists()
    sources = (data_args.source(split) for split in PHASES.values())
    dataset = data_args.dataset_name or next(filter(None, sources))
    values = {
        k.removeprefix("eval_"): v for k, v in metrics.items() if k.startswith("eval_") and "_per_" not in k
    }
    values = {
        k: round(v, 4)
        for k, v in values.items()
        if k not in ("runtime", "samples") and isinstance(v, int | float)
    }
    card = ModelCardData(
        model_name=name.rpartition("/")[2],
        base_model=None if local else model_args.model_name_or_path,
        library_name="transformers",
        tags=["triptych", task],
        pipeline_tag=task,
        datasets=[data_args.dataset_name] if data_args.dataset_name and "/" not in dataset[:1] else None,
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type=data_args.dataset_name or "own-files",
                dataset_name=Path(str(dataset)).name,
                metric_type=metric,
                metric_value=value,
            )
            for metric, value in values.items()
        ]
        or None,
    )
    source = model_args.model_name_or_path or f"a {model_args.model_type or 'new'} model from scratch"
    parts = [
        f"---\n{card.to_yaml()}\n---\n{ownership.CARD_MARK}\n\n# {name}",
        f"`{source}`, trained for {task} on `{dataset}` with triptych {__version__}."
        if args.do_train
        else f"`{source}`, evaluated for {task} on `{dataset}` with triptych {__version__}.",
        "\n".join(["| evaluation | |", "|---|---|", *(f"| {m} | {v:g} |" for m, v in values.items())])
        if values
        else "",
        "![Loss and learning rate](training_curve.png)" if (folder / "training_curve.png").exists() else "",
        _loading(folder, name),
        _facts(folder),
    ]
    # In one step: of a half of it nobody could tell that it is ours.
    record.write(path, ("\n\n".join(filter(None, parts)) + "\n").encode())


def _loading(folder: Path, name: str) -> str:
    """How to load the model in each framework."""
    path = folder / "config.json"
    architecture = (
        path.exists() and (json.loads(path.read_text(encoding="utf-8")).get("architectures") or [None])[0]
    )
    if not architecture:  # of a model that no run of ours has saved
        return ""
    what, cls, pil = "tokenizer", "AutoTokenizer", ""
    if (folder / "preprocessor_config.json").exists():
        # Other backends of transformers make other pixels.
        what, cls, pil = "processor", "AutoImageProcessor", ', backend="pil"'
    return f"""## How to load it
In PyTorch:
```python
from transformers import {cls}, {architecture}

{what} = {cls}.from_pretrained("{name}"{pil})
model = {architecture}.from_pretrained("{name}")
```
In TensorFlow, and with `triptych.flax` in the place of `triptych.tensorflow` in JAX:
```python
from huggingface_hub import snapshot_download
from transformers import AutoConfig, {cls}
from triptych.tensorflow import conversion

folder = snapshot_download("{name}")
{what} = {cls}.from_pretrained(folder{pil})
model = conversion.load(folder, AutoConfig.from_pretrained(folder))
```"""


def _facts(folder: Path) -> str:
    """Data, versions and arguments, from what the run has written down."""
    about = json.loads((folder / record.RUN).read_text(encoding="utf-8"))
    arguments = json.loads((folder / "arguments.json").read_text(encoding="utf-8"))
    lines = [f"Computed on {about['device']}, in {about['processes']} process(es), with "]
    lines[0] += ", ".join(f"{package} {version}" for package, version in about["versions"].items()) + "."
    if rows := about.get("training_rows"):
        lines.append(f"The training rows have the SHA-256 `{rows}` (`triptych.data.fingerprint`).")
    return "\n\n".join(
        [
            "## How it was made",
            *lines,
            "Its arguments, which the script takes as a file:",
            f"```json\n{json.dumps(arguments, indent=2, ensure_ascii=False)}\n```",
        ]
    )

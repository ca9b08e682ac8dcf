"""The model card, and sharing a finished run on the Hugging Face hub."""

import logging
from pathlib import Path
from typing import Any

from triptych import __version__, output
from triptych.errors import InputError
from triptych.launchers import by_the_first

logger = logging.getLogger(__name__)


def require_repository(args) -> str | None:
    """Creates the repository that the run will be pushed to, if it is not there; before training, so that a
    missing right to push does not cost a run.

    Returns:
        Its name `user/name`, or None without `--push_to_hub`.

    Raises:
        InputError: if the hub refuses or cannot be reached.
    """
    if not args.push_to_hub:
        return None
    from huggingface_hub import create_repo

    name = args.hub_model_id or Path(args.output_dir).resolve().name
    try:
        return create_repo(name, token=args.hub_token, private=args.hub_private_repo, exist_ok=True).repo_id
    except Exception as error:  # of the network, of authentication, of the name: the hub's client has many
        reason = str(error).strip().splitlines()
        raise InputError(
            f"--push_to_hub: {name} cannot be created on the hub "
            f"({reason[0] if reason else type(error).__name__})."
        ) from error


@by_the_first
def save_card(args, model_args, data_args, task: str, metrics: dict[str, Any]) -> None:
    """Writes the model card, `README.md`, with the metrics where the hub finds them; a card of somebody else
    stays.

    Args:
        task: the hub's name for it, e.g. `summarization`.
        metrics: of the evaluation, with the prefix `eval_`.
    """
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import EvalResult

    path = Path(args.output_dir) / output.CARD
    if path.exists() and output.CARD_MARK not in path.read_text(errors="replace"):
        logger.warning("%s is not ours, so no model card was written.", path)
        return
    name = (args.hub_model_id or Path(args.output_dir).resolve().name).split("/")[-1]
    local = Path(model_args.model_name_or_path or "").exists()
    dataset = (
        data_args.dataset_name or data_args.train_file or data_args.validation_file or data_args.test_file
    )
    values = {
        k.removeprefix("eval_"): v for k, v in metrics.items() if k.startswith("eval_") and "_per_" not in k
    }
    values = {k: round(v, 4) for k, v in values.items() if k not in ("runtime", "samples")}
    card = ModelCardData(
        model_name=name,
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
    rows = "\n".join(f"| {metric} | {value:g} |" for metric, value in values.items())
    path.write_text(
        f"---\n{card.to_yaml()}\n---\n{output.CARD_MARK}\n\n# {name}\n\n"
        f"{source}, trained for {task} on {dataset} with triptych {__version__}.\n\n"
        + (f"| evaluation | |\n|---|---|\n{rows}\n\n" if rows else "")
        + "Its arguments are in `arguments.json`, versions in `run.json`, losses in `training_curve.png`.\n",
        encoding="utf-8",
    )


@by_the_first
def push(args, repository: str | None) -> None:
    """Uploads the output folder without its checkpoints. A failure leaves the local result as it is."""
    if repository is None:
        return
    from huggingface_hub import upload_folder

    upload_folder(
        repo_id=repository,
        folder_path=args.output_dir,
        token=args.hub_token,
        ignore_patterns=["checkpoint-*", ".unfinished-*", "runs/*", "training_args.bin"],
        commit_message="Result of a training run",
    )
    logger.info("Pushed to %s", repository)

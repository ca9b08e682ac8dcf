"""Fine-tunes a BERT by low-rank corrections of its linear layers (LoRA) in PyTorch.

    python run_lora.py --output_dir out

Instead of a weight W, W + scale · up · down is used (Hu et al. 2021, section 4.1); only `up`, `down` and the new
head are trained. `--method full` trains everything, `--method head` the head alone. The folder written is a
checkpoint with the corrections added to the weights, which opens like any other.
"""

import time

import docstrings

if __name__ == "__main__":
    args = docstrings.parse(__doc__)  # before the slow imports

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification


class Corrected(nn.Module):
    """A linear layer that stays as it is, and a correction of low rank.

    Args:
        down: float32[rank, inputs].
        up: float32[outputs, rank].
    """

    def __init__(self, linear: nn.Linear, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.down, self.up = nn.Parameter(down), nn.Parameter(up)

    def forward(self, given: Tensor) -> Tensor:
        return self.linear(given) + self.scale * (given @ self.down.T @ self.up.T)


def load(args, found: dict[str, np.ndarray], corrections: dict[str, np.ndarray]) -> nn.Module:
    """The model of these weights, of which what the method trains needs gradients."""
    config = BertConfig(**docstrings.configuration(args) | {"num_labels": len(docstrings.PACKAGES)})
    model = BertForSequenceClassification(config)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()})
    for name in (name.removesuffix(".down") for name in corrections if name.endswith(".down")):
        down, up = (torch.from_numpy(corrections[f"{name}.{part}"]) for part in ("down", "up"))
        corrected = Corrected(model.get_submodule(name), down, up, args.scale)
        model.set_submodule(name, corrected)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = docstrings.is_trained(name, args.method)
    return model.eval()  # without dropout, so that the three frameworks agree


def tensors_of(model: nn.Module) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights and corrections, by the names that `docstrings.weights` gave them."""
    table = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    corrections = {name: array for name, array in table.items() if name.endswith((".down", ".up"))}
    found = {name.replace(".linear.", "."): array for name, array in table.items() if name not in corrections}
    return {name: np.array(array) for name, array in found.items()}, corrections


def logits_of(model: nn.Module, batch: dict[str, np.ndarray]) -> Tensor:
    """float32[rows, labels]"""
    inputs = {name: torch.from_numpy(array) for name, array in batch.items() if name != "labels"}
    return model(**inputs).logits


@torch.no_grad()
def evaluate(model: nn.Module, features: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([logits_of(model, piece).numpy() for piece in docstrings.pieces(features)])


def main(args) -> None:
    train, validation = docstrings.rows(args.train_rows)
    features, held_out = docstrings.encode(train, args), docstrings.encode(validation, args)
    model = load(args, *docstrings.weights(args))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, args.learning_rate, weight_decay=0.0)

    losses, began = [], time.process_time()
    for step, batch in enumerate(docstrings.batches(features, args)):
        optimizer.param_groups[0]["lr"] = docstrings.learning_rate(step, args)
        loss = functional.cross_entropy(logits_of(model, batch), torch.from_numpy(batch["labels"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = time.process_time() - began

    logits = evaluate(model, held_out)
    found, corrections = tensors_of(model)
    of_merged = logits  # of what has no corrections
    if corrections:
        of_merged = evaluate(load(args, docstrings.merged(found, corrections, args.scale), {}), held_out)
    results = docstrings.score(logits, of_merged, held_out["labels"])
    docstrings.save(
        args, found, corrections, validation, results | {"losses": losses, "cpu_seconds": seconds}
    )


if __name__ == "__main__":
    main(args)

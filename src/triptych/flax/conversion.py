"""From flax.nnx to Hugging Face and back: models in folders, and any tree of the shape of their parameters.

The path of a leaf is the name of its tensor; only the leaf itself has another name in Flax. The axes of
kernels are moved:

    encoder.block[0].layer[0].SelfAttention.q.kernel [in, out]
    encoder.block.0.layer.0.SelfAttention.q.weight   [out, in]
    vit.embeddings.patch_embeddings.projection.kernel [height, width, in, out]
    vit.embeddings.patch_embeddings.projection.weight [out, in, height, width]
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from triptych.errors import InputError
from triptych.flax.architectures.bart import BartForConditionalGeneration
from triptych.flax.architectures.bert import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForSequenceClassification,
    DistilBertForMaskedLM,
    DistilBertForMultipleChoice,
    DistilBertForSequenceClassification,
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForSequenceClassification,
    EncoderForQuestionAnswering,
    EncoderForTokenClassification,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)
from triptych.flax.architectures.convnext import ConvNextForImageClassification
from triptych.flax.architectures.deberta import (
    DebertaForMaskedLM,
    DebertaForMultipleChoice,
    DebertaForQuestionAnswering,
    DebertaForSequenceClassification,
    DebertaForTokenClassification,
)
from triptych.flax.architectures.decoder import DecoderForCausalLM
from triptych.flax.architectures.gpt2 import GPT2ForCausalLM
from triptych.flax.architectures.modernbert import (
    ModernBertForMaskedLM,
    ModernBertForMultipleChoice,
    ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
)
from triptych.flax.architectures.resnet import ResNetForImageClassification
from triptych.flax.architectures.swin import SwinForImageClassification
from triptych.flax.architectures.t5 import T5ForConditionalGeneration
from triptych.flax.architectures.vit import DeiTForImageClassificationWithTeacher, ViTForImageClassification
from triptych.models import barts, decoders, encoders, initial_weights, tensor_files, vision

GENERATES = "ForConditionalGeneration"  # the head of models that generate text
MODELS: dict[str, dict[str, Any]] = {
    GENERATES: {
        "t5": T5ForConditionalGeneration,
        "mt5": T5ForConditionalGeneration,
        **dict.fromkeys(barts.KINDS, BartForConditionalGeneration),
    },
    decoders.HEAD: {decoders.GPT2: GPT2ForCausalLM, **dict.fromkeys(decoders.KINDS, DecoderForCausalLM)},
    "ForSequenceClassification": {
        "bert": BertForSequenceClassification,
        "roberta": RobertaForSequenceClassification,
        "xlm-roberta": RobertaForSequenceClassification,
        "distilbert": DistilBertForSequenceClassification,
        "electra": ElectraForSequenceClassification,
        "modernbert": ModernBertForSequenceClassification,
        "deberta-v2": DebertaForSequenceClassification,
    },
    "ForTokenClassification": {
        **dict.fromkeys(initial_weights.BERTS, EncoderForTokenClassification),
        "modernbert": ModernBertForTokenClassification,
        "deberta-v2": DebertaForTokenClassification,
    },
    "ForQuestionAnswering": {
        **dict.fromkeys(initial_weights.BERTS, EncoderForQuestionAnswering),
        "modernbert": ModernBertForQuestionAnswering,
        "deberta-v2": DebertaForQuestionAnswering,
    },
    "ForMultipleChoice": {
        **dict.fromkeys(("bert", "roberta", "xlm-roberta"), BertForMultipleChoice),
        "distilbert": DistilBertForMultipleChoice,
        "electra": ElectraForMultipleChoice,
        "modernbert": ModernBertForMultipleChoice,
        "deberta-v2": DebertaForMultipleChoice,
    },
    encoders.MASKED: {
        "bert": BertForMaskedLM,
        **dict.fromkeys(("roberta", "xlm-roberta"), RobertaForMaskedLM),
        "distilbert": DistilBertForMaskedLM,
        "electra": ElectraForMaskedLM,
        "modernbert": ModernBertForMaskedLM,
        "deberta-v2": DebertaForMaskedLM,
    },
    vision.HEAD: {
        **dict.fromkeys(vision.VITS, ViTForImageClassification),
        **dict.fromkeys(vision.CONVNEXTS, ConvNextForImageClassification),
        vision.RESNET: ResNetForImageClassification,
        vision.SWIN: SwinForImageClassification,
    },
    vision.WITH_TEACHER: {"deit": DeiTForImageClassificationWithTeacher},
}
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def load(
    folder: Path | None,
    config: Any,
    head: str | None = None,
    *,
    seed: int = 0,
    ignore_mismatched_sizes: bool = False,
    positions: int | None = None,
    tokens: int | None = None,
    image_size: int | None = None,
    **options: Any,
) -> Any:
    """The model of a folder, or a new one; its parameters are float32, whatever the files hold.

    Args:
        folder: see `tensor_files.read_model`; None for a model from scratch.
        config: of transformers; `positions`, `tokens` and `image_size`, if given, and the labels that a head
            for questions needs are put into it.
        head: what transformers' class is called after the architecture's name (default: as the configuration
            says). One that does not generate starts anew if the folder has none; see
            `initial_weights.complete`.
        seed: of what is new.
        ignore_mismatched_sizes: whether a head for another number of labels is replaced by a new one.
        positions: how many positions the tables of BART's kin get, see `barts.settled`.
        tokens: how many rows the tables of a decoder alone get, see `decoders.settled`.
        image_size: of the pictures that a classifier gets, see `vision.set_image_size`.
        options: `dtype` and `gradient_checkpointing` of the model's class.

    Raises:
        InputError: if the folder is incomplete, or of an architecture or head that is not known.
    """
    head = vision.head(config, head or head_of(config))
    cls = model_class(config, head)
    if head not in (GENERATES, decoders.HEAD):
        encoders.settle_labels(config, head)
        grid = vision.set_image_size(config, image_size, trained=folder is not None)
        graphdef, like = empty(cls, config, **options)
        tensors = initial_weights.complete(folder, shapes(like), config, seed, ignore_mismatched_sizes, grid)
        return nnx.merge(graphdef, from_numpy(tensors, like))
    if positions:
        config.max_position_embeddings = positions
    if tokens:
        config.vocab_size = tokens
    if folder is None:
        own_tables = () if config.tie_word_embeddings else cls.tables[1:]
        if head == GENERATES:
            return cls(config, own_tables, **options, rngs=nnx.Rngs(params=seed))
        graphdef, like = empty(cls, config, own_tables, **options)
        return nnx.merge(
            graphdef, from_numpy(initial_weights.complete(None, shapes(like), config, seed), like)
        )
    return model_of(
        settled(tensor_files.read_model(folder), config, positions, tokens), config, cls, **options
    )


def settled(
    tensors: Mapping[str, np.ndarray], config: Any, positions: int | None = None, tokens: int | None = None
) -> dict[str, Any]:
    """The tensors of a file as its model has them; see `barts.settled` and `decoders.settled`."""
    if config.model_type in decoders.MODEL_TYPES:
        return decoders.settled(tensors, config, tokens)
    return barts.settled(tensors, config, positions)


def empty(cls: Any, config: Any, *own_tables: Collection[str], **options: Any) -> tuple[Any, Any]:
    """A model without values: its graph, and the tree of its parameters, which know their shapes alone."""
    return nnx.split(nnx.eval_shape(lambda: cls(config, *own_tables, **options, rngs=nnx.Rngs(0))))


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of parameters in the file, by their names there."""
    return {
        name: (*leaf.shape[:-3:-1], *leaf.shape[:-2]) if kernel else leaf.shape
        for name, kernel, leaf in named_leaves(tree)
    }


def head_of(config: Any) -> str:
    """The head of the class that a configuration names; one that generates if it names none."""
    architecture = next(iter(config.architectures or ()), "")
    if config.model_type in decoders.MODEL_TYPES:
        return decoders.HEAD
    return "For" + architecture.partition("For")[2] if "For" in architecture else GENERATES


def model_of(tensors: dict[str, np.ndarray], config: Any, cls: Any, **options: Any) -> Any:
    """The model that the tensors of a checkpoint make. Nothing is drawn at random: InputError names each
    parameter without a tensor, each tensor without a use, and each whose shape differs.

    Args:
        tensors: what `settled` returns.
        cls: of MODELS.
    """
    own_tables = tensor_files.settle_tables(tensors, cls.tables, config.tie_word_embeddings)
    graphdef, like = empty(cls, config, own_tables, **options)
    return nnx.merge(graphdef, from_numpy(tensors, like))


def save(model: Any, config: Any, folder: str | Path, generation_config: Any = None) -> None:
    """Writes a folder that `from_pretrained` of transformers opens; see `tensor_files.write_model`."""
    tensors = to_numpy(nnx.state(model))
    tensor_files.write_model(folder, tensors, config, generation_config, model.class_ending)


def to_numpy(tree: Any) -> dict[str, np.ndarray]:
    """Contiguous arrays under Hugging Face's names and in PyTorch's layout, from a tree of the shape of a
    model's state: its parameters, or a moment of Adam."""
    return {
        name: np.asarray(np.moveaxis(np.asarray(value), (-1, -2), (0, 1)) if kernel else value, order="C")
        for name, kernel, value in named_leaves(tree)
    }


def from_numpy(tensors: Mapping[str, np.ndarray], like: Any) -> Any:
    """The inverse of `to_numpy`: a tree with the structure and the types of `like`, and, if `like` holds
    arrays, with their sharding. InputError names each leaf without a tensor, each tensor without a leaf, and
    each whose shape differs."""
    leaves, values = named_leaves(like), []
    names = {name for name, _, _ in leaves}
    problems = [f"The tensor {name} is missing." for name in sorted(names - tensors.keys())]
    problems += [f"There is no place for the tensor {name}." for name in sorted(tensors.keys() - names)]
    for name, kernel, leaf in leaves:
        if name in tensors:
            value = np.moveaxis(tensors[name], (0, 1), (-1, -2)) if kernel else tensors[name]
            if value.shape != leaf.shape:
                problems.append(
                    f"The tensor {name} has, in Flax's layout, shape {value.shape}, not {leaf.shape}."
                )
                continue
            array = jnp.array(value, leaf.dtype)
            values.append(jax.device_put(array, leaf.sharding) if isinstance(leaf, jax.Array) else array)
    if problems:
        raise InputError(problems)
    return jax.tree.unflatten(jax.tree.structure(like), values)


def named_leaves(tree: Any) -> list[tuple[str, bool, Any]]:
    """For each leaf, in order: Hugging Face's name, whether it is a kernel (whose axes are moved), its
    value."""
    found = []
    for path, value in jax.tree.leaves_with_path(tree):
        *parents, leaf = (str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey))
        found.append((".".join([*parents, LEAVES.get(leaf, leaf)]), leaf == "kernel", value))
    return found


def model_class(config: Any, head: str = GENERATES) -> Any:
    """The class for a configuration of transformers with one of the heads in MODELS. If there is none,
    InputError lists the architectures that work."""
    known = MODELS[head]
    if config.model_type not in known:
        raise InputError(
            f"The architecture {config.model_type!r} is not supported in this form; there are: "
            f"{', '.join(known)}."
        )
    return known[config.model_type]

"""Weights between Keras models and folders of transformers: `model.safetensors`, PyTorch's names and layout.

Functions in the form of KerasHub's own converters say which variable is which tensor: they call
`loader.port_weight(variable, name, hook)`. The loader here, `Notes`, only notes these calls; loading, saving
and the optimizer's state follow from the notes. So whatever KerasHub converts can be exported as well:

    places    converter --port_weight--> Notes: for each variable its tensor's name, shape and hook
    fill      file --name--> tensor --hook--> variable
    scatter   variable --the hook, run on the positions of a tensor--> tensor --name--> file
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from triptych.errors import InputError
from triptych.models import barts, decoders, encoders, initial_weights, tensor_files, vision
from triptych.schedule import decays
from triptych.tensorflow import architectures, keras_private
from triptych.tensorflow.architectures import (
    GPT2,
    Bart,
    Causal,
    Classifier,
    Deberta,
    Decoder,
    ImageClassifier,
    Model,
    ModernBert,
    Patches,
    Seq2Seq,
)

# Of a layer's parts: queries, keys, values, the attention's output, the two dense parts, the two norms
BERT_NAMES = (
    *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    *("intermediate.dense", "output.dense", "attention.output.LayerNorm", "output.LayerNorm"),
)
DISTILBERT_NAMES = (
    *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    *("ffn.lin1", "ffn.lin2", "sa_layer_norm", "output_layer_norm"),
)


class Place(NamedTuple):
    """Where a variable stands in the file: in the tensor of this name and shape, from which `hook` makes the
    variable's layout."""

    variable: keras.Variable
    name: str
    shape: tuple[int, ...]
    hook: Callable[[np.ndarray, list[int]], np.ndarray] | None

    def view(self, tensor: np.ndarray) -> np.ndarray:
        """The part of the tensor that is the variable's, as the variable has it."""
        return self.hook(tensor, list(self.variable.shape)) if self.hook else tensor


class Notes:
    """The loader with which a converter is run, so that it notes the place of each variable.

    Args:
        shapes: of the file's tensors by name, for converters that do not state them, such as KerasHub's.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]] | None = None):
        self.shapes = shapes or {}
        self.places: list[Place] = []

    def port_weight(
        self, keras_variable, hf_weight_key: str, hook_fn=None, shape: Sequence[int] | None = None
    ) -> None:
        name = hf_weight_key if shape else self._name(hf_weight_key)
        self.places.append(Place(keras_variable, name, tuple(shape or self.shapes[name]), hook_fn))

    def get_tensor(self, hf_weight_key: str) -> np.ndarray:
        """Zeros, for converters that try which names a file has; KeyError if it has no such tensor."""
        return np.zeros(self.shapes[self._name(hf_weight_key)])

    def _name(self, name: str) -> str:
        # KerasHub's names lack the prefix of the model within the one that was saved.
        return next((full for full in self.shapes if full == name or full.endswith("." + name)), name)


def places(model: Model) -> list[Place]:
    """Every variable of a model, and where it stands in the file."""
    notes = Notes()
    if isinstance(model, ImageClassifier):
        for name, part in model.parts.items():
            _convert_part(notes, part, name)
        return notes.places
    if isinstance(model, Classifier):
        of_kind = {ModernBert: _convert_modernbert, Deberta: _convert_deberta}
        convert = (each for kind, each in of_kind.items() if isinstance(model, kind))
        next(convert, _convert_encoder)(model, notes)
        for name, part in model.head_layers.items():
            if isinstance(part, architectures.Bias):
                _same(notes, part.bias, f"{name}.bias")
                continue
            normed = isinstance(part, keras.layers.LayerNormalization)
            (_norm if normed else _linear)(notes, part, name)
        return notes.places
    if isinstance(model, Causal):
        table, head = decoders.tables(model.config)
        _same(notes, model.tokens.embeddings, table)
        if model.lm_head is not None:
            _same(notes, model.lm_head.embeddings, head)
        (_convert_gpt2 if isinstance(model, GPT2) else _convert_decoder)(model, notes)
        return notes.places
    _tables(model, notes)
    (_convert_bart if isinstance(model, Bart) else _convert_t5)(model, notes)
    return notes.places


def _convert_t5(model: architectures.T5, loader: Notes) -> None:
    def attention(part, name: str) -> None:
        for letter, word in zip("qkvo", ("query", "key", "value", "output"), strict=True):
            _linear(loader, getattr(part, f"{word}_projector"), f"{name}.{letter}")

    for stack in ("encoder", "decoder"):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        _same(loader, getattr(model, f"{stack}_bias").embeddings, bias)
        for i, layer in enumerate(getattr(model, f"{stack}_layers")):
            part = f"{stack}.block.{i}.layer"
            attention(layer.self_attention, f"{part}.0.SelfAttention")
            _same(loader, layer.self_attention_layer_norm.weight, f"{part}.0.layer_norm.weight")
            if stack == "decoder":
                attention(layer.cross_attention, f"{part}.1.EncDecAttention")
                _same(loader, layer.cross_attention_layer_norm.weight, f"{part}.1.layer_norm.weight")
            part = f"{part}.{2 if stack == 'decoder' else 1}"
            gated = layer.use_gated_activation
            _linear(loader, layer.input_projector, f"{part}.DenseReluDense.{'wi_0' if gated else 'wi'}")
            if gated:
                _linear(loader, layer.gate_projector, f"{part}.DenseReluDense.wi_1")
            _linear(loader, layer.output_projector, f"{part}.DenseReluDense.wo")
            _same(loader, layer.layer_norm.weight, f"{part}.layer_norm.weight")
        _same(loader, getattr(model, f"{stack}_norm").weight, f"{stack}.final_layer_norm.weight")


def _convert_bart(model: Bart, loader: Notes) -> None:
    norm = partial(_norm, loader)

    def attention(part, name: str) -> None:
        for letter, word in {"q": "query", "k": "key", "v": "value", "out": "output"}.items():
            _linear(loader, getattr(part, f"{word}_dense"), f"{name}.{letter}_proj")

    if model.final_logits_bias is not None:
        _same(loader, model.final_logits_bias, "final_logits_bias")
    for stack in barts.SIDES:
        if model.kind.positions_in_file:
            positions = model.positions[stack].position_embeddings
            _same(loader, positions, f"model.{stack}.embed_positions.weight")
        if model.kind.embedding_norm:
            norm(model.first_norms[stack], f"model.{stack}.layernorm_embedding")
        for i, layer in enumerate(getattr(model, f"{stack}_layers")):
            name, parts = f"model.{stack}.layers.{i}", keras_private.parts(layer)
            attention(parts.self_attention, f"{name}.self_attn")
            norm(parts.self_attention_norm, f"{name}.self_attn_layer_norm")
            if stack == "decoder":
                attention(parts.cross_attention, f"{name}.encoder_attn")
                norm(parts.cross_attention_norm, f"{name}.encoder_attn_layer_norm")
            _linear(loader, parts.inner_dense, f"{name}.fc1")
            _linear(loader, parts.outer_dense, f"{name}.fc2")
            norm(parts.dense_norm, f"{name}.final_layer_norm")
        if model.norm_first:
            norm(model.last_norms[stack], f"model.{stack}.layer_norm")


def _convert_encoder(model: Classifier, loader: Notes) -> None:
    base = encoders.base(model.config)
    for use, table in model.tables.items():
        _same(loader, table.embeddings, f"{base}.embeddings.{use}_embeddings.weight")
    _norm(loader, model.norm, f"{base}.embeddings.LayerNorm")
    if model.projection is not None:
        _linear(loader, model.projection, f"{base}.embeddings_project")
    stack, names = ("transformer", DISTILBERT_NAMES) if base == "distilbert" else ("encoder", BERT_NAMES)
    for i, layer in enumerate(model.encoder_layers):
        name, parts = f"{base}.{stack}.layer.{i}", keras_private.parts(layer)
        own, norms = parts.self_attention, (parts.self_attention_norm, parts.dense_norm)
        linear = [own.query_dense, own.key_dense, own.value_dense, own.output_dense]
        linear += [parts.inner_dense, parts.outer_dense]
        for part, of_part in zip(linear, names[:6], strict=True):
            _linear(loader, part, f"{name}.{of_part}")
        for part, of_part in zip(norms, names[6:], strict=True):
            _norm(loader, part, f"{name}.{of_part}")


def _convert_modernbert(model: ModernBert, loader: Notes) -> None:
    _same(loader, model.tables["tok"].embeddings, "model.embeddings.tok_embeddings.weight")
    _norm(loader, model.norm, "model.embeddings.norm")
    for i, layer in enumerate(model.encoder_layers):
        for part, dense in layer.linear.items():
            _linear(loader, dense, f"model.layers.{i}.{part}")
        for part, norm in layer.norms.items():
            _norm(loader, norm, f"model.layers.{i}.{part}")
    _norm(loader, model.final_norm, "model.final_norm")


def _convert_deberta(model: Deberta, loader: Notes) -> None:
    for use, table in model.tables.items():
        _same(loader, table.embeddings, f"deberta.embeddings.{use}_embeddings.weight")
    if model.projection is not None:
        _linear(loader, model.projection, "deberta.embeddings.embed_proj")
    _norm(loader, model.norm, "deberta.embeddings.LayerNorm")
    if model.distance_table is not None:
        _same(loader, model.distance_table.embeddings, "deberta.encoder.rel_embeddings.weight")
    if model.distance_norm is not None:
        _norm(loader, model.distance_norm, "deberta.encoder.LayerNorm")
    if model.convolution is not None:
        kernel, name = model.convolution.conv.kernel, "deberta.encoder.conv"
        # PyTorch's weight is [outputs, inputs, places], Keras' kernel [places, inputs, outputs].
        loader.port_weight(kernel, f"{name}.conv.weight", lambda tensor, _: tensor.T, kernel.shape[::-1])
        _same(loader, model.convolution.conv.bias, f"{name}.conv.bias")
        _norm(loader, model.convolution.norm, f"{name}.LayerNorm")
    for i, layer in enumerate(model.encoder_layers):
        for part, dense in layer.linear.items():
            _linear(loader, dense, f"deberta.encoder.layer.{i}.{part}")
        for part, norm in layer.norms.items():
            _norm(loader, norm, f"deberta.encoder.layer.{i}.{part}")


def _convert_part(loader: Notes, part: Any, name: str) -> None:
    """A part of a classifier of pictures, and the parts within it."""
    if within := getattr(part, "parts", None):
        for own, each in within.items():
            _convert_part(loader, each, f"{name}.{own}")
    elif isinstance(part, keras.layers.LayerNormalization):
        _norm(loader, part, name)
    elif isinstance(part, keras.layers.Dense):
        _linear(loader, part, name)
    elif isinstance(part, (Patches, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        _convolution(loader, part, name)
    else:
        _same(loader, part, name)


def _convert_decoder(model: Decoder, loader: Notes) -> None:
    for i, layer in enumerate(model.decoder_layers):
        for part, dense in layer.linear.items():
            within = "mlp" if part in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            _linear(loader, dense, f"model.layers.{i}.{within}.{part}")
        for part, norm in layer.norms.items():
            name = f"self_attn.{part}" if part in ("q_norm", "k_norm") else part
            _same(loader, norm.scale, f"model.layers.{i}.{name}.weight")
    _same(loader, model.norm.scale, "model.norm.weight")


def _convert_gpt2(model: GPT2, loader: Notes) -> None:
    _same(loader, model.positions.embeddings, "transformer.wpe.weight")
    for i, layer in enumerate(model.decoder_layers):
        for part, dense in layer.linear.items():  # whose weights are [inputs, outputs] in the file as well
            _same(loader, dense.kernel, f"transformer.h.{i}.{part}.weight")
            _same(loader, dense.bias, f"transformer.h.{i}.{part}.bias")
        for part, norm in layer.norms.items():
            _norm(loader, norm, f"transformer.h.{i}.{part}")
    _norm(loader, model.norm, "transformer.ln_f")


def _tables(model: Seq2Seq, loader: Notes) -> None:
    shared, *names = table_names(type(model))
    _same(loader, model.shared.embeddings, shared)
    for use, name in zip(architectures.TABLES, names, strict=True):
        if model.tables[use] is not model.shared:
            _same(loader, model.tables[use].embeddings, name)


def table_names(cls: type[Seq2Seq]) -> tuple[str, ...]:
    """The shared table's name in the file, and those of the tables that each of TABLES may have."""
    prefix = "model." if cls is Bart else ""
    shared, *embeddings = (
        f"{prefix}{name}.weight" for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    )
    return (shared, "lm_head.weight", *embeddings)


def _norm(loader: Notes, layer: keras.layers.LayerNormalization, name: str) -> None:
    _same(loader, layer.gamma, f"{name}.weight")
    if layer.center:
        _same(loader, layer.beta, f"{name}.bias")


def _same(loader: Notes, variable: keras.Variable, name: str) -> None:
    loader.port_weight(variable, name, shape=variable.shape)


def _linear(loader: Notes, layer: keras.layers.Layer, name: str) -> None:
    # PyTorch's weight is [outputs, inputs]. In Keras the inputs come first, and BART's heads have an axis.
    outputs = layer.kernel.shape[-1] if layer.bias is None else math.prod(layer.bias.shape)
    shape = (outputs, math.prod(layer.kernel.shape) // outputs)
    loader.port_weight(layer.kernel, f"{name}.weight", lambda tensor, shape: tensor.T.reshape(shape), shape)
    if layer.bias is not None:
        loader.port_weight(layer.bias, f"{name}.bias", np.reshape, (outputs,))


def _convolution(loader: Notes, layer: Any, name: str) -> None:
    # PyTorch's weight is [outputs, inputs, height, width], with one input where each channel has its own.
    # Keras' kernel is [height, width, inputs, outputs], or of each channel by itself [height, width,
    # channels, 1]. That of `Patches` has the first three axes in one.
    alone = isinstance(layer, keras.layers.DepthwiseConv2D)
    tall, wide, inputs, outputs = layer.full_shape if isinstance(layer, Patches) else layer.kernel.shape
    shape = (inputs, 1, tall, wide) if alone else (outputs, inputs, tall, wide)
    axes = (2, 3, 0, 1) if alone else (2, 3, 1, 0)

    def view(tensor, shape):
        return tensor.transpose(axes).reshape(shape)

    loader.port_weight(layer.kernel, f"{name}.weight", view, shape)
    if layer.bias is not None:
        _same(loader, layer.bias, f"{name}.bias")


def scatter(places: Sequence[Place], values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The file's tensors by name, float32, from a value for each of `places`, laid out as its variable.

    Raises:
        ValueError: if the places do not fill a tensor.
    """
    tensors: dict[str, np.ndarray] = {}
    unfilled: dict[str, int] = {}
    for place, value in zip(places, values, strict=True):
        tensor = tensors.setdefault(place.name, np.empty(place.shape, np.float32))
        unfilled[place.name] = unfilled.get(place.name, tensor.size) - value.size
        view = place.view(tensor)
        if np.may_share_memory(view, tensor):
            view[...] = value
        else:  # The hook copies. Run on the positions in the tensor, it says where each value comes from.
            tensor.reshape(-1)[place.view(np.arange(tensor.size).reshape(tensor.shape))] = value
    if partly := [name for name, size in unfilled.items() if size]:
        raise ValueError(f"the variables are only a part of {', '.join(partly)}")
    return tensors


def to_numpy(model: Model, values: Sequence[Any]) -> dict[str, np.ndarray]:
    """The file's tensors by name, from an array or variable for each of `model.trainable_variables`, such as
    a moment of Adam."""
    by_variable = {id(v): value for v, value in zip(model.trainable_variables, values, strict=True)}
    found = [place for place in places(model) if id(place.variable) in by_variable]
    return scatter(found, [ops.convert_to_numpy(by_variable[id(place.variable)]) for place in found])


def from_numpy(model: Model, tensors: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The inverse of `to_numpy`.

    Raises:
        InputError: naming each tensor that is missing, left over or of another shape.
    """
    by_variable = {id(place.variable): place for place in places(model)}
    found = [by_variable[id(variable)] for variable in model.trainable_variables]
    require_match(found, tensors)
    return [place.view(tensors[place.name]) for place in found]


def decayed(model: Model) -> list[bool]:
    """For each of `model.trainable_variables`, whether weight decay applies. The dimensions of its tensor
    decide: the biases of BART's attention have two in Keras, and one in PyTorch."""
    shapes = {id(place.variable): place.shape for place in places(model)}
    return [decays(shapes[id(variable)]) for variable in model.trainable_variables]


def fill(model: Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Assigns every variable of a model from the file's tensors, whatever their float type.

    Raises:
        InputError: naming each tensor that is missing, left over or of another shape.
    """
    found = places(model)
    require_match(found, tensors)
    for place in found:
        place.variable.assign(place.view(tensors[place.name].astype(np.float32)))


def require_match(places: Sequence[Place], tensors: Mapping[str, np.ndarray]) -> None:
    """Raises InputError, which names each tensor that is missing, left over or of another shape."""
    shapes = {place.name: place.shape for place in places}
    problems = [f"The tensor {name} is missing." for name in sorted(shapes.keys() - tensors.keys())]
    problems += [
        f"There is no place for the tensor {name}." for name in sorted(tensors.keys() - shapes.keys())
    ]
    problems += [
        f"The tensor {name} has shape {tensors[name].shape}, not {shape}."
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if problems:
        raise InputError(problems)


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
) -> Model:
    """The model of a folder, or a new one.

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
        options: `dtype` and `gradient_checkpointing` of `architectures.build`.

    Raises:
        InputError: if the folder is incomplete, or of an architecture or head that is not known.
    """
    head = vision.head(config, head or head_of(config))
    if head not in (architectures.GENERATES, decoders.HEAD):
        encoders.settle_labels(config, head)
        grid = vision.set_image_size(config, image_size, trained=folder is not None)
        model = architectures.build(config, head, **options)
        own = shapes(model)
        fill(model, initial_weights.complete(folder, own, config, seed, ignore_mismatched_sizes, grid))
        return model
    if positions:
        config.max_position_embeddings = positions
    if tokens:
        config.vocab_size = tokens
    if folder is not None:
        return model_of(
            settled(tensor_files.read_model(folder), config, positions, tokens), config, head, **options
        )
    if head == architectures.GENERATES:
        return initialise(config, seed, **options)
    own_tables = () if config.tie_word_embeddings else decoders.tables(config)[1:]
    model = architectures.build(config, head, own_tables=own_tables, **options)
    fill(model, initial_weights.complete(None, shapes(model), config, seed))
    return model


def settled(
    tensors: Mapping[str, np.ndarray], config: Any, positions: int | None = None, tokens: int | None = None
) -> dict[str, Any]:
    """The tensors of a file as its model has them; see `barts.settled` and `decoders.settled`."""
    if config.model_type in decoders.MODEL_TYPES:
        return decoders.settled(tensors, config, tokens)
    return barts.settled(tensors, config, positions)


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's parameters in the file, by their names there."""
    return {place.name: place.shape for place in places(model)}


def head_of(config: Any) -> str:
    """The head of the class that a configuration names; one that generates if it names none."""
    architecture = next(iter(config.architectures or ()), "")
    if config.model_type in decoders.MODEL_TYPES:
        return decoders.HEAD
    return "For" + architecture.partition("For")[2] if "For" in architecture else architectures.GENERATES


def model_of(
    tensors: dict[str, np.ndarray], config: Any, head: str = architectures.GENERATES, **options: Any
) -> Seq2Seq | Causal:
    """The model that the tensors of a checkpoint make.

    Nothing is drawn at random: InputError names each variable without a tensor, each tensor without a use,
    and each whose shape differs.

    Args:
        tensors: what `settled` returns.
        config: the model's, of transformers.AutoConfig.
        head: one that generates.
        options: `dtype` and `gradient_checkpointing` of `architectures.build`.
    """
    cls = architectures.model_class(config, head)
    alone = issubclass(cls, Causal)
    names = decoders.tables(config) if alone else table_names(cls)
    own_tables = tensor_files.settle_tables(tensors, names, config.tie_word_embeddings)
    if not alone:
        uses = zip(architectures.TABLES, names[1:], strict=True)
        own_tables = {use for use, name in uses if name in own_tables}
    model = architectures.build(config, head, own_tables=own_tables, **options)
    fill(model, tensors)
    return model


def initialise(config: Any, seed: int, **options: Any) -> Seq2Seq:
    """A new model whose parameters NumPy's generator draws from the distributions of transformers; for the
    other arguments see `model_of`."""
    own_tables = () if config.tie_word_embeddings else architectures.TABLES
    model = architectures.build(config, own_tables=own_tables, **options)
    generator = np.random.default_rng(seed)
    for place in places(model):
        if place.name.endswith("embed_positions.weight") and model.kind.sinusoids:
            continue  # as they were made
        mean, deviation = (_initial_bart if isinstance(model, Bart) else _initial_t5)(place.name, config)
        values = mean + deviation * generator.standard_normal(place.shape, dtype=np.float32)
        if isinstance(model, Bart) and place.name in {*table_names(Bart)} - {"lm_head.weight"}:
            values[config.pad_token_id] = 0
        place.variable.assign(place.view(values))
    return model


def _initial_t5(name: str, config: Any) -> tuple[float, float]:
    """Mean and standard deviation of a tensor at first."""
    part, factor = name.split(".")[-2], config.initializer_factor
    if "norm" in part:
        return factor, 0.0
    deviations = {
        "shared": 1.0,
        "q": (config.d_model * config.d_kv) ** -0.5,
        "o": (config.num_heads * config.d_kv) ** -0.5,
        "wo": config.d_ff**-0.5,
    }
    return 0.0, factor * deviations.get(part, config.d_model**-0.5)


def _initial_bart(name: str, config: Any) -> tuple[float, float]:
    """Mean and standard deviation of a tensor at first."""
    if name.endswith("bias"):
        return 0.0, 0.0
    return (1.0, 0.0) if "norm" in name.split(".")[-2] else (0.0, config.init_std)


def save(model: Model, folder: str | Path, generation_config: Any = None) -> None:
    """Writes a folder that `from_pretrained` of transformers opens; see `tensor_files.write_model`."""
    found = places(model)
    tensors = scatter(found, [ops.convert_to_numpy(place.variable) for place in found])
    tensor_files.write_model(folder, tensors, model.config, generation_config, model.class_ending)


def restore(model: Model, folder: str | Path) -> None:
    """Assigns the variables of a model from what `save`, of this form or another, has written."""
    fill(model, tensor_files.read_model(folder))

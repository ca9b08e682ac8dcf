"""Decoders alone, models of language: what sets the architectures apart, and what their files hold.

GPT-2 has a module of its own in each framework; all others are one, by these settings.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import InputError

HEAD = "ForCausalLM"  # what transformers' class is called after the architecture's name
GPT2 = "gpt2"
SLIDING = "sliding_attention"
LAYER_TYPES = (SLIDING, "full_attention")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# What files of older releases hold and no model reads: masks of GPT-2, frequencies of rotations
UNUSED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


class Kind(NamedTuple):
    """What sets one architecture apart from the others.

    Attributes:
        norms: names of the norms before and after attention, and before and after the dense part.
        head_norms: of queries and keys: of each head, or of all heads together; None without.
        biases: of queries, keys and values, whatever the configuration says.
        norm_offset: added to a norm's scale, which is learnt as the difference from it.
        scales_embeddings: by the square root of the width.
    """

    norms: tuple[str | None, ...] = ("input_layernorm", None, "post_attention_layernorm", None)
    head_norms: str | None = None
    biases: bool = False
    norm_offset: float = 0.0
    scales_embeddings: bool = False


KINDS = {
    "llama": Kind(),
    "mistral": Kind(),
    "qwen2": Kind(biases=True),
    "qwen3": Kind(head_norms="each"),
    "smollm3": Kind(),
    "olmo2": Kind((None, "post_attention_layernorm", None, "post_feedforward_layernorm"), head_norms="all"),
    "gemma3_text": Kind(
        norms=(
            *("input_layernorm", "post_attention_layernorm"),
            *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        ),
        head_norms="each",
        norm_offset=1.0,
        scales_embeddings=True,
    ),
}
MODEL_TYPES = (GPT2, *KINDS)


class Rope(NamedTuple):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        frequencies: float32 numbers, half as many as a head is wide: radians from a place to the next.
        factor: of the rotated queries and keys; 1 but for YaRN.
    """

    frequencies: tuple[float, ...]
    factor: float = 1.0


class LayerSettings(NamedTuple):
    """What may differ from layer to layer.

    Attributes:
        rope: None for a layer without positions.
        window: how many places are seen, the own one among them; None for all.
    """

    rope: Rope | None
    window: int | None


class DecoderSettings(NamedTuple):
    """What the configurations of all but GPT-2 say under different names."""

    kind: Kind
    width: int
    inner: int  # width between the dense layers
    layers: tuple[LayerSettings, ...]
    heads: int
    key_value_heads: int
    head_width: int
    activation: str
    norm_epsilon: float
    attention_biases: bool  # of queries, keys and values
    output_bias: bool  # of attention
    dense_biases: bool
    attention_scale: float
    embedding_scale: float
    attention_dropout: float
    padding: int | None  # the token whose row of the table is not learnt by reading it


def require_supported(config: Any) -> None:
    """Raises InputError, which names every setting of a decoder's configuration that no model here has."""
    heads, width = config.num_attention_heads, config.hidden_size
    unsupported = {"add_cross_attention", "use_bidirectional_attention"}
    unsupported |= {"final_logit_softcapping", "attn_logit_softcapping"}
    problems = [
        f"{name}={value!r} is not supported in this form; without it there would be other answers."
        for name in sorted(unsupported)
        if (value := getattr(config, name, None))
    ]
    if config.model_type == GPT2:
        if width % heads:
            problems.append(f"n_embd={width} is no multiple of n_head={heads}.")
    else:
        if heads % config.num_key_value_heads:
            shared = f"num_key_value_heads={config.num_key_value_heads}"
            problems.append(f"num_attention_heads={heads} is no multiple of {shared}.")
        problems += layer_problems(config)
    refuse(config, problems)


def layer_problems(config: Any) -> list[str]:
    """What no model here has of the layers' kinds and their rotations."""
    problems = []
    if other := {*layer_types(config)} - {*LAYER_TYPES}:
        problems.append(f"layer_types: {', '.join(sorted(other))} are not supported in this form.")
    for parameters in {id(each): each for each in rope_parameters(config)}.values():
        problems += _rope_problems(parameters)
    return problems


def refuse(config: Any, problems: list[str]) -> None:
    """Raises InputError with problems of a configuration, if there are any."""
    if problems:
        raise InputError([f"The configuration of the {config.model_type}: {each}" for each in problems])


def settings(config: Any) -> DecoderSettings:
    """Those of a configuration of transformers, of one of KINDS.

    Raises:
        InputError: see `require_supported`.
    """
    require_supported(config)
    kind, heads = KINDS[config.model_type], config.num_attention_heads
    biased = bool(getattr(config, "attention_bias", False))
    own_scale = getattr(config, "query_pre_attn_scalar", None)
    padding = config.pad_token_id
    return DecoderSettings(
        kind=kind,
        width=config.hidden_size,
        inner=config.intermediate_size,
        layers=_layers(config),
        heads=heads,
        key_value_heads=config.num_key_value_heads,
        head_width=head_width(config),
        activation=getattr(config, "hidden_activation", None) or config.hidden_act,
        norm_epsilon=config.rms_norm_eps,
        attention_biases=kind.biases or (biased and config.model_type != "mistral"),
        output_bias=biased and config.model_type not in ("mistral", "qwen2"),
        dense_biases=bool(getattr(config, "mlp_bias", False)) and config.model_type in ("llama", "smollm3"),
        attention_scale=(own_scale or head_width(config)) ** -0.5,
        embedding_scale=math.sqrt(config.hidden_size) if kind.scales_embeddings else 1.0,
        attention_dropout=float(config.attention_dropout or 0),
        padding=None if padding is None else padding % config.vocab_size,
    )


def head_width(config: Any) -> int:
    """The width of a head, which need not be the model's by their number."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _layers(config: Any) -> tuple[LayerSettings, ...]:
    window = getattr(config, "sliding_window", None)
    if config.model_type == "smollm3" and not config.use_sliding_window:
        window = None
    rotates = getattr(config, "no_rope_layers", None) or [1] * config.num_hidden_layers
    each = zip(layer_types(config), rope_parameters(config), rotates, strict=False)
    return tuple(
        LayerSettings(rope(config, parameters) if rotated else None, window if kind == SLIDING else None)
        for kind, parameters, rotated in each
    )


def layer_types(config: Any) -> list[str]:
    """By layer, how far it sees. All of Mistral's have its window."""
    if config.model_type == "mistral":
        return [SLIDING] * config.num_hidden_layers
    return getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers


def rope_parameters(config: Any) -> list[dict[str, Any]]:
    """By layer, the settings of its rotations, where transformers 5 has them. It puts those there that files
    of older releases have as `rope_theta`, `rope_scaling` and `rope_local_base_freq`."""
    found = config.rope_parameters
    return [found.get(kind, found) for kind in layer_types(config)]


def _rope_problems(parameters: Mapping[str, Any]) -> list[str]:
    kind, part = parameters.get("rope_type", "default"), parameters.get("partial_rotary_factor")
    problems = []
    if kind not in ROPE_TYPES:
        known = ", ".join(ROPE_TYPES)
        problems.append(f"rope_type={kind!r} is not supported in this form; there are: {known}.")
    if part not in (None, 1):
        problems.append(f"partial_rotary_factor={part} is not supported in this form.")
    return problems


def rope(config: Any, parameters: Mapping[str, Any]) -> Rope:
    """Rotary positions as a configuration's `rope_parameters`, or those of a kind of layers, describe them.

    They are computed as PyTorch computes them, step by step in float32, but for the powers, which it rounds
    rightly: at the thousandth place an angle has the frequency's error a thousand times.
    """
    width, base = head_width(config), parameters["rope_theta"]
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    spans = (base ** exponents.astype(np.float64)).astype(np.float32)  # places to a radian
    found, factor = np.float32(1) / spans, 1.0
    if parameters["rope_type"] == "linear":
        found = found / np.float32(parameters["factor"])
    elif parameters["rope_type"] == "llama3":
        found = _llama3(found, parameters)
    elif parameters["rope_type"] == "yarn":
        found, factor = _yarn(spans, config, parameters)
    return Rope(tuple(map(float, found)), float(factor))


def _llama3(frequencies: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    """As Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783): slow rotations become slower by the factor,
    fast ones stay, and those between are mixed."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] / (2 * math.pi / frequencies)
    stays = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - stays) * frequencies / parameters["factor"] + stays * frequencies


def _yarn(spans: np.ndarray, config: Any, parameters: Mapping[str, Any]) -> tuple[np.ndarray, float]:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): as `_llama3`, with a ramp over the numbers of the rotations,
    and a factor."""
    width, base = head_width(config), parameters["rope_theta"]
    original = parameters["original_max_position_embeddings"]
    scale = parameters.get("factor") or config.max_position_embeddings / original

    def growth(weight: float = 1.0) -> float:
        return 0.1 * weight * math.log(scale) + 1 if scale > 1 else 1.0

    def number(turns: float) -> float:
        """That of the rotation which makes so many turns in the original length."""
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = number(parameters.get("beta_fast") or 32), number(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    last += 0.001 if first == last else 0
    stays = 1 - np.clip((np.arange(width // 2, dtype=np.float32) - first) / (last - first), 0, 1)
    found = 1 / (scale * spans) * (1 - stays) + 1 / spans * stays
    factor = parameters.get("attention_factor")
    if factor is None:
        weights = [parameters.get(name) or 0.0 for name in ("mscale", "mscale_all_dim")]
        factor = growth(weights[0]) / growth(weights[1]) if all(weights) else growth()
    return found, factor


def kind(config: Any) -> Kind:
    """What sets the architecture of a configuration apart; what is none of KINDS has no such thing."""
    return KINDS.get(config.model_type, Kind())


def base(config: Any) -> str:
    """The name of the model within the one that has a head."""
    return "transformer" if config.model_type == GPT2 else "model"


def tables(config: Any) -> tuple[str, str]:
    """The names of the table of tokens, and of the head's, which may be the same."""
    return f"{base(config)}.{'wte' if config.model_type == GPT2 else 'embed_tokens'}.weight", "lm_head.weight"


def settled(
    tensors: Mapping[str, np.ndarray], config: Any, tokens: int | None = None
) -> dict[str, np.ndarray]:
    """The tensors of a file as the model with its head has them: under its names where they were saved
    without it, as the published GPT-2 is, and without those that no model reads.

    Args:
        tokens: how many rows the tables of tokens get, see `grown`; None for as many as they have.
    """
    prefix, head = f"{base(config)}.", tables(config)[1]
    bare = not any(name.startswith(prefix) for name in tensors)
    found = {
        f"{prefix}{name}" if bare and name != head else name: value
        for name, value in tensors.items()
        if not name.endswith(UNUSED)
    }
    if tokens is not None:
        found |= {name: grown(found[name], tokens) for name in tables(config) if name in found}
    return found


def grown(table: np.ndarray, rows: int) -> np.ndarray:
    """A table of tokens with more rows, each the mean of those that it has: so no token before becomes
    unlikely by them (Hewitt 2021, "Initializing new word embeddings for pretrained language models")."""
    mean = table.mean(axis=0, dtype=np.float64).astype(table.dtype)
    return np.concatenate([table, np.tile(mean, (rows - len(table), 1))])

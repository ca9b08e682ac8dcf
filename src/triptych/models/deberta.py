"""DeBERTa of versions 2 and 3: what its configuration says, and how far apart tokens count as alike."""

from typing import Any, NamedTuple

import numpy as np

from triptych.models import decoders
from triptych.models.encoders import MASKED, OUTPUTS

MODEL_TYPE = "deberta-v2"
# What scores of attention are made of beside a token's match with another: of a token's match with a
# distance, of a distance's with a token
CONTENT_TO_POSITION, POSITION_TO_CONTENT = "c2p", "p2c"


class DebertaSettings(NamedTuple):
    """What a configuration of DeBERTa says.

    Attributes:
        positions: rows of the table of places; 0 where only distances count.
        span: the table of distances has twice as many rows; 0 where distances do not count.
        buckets: distances beyond half of them share rows by their logarithm; 0 if none do.
        farthest: the distance from which on all are as one.
        terms: of CONTENT_TO_POSITION and POSITION_TO_CONTENT.
        own_projections: whether distances have projections of their own, not those of tokens.
        kernel: places that the convolution behind the first layer reads; 0 where there is none.
        legacy: whether the head for hidden tokens is that of transformers' first releases; that of the
            authors has other names.
    """

    width: int
    embedding: int
    inner: int  # width between the dense layers
    layers: int
    heads: int
    activation: str
    norm_epsilon: float
    dropout: float
    attention_dropout: float
    token_types: int
    positions: int
    span: int
    buckets: int
    farthest: int
    terms: tuple[str, ...]
    own_projections: bool
    distance_norm: bool
    kernel: int
    kernel_activation: str
    pooler_activation: str
    pooler_dropout: float
    head_dropout: float
    outputs: int  # of the head
    legacy: bool

    @property
    def scale(self) -> float:
        """What scores of attention are multiplied with: there are several terms."""
        return (self.width // self.heads * (1 + len(self.terms))) ** -0.5


def settings(config: Any, head: str) -> DebertaSettings:
    """Those of a configuration of transformers, with a head that is called as in transformers.

    Raises:
        InputError: which names every setting that no model here has.
    """
    decoders.refuse(config, _problems(config, head))
    relative, buckets, farthest = config.relative_attention, _buckets(config), _farthest(config)
    pooled = head in ("ForSequenceClassification", "ForMultipleChoice")
    of_class = getattr(config, "cls_dropout", None)
    unpooled = config.hidden_dropout_prob if head == "ForTokenClassification" else 0.0
    kinds = config.pos_att_type or ()
    return DebertaSettings(
        width=config.hidden_size,
        embedding=getattr(config, "embedding_size", config.hidden_size),
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        norm_epsilon=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        token_types=config.type_vocab_size,
        positions=config.max_position_embeddings if config.position_biased_input else 0,
        span=(buckets or farthest) if relative else 0,
        buckets=buckets,
        farthest=farthest,
        terms=tuple(kind for kind in (CONTENT_TO_POSITION, POSITION_TO_CONTENT) if kind in kinds),
        own_projections=not getattr(config, "share_att_key", False),
        distance_norm=_norms_distances(config),
        kernel=_kernel(config),
        kernel_activation=getattr(config, "conv_act", "tanh"),
        pooler_activation=config.pooler_hidden_act,
        pooler_dropout=config.pooler_dropout,
        head_dropout=(config.hidden_dropout_prob if of_class is None else of_class) if pooled else unpooled,
        outputs=OUTPUTS.get(head, config.num_labels),
        legacy=config.legacy,
    )


def _buckets(config: Any) -> int:
    return max(0, getattr(config, "position_buckets", -1))


def _farthest(config: Any) -> int:
    stated = getattr(config, "max_relative_positions", -1)
    return stated if stated > 0 else config.max_position_embeddings


def _norms_distances(config: Any) -> bool:
    return "layer_norm" in (
        part.strip() for part in getattr(config, "norm_rel_ebd", "none").lower().split("|")
    )


def _kernel(config: Any) -> int:
    return max(0, getattr(config, "conv_kernel_size", 0))


def _problems(config: Any, head: str) -> list[str]:
    width, heads = config.hidden_size, config.num_attention_heads
    kinds, relative = config.pos_att_type or [], config.relative_attention
    buckets, farthest = _buckets(config), _farthest(config)
    only = "only {} is supported in this form."
    problems = []
    if width % heads:
        problems.append(f"hidden_size={width} is no multiple of num_attention_heads={heads}.")
    for name, value, sole in (
        ("attention_head_size", getattr(config, "attention_head_size", width // heads), width // heads),
        ("pooler_hidden_size", getattr(config, "pooler_hidden_size", width), width),
        ("conv_groups", getattr(config, "conv_groups", 1), 1),
    ):
        if value != sole:
            problems.append(f"{name}={value}: {only.format(sole)}")
    if unknown := sorted({*kinds} - {CONTENT_TO_POSITION, POSITION_TO_CONTENT}):
        problems.append(
            f"pos_att_type={'|'.join(kinds)}: {', '.join(unknown)} is not supported in this form."
        )
    if relative and not kinds:
        problems.append("relative_attention=True reads no distance without pos_att_type.")
    if not relative and _norms_distances(config):
        problems.append("norm_rel_ebd=layer_norm has nothing to norm without relative_attention.")
    if relative and buckets and farthest - 1 <= max(1, buckets // 2):
        problems.append(
            f"position_buckets={buckets}: max_relative_positions={farthest} leaves none to share a row."
        )
    if _kernel(config) and _kernel(config) % 2 == 0:
        problems.append(f"conv_kernel_size={_kernel(config)}: only odd numbers keep a text's length.")
    narrow = getattr(config, "embedding_size", width)
    if head == MASKED and not config.legacy and narrow != width:
        problems.append(f"legacy=False: its head needs embedding_size={narrow} to be hidden_size={width}.")
    return problems


def rows_of_distances(s: DebertaSettings) -> np.ndarray:
    """The row of the table of distances for each of those from -`farthest` to `farthest`, int32; beyond, all
    are as the last. Near ones have a row each, far ones share by their logarithm, and of the farthest all
    share one (He et al. 2021, arXiv:2111.09543)."""
    distances = np.arange(s.farthest + 1)
    found, middle = distances, s.buckets // 2
    if s.buckets:
        # As PyTorch computes it, step by step in float32
        far = np.maximum(distances, middle).astype(np.float32)
        whole = np.log(np.float32((s.farthest - 1) / middle))
        share = np.log(far / np.float32(middle)) / whole
        beyond = np.ceil(share * np.float32(middle - 1)) + middle
        found = np.where(distances <= middle, distances, beyond.astype(np.int64))
    both = np.concatenate([-found[:0:-1], found])
    return np.clip(both + s.span, 0, 2 * s.span - 1).astype(np.int32)

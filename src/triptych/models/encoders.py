"""Encoders: what they read, and what their configurations say under different names."""

from typing import Any, NamedTuple

import numpy as np

from triptych import batching


class EncoderSettings(NamedTuple):
    """What the configurations of BERT, RoBERTa, XLM-R and DistilBERT say under different names."""

    width: int
    inner: int  # width between the two dense layers
    layers: int
    heads: int
    activation: str
    dropout: float
    attention_dropout: float  # of its weights
    attended_dropout: float  # of what comes of it
    head_dropout: float
    norm_epsilon: float
    token_types: int  # 0: none
    padding: int | None  # the position of padding, where the first token's is the next, as in RoBERTa


def encoder_settings(config: Any, every_token: bool) -> EncoderSettings:
    """Those of a configuration of transformers, with a head that reads every token, or the first alone."""
    if config.model_type == "distilbert":
        sizes = config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.activation
        head_dropout = config.dropout if every_token else config.seq_classif_dropout
        dropouts = config.dropout, config.attention_dropout, 0.0, head_dropout
        return EncoderSettings(*sizes, *dropouts, norm_epsilon=1e-12, token_types=0, padding=None)
    dropout, head_dropout = config.hidden_dropout_prob, config.classifier_dropout
    return EncoderSettings(
        width=config.hidden_size,
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        dropout=dropout,
        attention_dropout=config.attention_probs_dropout_prob,
        attended_dropout=dropout,
        head_dropout=dropout if head_dropout is None else head_dropout,
        norm_epsilon=config.layer_norm_eps,
        token_types=config.type_vocab_size,
        padding=config.pad_token_id if counts_from_padding(config) else None,
    )


def base(config: Any) -> str:
    """The encoder's name in its model, with which the names of its parameters begin: in XLM-R RoBERTa's."""
    return "roberta" if config.model_type == "xlm-roberta" else config.model_type


def counts_from_padding(config: Any) -> bool:
    """Whether the first token stands at the position after that of padding, as in RoBERTa."""
    return base(config) == "roberta"


def inputs(rows: dict[str, list], tokenizer: Any, config: Any, length: int | None) -> batching.Batch:
    """What an encoder reads of rows of token ids, padded on the right: int64 arrays (rows, length).

    Args:
        rows: features by row: `input_ids`, and `token_type_ids` if the tokenizer gives them.
        length: of the arrays, which no row may exceed (default: that of the longest row).

    Returns:
        `input_ids`; `attention_mask`, 0 at padding; `token_type_ids` if the model has types of tokens.
    """
    ids = rows["input_ids"]
    batch = {
        "input_ids": batching.pad(ids, tokenizer.pad_token_id, length),
        "attention_mask": batching.pad([[1] * len(row) for row in ids], 0, length),
    }
    if getattr(config, "type_vocab_size", 0) > 1:
        types = rows.get("token_type_ids", [[0]] * len(ids))
        batch["token_type_ids"] = batching.pad(types, 0, batch["input_ids"].shape[1])
    return batch


def inputs_of_choices(rows: dict[str, list], tokenizer: Any, config: Any, length: int | None) -> batching.Batch:
    """What an encoder reads of rows of choices, padded on the right: int64 arrays (rows, choices, length) as
    `inputs` makes them, and float32 `is_choice` (rows, choices), 0 where a row has no such choice.

    Such a place holds one token, of padding, that is attended to: what attends to nothing is no number in
    some frameworks.

    Args:
        rows: features by row: lists of each choice's `input_ids`, and perhaps `token_type_ids`.
        length: as of `inputs`.
    """
    most = max(map(len, rows["input_ids"]))
    filled = {
        name: [ids for row in rows[name] for ids in [*row, *[[blank]] * (most - len(row))]]
        for name, blank in (("input_ids", tokenizer.pad_token_id), ("token_type_ids", 0))
        if name in rows
    }
    made = inputs(filled, tokenizer, config, length)
    batch = {name: array.reshape(-1, most, array.shape[-1]) for name, array in made.items()}
    counts = np.array([len(row) for row in rows["input_ids"]])
    return batch | {"is_choice": (np.arange(most) < counts[:, None]).astype(np.float32)}

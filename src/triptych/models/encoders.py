"""Encoders: what they read, and what their configurations say under different names."""

from typing import Any, NamedTuple

import numpy as np

from triptych import batching
from triptych.errors import InputError

MASKED = "ForMaskedLM"  # the head that finds hidden tokens
# How many numbers a head gives, where the configuration's labels do not say it: of a token its scores as an
# answer's first and last, of a choice one
OUTPUTS = {"ForQuestionAnswering": 2, "ForMultipleChoice": 1}


class EncoderSettings(NamedTuple):
    """What the configurations of BERT, RoBERTa, XLM-R, DistilBERT and ELECTRA say under different names."""

    width: int
    embedding: int  # width of the tables, which in ELECTRA's smaller models is less
    inner: int  # width between the two dense layers
    layers: int
    heads: int
    activation: str
    dropout: float
    attention_dropout: float  # of its weights
    attended_dropout: float  # of what comes of it
    head_dropout: float
    outputs: int  # of the head
    norm_epsilon: float
    token_types: int  # 0: none
    padding: int | None  # the position of padding, where the first token's is the next, as in RoBERTa


def encoder_settings(config: Any, head: str) -> EncoderSettings:
    """Those of a configuration of transformers, with a head that is called as in transformers:
    `ForTokenClassification`."""
    of_head = {"head_dropout": head_dropout(config, head), "outputs": OUTPUTS.get(head, config.num_labels)}
    if config.model_type == "distilbert":
        sizes = config.dim, config.dim, config.hidden_dim, config.n_layers, config.n_heads, config.activation
        dropouts = config.dropout, config.attention_dropout, 0.0
        return EncoderSettings(*sizes, *dropouts, **of_head, norm_epsilon=1e-12, token_types=0, padding=None)
    return EncoderSettings(
        width=config.hidden_size,
        embedding=getattr(config, "embedding_size", config.hidden_size),
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        activation=config.hidden_act,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        attended_dropout=config.hidden_dropout_prob,
        **of_head,
        norm_epsilon=config.layer_norm_eps,
        token_types=config.type_vocab_size,
        padding=config.pad_token_id if counts_from_padding(config) else None,
    )


def head_dropout(config: Any, head: str) -> float:
    """The rate of dropout within a head. Which setting states it differs in transformers by architecture too:
    RoBERTa's head for choices does not heed `classifier_dropout`, and BERT's for questions has no dropout."""
    if config.model_type == "distilbert":
        own = {
            "ForTokenClassification": config.dropout,
            "ForQuestionAnswering": config.qa_dropout,
            MASKED: 0.0,
        }
        return own.get(head, config.seq_classif_dropout)
    if head in ("ForQuestionAnswering", MASKED):
        return 0.0
    if head == "ForMultipleChoice" and config.model_type == "electra":
        return config.summary_last_dropout
    unheeded = head == "ForMultipleChoice" and base(config) == "roberta"
    if unheeded or config.classifier_dropout is None:
        return config.hidden_dropout_prob
    return config.classifier_dropout


def settle_labels(config: Any, head: str) -> None:
    """Has a configuration state as many labels as a head for questions has outputs, whatever the checkpoint's
    labels were: transformers' own heads follow it and work with no other number."""
    if head == "ForQuestionAnswering":
        config.num_labels = OUTPUTS[head]


def require_tied(config: Any) -> None:
    """Raises InputError if a head for hidden tokens has a table of its own: all that are known share it,
    DeBERTa's with the authors' names whatever the configuration says."""
    if not config.tie_word_embeddings and getattr(config, "legacy", True):
        raise InputError(
            f"tie_word_embeddings=False: a {config.model_type} whose head has a table of its own is not "
            "supported in this form. PyTorch's scripts train it."
        )


def base(config: Any) -> str:
    """The encoder's name in its model, with which the names of its parameters begin: in XLM-R RoBERTa's."""
    others = {"xlm-roberta": "roberta", "modernbert": "model", "deberta-v2": "deberta"}
    return others.get(config.model_type, config.model_type)


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


def inputs_of_choices(
    rows: dict[str, list], tokenizer: Any, config: Any, length: int | None
) -> batching.Batch:
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

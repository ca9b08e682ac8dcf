"""What the suites know of text classification, in Python."""

import json
from pathlib import Path

import numpy as np

BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
BERT |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=64)
DISTILBERT = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64)
DISTILBERT |= dict(dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0)
# Whose windows are shorter than the texts
MODERNBERT = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48)
MODERNBERT |= dict(local_attention=8, max_position_embeddings=64, cls_token_id=None, sep_token_id=None)
# As version 3 is published, but for the sizes
DEBERTA = dict(relative_attention=True, position_buckets=16, max_relative_positions=-1, share_att_key=True)
DEBERTA |= dict(pos_att_type="p2c|c2p", norm_rel_ebd="layer_norm", position_biased_input=False)
DEBERTA |= dict(type_vocab_size=0, layer_norm_eps=1e-7)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """bert, roberta, xlm-roberta, distilbert, electra, modernbert, deberta-v2: of three labels, without
    dropout, for texts of 64 tokens; bert-bare: the first without its head, saved as a BertModel; topics: a
    BERT for bulletins with their topics in an order of its own; topics-bare: that without its head. See
    tests/fixtures/tiny_checkpoints.py."""
    import transformers

    from triptych.samples.bulletins import STORIES

    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    ids |= dict(vocab_size=len(tokenizer), num_labels=3)
    # RoBERTa's first token stands after the positions up to that of padding.
    longer = dict(max_position_embeddings=64 + tokenizer.pad_token_id + 1)
    topics = sorted({story[0] for story in STORIES}, key=lambda topic: topic[::-1])
    head = dict(id2label=dict(enumerate(topics)), label2id={topic: n for n, topic in enumerate(topics)})
    of_topics = BERT | ids | head | dict(max_position_embeddings=256)
    del of_topics["num_labels"]
    for name, config in (
        ("roberta", transformers.RobertaConfig(**BERT | ids | longer)),
        ("xlm-roberta", transformers.XLMRobertaConfig(**BERT | ids | longer)),
        ("distilbert", transformers.DistilBertConfig(**DISTILBERT | ids)),
        ("electra", transformers.ElectraConfig(**BERT | ids, embedding_size=16)),
        ("modernbert", transformers.ModernBertConfig(**MODERNBERT | ids)),
        ("deberta-v2", transformers.DebertaV2Config(**BERT | ids | DEBERTA)),
        ("bert", transformers.BertConfig(**BERT | ids)),
        ("topics", transformers.BertConfig(**of_topics)),
    ):
        model = save(config, tokenizer, folder / name, "SequenceClassification")
        if name in ("bert", "topics"):
            model.bert.save_pretrained(folder / f"{name}-bare")
            tokenizer.save_pretrained(folder / f"{name}-bare")


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions by their definitions, from counts alone."""
    found, wanted = [label for label, _ in predictions], [row["topic"] for row in rows]
    names = json.loads((output / "config.json").read_text())["label2id"]
    right = {n: sum(f == w == n for f, w in zip(found, wanted, strict=True)) for n in names}
    f1 = {n: 2 * right[n] / max(1, found.count(n) + wanted.count(n)) for n in names}
    # A label that occurs nowhere is left out of the mean over labels.
    present = [n for n in names if n in (*found, *wanted)]
    # Matthews' correlation for several labels (Gorodkin 2004)
    count, total = len(found), sum(right.values())
    expected = sum(found.count(n) * wanted.count(n) for n in names)
    spread = [count**2 - sum(side.count(n) ** 2 for n in names) for side in (found, wanted)]
    return {
        "accuracy": total / count,
        "f1_macro": np.mean([f1[n] for n in present]),
        "f1_weighted": sum(f1[n] * wanted.count(n) for n in names) / count,
        "matthews_correlation": (total * count - expected) / np.sqrt(spread[0] * spread[1]),
    }


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_accuracy"] > 0.5, f"hardly anything is right: {answers}"

"""What the suites know of masked language modeling, in Python."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
BERT |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=256)
# As version 3 is published, but for the sizes
DEBERTA = dict(relative_attention=True, position_buckets=32, max_relative_positions=-1, share_att_key=True)
DEBERTA |= dict(pos_att_type="p2c|c2p", norm_rel_ebd="layer_norm", position_biased_input=False)
DEBERTA |= dict(type_vocab_size=0, layer_norm_eps=1e-7, legacy=False)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """masked: a BERT with its head for hidden tokens; masked-bare: that without it; masked-deberta: a
    DeBERTa with the authors' head and a tokenizer of its own kind. See tests/fixtures/tiny_checkpoints.py."""
    import small_tokenizers
    import transformers

    from triptych.samples.bulletins import bulletins

    texts = (row["text"] for row in bulletins(rows=300))
    of_pieces = small_tokenizers.debertas(texts, vocab_size=500)
    own = DEBERTA | dict(vocab_size=len(of_pieces), pad_token_id=of_pieces.pad_token_id)
    save(transformers.DebertaV2Config(**BERT | own), of_pieces, folder / "masked-deberta", "MaskedLM")

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    config = transformers.BertConfig(**BERT, **ids, vocab_size=len(tokenizer))
    model = save(config, tokenizer, folder / "masked", "MaskedLM")
    model.bert.save_pretrained(folder / "masked-bare")
    tokenizer.save_pretrained(folder / "masked-bare")


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics, by the model of transformers that reads each text by itself, with its head at all places;
    the file must say the same."""
    import numpy as np
    import torch
    import transformers

    from triptych.batching.draws import IN_EVALUATION, Draws
    from triptych.data import masking

    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    model = transformers.AutoModelForMaskedLM.from_pretrained(output).eval()
    known = masking.vocabulary(tokenizer)
    flags = SimpleNamespace(mlm_probability=0.15, mask_replace_prob=0.8, random_replace_prob=0.1)
    lines = iter(predictions)
    nats, right, tokens = 0.0, 0, 0
    for number, row in enumerate(rows):
        ids = np.array([tokenizer(row["text"])["input_ids"]])
        draws = Draws(0, np.array([IN_EVALUATION + number]))
        masked = masking.mask(ids, {masking.STARTS: np.ones_like(ids)}, draws, known, flags)
        with torch.no_grad():
            scores = model(input_ids=torch.from_numpy(masked.input_ids)).logits[0].log_softmax(dim=-1)
        for place, label in zip(masked.places[0], masked.labels[0], strict=True):
            if label == -100:
                continue
            *best, token, written = next(lines)
            assert tokenizer.convert_ids_to_tokens(int(label)) == token
            assert abs(float(written) + scores[place, label].item()) < 2e-4
            assert tokenizer.convert_ids_to_tokens(int(scores[place].argmax())) == best[0]
            assert abs(float(best[1]) - scores[place].max().exp().item()) < 2e-4
            assert sorted(best[1::2], key=float, reverse=True) == best[1::2]
            assert len({*best[::2]}) == 5
            nats, tokens = nats - scores[place, label].item(), tokens + 1
            right += int(scores[place].argmax() == label)
    assert next(lines, None) is None
    return {"perplexity": math.exp(nats / tokens), "accuracy": right / tokens}


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_accuracy"] > 0.15, f"hardly anything is found: {results}"

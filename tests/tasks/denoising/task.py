"""What the suites know of denoising, in Python."""

import math
from pathlib import Path

T5 = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0)
BART = dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64)
BART |= dict(encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=256, dropout=0.0)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """t5-with-holes, as T5 of 2019; t5-1.1, with gates and a table of its own for what is written; and
    bart-with-holes: with the tokenizer that has sentinels and a mask. See
    tests/fixtures/tiny_checkpoints.py."""
    import transformers

    path = Path(tokenizer.name_or_path).with_name("tokenizer-with-holes")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
    ids |= {"vocab_size": len(tokenizer)}
    begin = dict(decoder_start_token_id=tokenizer.pad_token_id)
    save(transformers.T5Config(**T5, **ids, **begin), tokenizer, folder / "t5-with-holes", "Seq2SeqLM")
    own = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    save(transformers.T5Config(**T5, **ids, **begin, **own), tokenizer, folder / "t5-1.1", "Seq2SeqLM")
    begin = dict(bos_token_id=None, decoder_start_token_id=tokenizer.eos_token_id)
    begin |= dict(forced_eos_token_id=tokenizer.eos_token_id)
    save(transformers.BartConfig(**BART, **ids, **begin), tokenizer, folder / "bart-with-holes", "Seq2SeqLM")


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics: perplexity from the file's nats, accuracy by the model of transformers, which reads each
    row by itself and shifts the labels by its own rule. What is drawn is that of every seed."""
    import datasets
    import numpy as np
    import torch
    import transformers

    from triptych.arguments import CorruptionArguments
    from triptych.batching.draws import IN_EVALUATION, Draws
    from triptych.data import corruption

    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(output).eval()
    data_args = CorruptionArguments(test_file="rows.jsonl", objective="infilling", line_by_line=True)
    about = corruption.of_run(model.config, tokenizer, data_args)
    texts = {"text": [row["text"] for row in rows]}
    ids = datasets.Dataset.from_dict(corruption.tokenized(texts, {"text": "text"}, tokenizer, data_args))
    features = corruption.blocks({"test": ids}, about, data_args)["test"]
    pairs = corruption.corrupted(features[:], Draws(7, IN_EVALUATION + np.arange(len(rows))), about)
    tokens, right = 0, 0
    for read, written, (count, nats, _) in zip(*pairs, predictions, strict=True):
        labels = torch.tensor([written])
        with torch.no_grad():
            found = model(input_ids=torch.tensor([read]), labels=labels)
        tokens, right = tokens + int(count), right + int((found.logits.argmax(-1) == labels).sum())
        assert len(written) == int(count)
        assert abs(float(found.loss) * len(written) - float(nats)) < 1e-2
    nats = sum(float(value) for _, value, _ in predictions)
    return {"perplexity": math.exp(nats / tokens), "accuracy": right / tokens}


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_perplexity"] < 200, f"hardly anything is restored: {results}"

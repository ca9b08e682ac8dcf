"""What the suites know of summarization, in Python."""

import string
from pathlib import Path

import numpy as np

T5 = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0)
BART = dict(
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    max_position_embeddings=64,
    dropout=0.0,
)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """t5: without dropout; bart: likewise, with a position table of 64 entries; mbart: with a tokenizer of
    single letters that knows the languages of mBART-50; mbart-2020: likewise, with the tokenizer of its
    elder, which ends texts with their language. See tests/fixtures/tiny_checkpoints.py."""
    import transformers

    def ids(tokenizer):
        names = ("pad_token_id", "eos_token_id")
        return {name: getattr(tokenizer, name) for name in names} | {"vocab_size": len(tokenizer)}

    config = transformers.T5Config(**T5, **ids(tokenizer), decoder_start_token_id=tokenizer.pad_token_id)
    save(config, tokenizer, folder / "t5", "Seq2SeqLM")

    begin = dict(bos_token_id=None, decoder_start_token_id=tokenizer.eos_token_id)
    end = dict(forced_eos_token_id=tokenizer.eos_token_id)
    config = transformers.BartConfig(**BART, **ids(tokenizer), **begin, **end)
    save(config, tokenizer, folder / "bart", "Seq2SeqLM")

    signs = string.ascii_letters + string.digits + string.punctuation
    letters = [("▁", -2.0), *((letter, -3.0) for letter in signs)]
    # The first three stand for the special tokens with which a SentencePiece vocabulary begins.
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *letters]
    tokenizer = transformers.MBart50Tokenizer(vocab=vocabulary)
    begin = dict(bos_token_id=tokenizer.bos_token_id, decoder_start_token_id=tokenizer.eos_token_id)
    end = dict(forced_eos_token_id=tokenizer.eos_token_id, max_position_embeddings=512)
    config = transformers.MBartConfig(**BART | end, **ids(tokenizer), **begin)
    save(config, tokenizer, folder / "mbart", "Seq2SeqLM")

    # As published: its configuration names no start
    tokenizer = transformers.MBartTokenizer(
        vocab=[("<s>", 0.0), ("<pad>", 0.0), *vocabulary[2:], vocabulary[0]]
    )
    begin = dict(bos_token_id=tokenizer.bos_token_id, decoder_start_token_id=None)
    config = transformers.MBartConfig(**BART | end, **ids(tokenizer), **begin)
    save(config, tokenizer, folder / "mbart-2020", "Seq2SeqLM")


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions by rouge-score alone; the headlines are of one sentence, so that rougeLsum
    is rougeL."""
    from rouge_score.rouge_scorer import RougeScorer
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    texts = [text for (text,) in predictions]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    scores = [scorer.score(row["summary"], text) for row, text in zip(rows, texts, strict=True)]
    means = {name: 100 * np.mean([score[name].fmeasure for score in scores]) for name in scores[0]}
    # With its end, but where the limit of 24, with the start, has cut it off before that
    lengths = [min(23, len(tokenizer.encode(text).ids)) for text in texts]
    return means | {"rougeLsum": means["rougeL"], "gen_len": np.mean(lengths)}


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    # An answer that does not end by itself has 39 tokens: 40 with the one that begins it.
    assert results["predict_gen_len"] < 30, f"the answers do not end: {answers}"

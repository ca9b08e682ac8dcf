"""What the suites know of causal language modeling, in Python."""

import math
from pathlib import Path

GPT2 = dict(n_embd=32, n_layer=2, n_head=4, n_positions=512, n_inner=64)
GPT2 |= dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
SIZES |= dict(num_key_value_heads=2, max_position_embeddings=512, attention_dropout=0.0)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """gpt2; llama, with rotations that are stretched as Llama 3's; qwen3, with heads of their own width. See
    tests/fixtures/tiny_checkpoints.py."""
    import transformers

    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    ids |= dict(vocab_size=len(tokenizer))
    save(transformers.GPT2Config(**GPT2, **ids), tokenizer, folder / "gpt2", "CausalLM")
    rope = dict(rope_type="llama3", rope_theta=10_000.0, factor=4.0, original_max_position_embeddings=128)
    rope |= dict(low_freq_factor=1.0, high_freq_factor=4.0)
    config = transformers.LlamaConfig(**SIZES, **ids, rope_parameters=rope)
    save(config, tokenizer, folder / "llama", "CausalLM")
    config = transformers.Qwen3Config(**SIZES, **ids, head_dim=16, tie_word_embeddings=True)
    save(config, tokenizer, folder / "qwen3", "CausalLM")


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics: perplexity and bits per byte from the file's nats, accuracy by the model of transformers
    that reads each text by itself."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    model = transformers.AutoModelForCausalLM.from_pretrained(output).eval()
    tokens, size, right = 0, 0, 0
    for row in rows:
        ids = tokenizer(row["text"], return_tensors="pt")["input_ids"]
        assert ids[0, -1] == tokenizer.eos_token_id
        with torch.no_grad():
            likeliest = model(input_ids=ids).logits[0, :-1].argmax(dim=-1)
        tokens, right = tokens + ids.shape[1] - 1, right + int((likeliest == ids[0, 1:]).sum())
        size += len(row["text"].encode()) - len(tokenizer.decode(ids[0, :1]).encode())
    assert tokens == sum(int(count) for count, _, _ in predictions)
    nats = sum(float(value) for _, value, _ in predictions)
    for count, value, perplexity in predictions:
        assert abs(math.exp(float(value) / int(count)) / float(perplexity) - 1) < 1e-4
    return {
        "perplexity": math.exp(nats / tokens),
        "accuracy": right / tokens,
        "bits_per_byte": nats / math.log(2) / size,
    }


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_perplexity"] < 15, f"hardly anything is foreseen: {results}"

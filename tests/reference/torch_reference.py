"""What PyTorch and transformers answer: the reference that the other frameworks' models are held to.

Run with the interpreter of the PyTorch environment, in a process of its own:

    python torch_reference.py jobs.json

`jobs.json` is a list of jobs, done in order in one process, as importing PyTorch costs more than most of
them. Each is an object with a "command" and the arguments of the function of that name below, for example

    [{"command": "make", "variant": "t5-v1.1-untied", "folder": "/tmp/a"},
     {"command": "logits", "folder": "/tmp/a", "inputs": "in.npz", "outputs": "logits.npz"},
     {"command": "gradients", "folder": "/tmp/a", "inputs": "in.npz", "outputs": "gradients.npz"},
     {"command": "steps", "folder": "/tmp/a", "inputs": "in.npz", "outputs": "steps.json", "rates": [0.1]},
     {"command": "dropouts", "folder": "/tmp/a", "inputs": "in.npz", "outputs": "dropouts.json"},
     {"command": "generate", "folder": "/tmp/a", "inputs": "in.npz", "outputs": "out.npz",
      "settings": [{"num_beams": 4, "max_length": 12}, {"max_new_tokens": 5}]},
     {"command": "sample", "folder": "/tmp/a", "inputs": "in.npz", "outputs": "out.npz",
      "settings": [{"do_sample": true, "top_k": 20}]},
     {"command": "check", "folder": "/tmp/a", "outputs": "check.json"},
     {"command": "train", "variant": "bart", "folder": "/tmp/b"}]

An input file holds integer arrays: `input_ids` and `attention_mask` [rows, source]; but for "generate" also
`decoder_input_ids` [rows, target] and, if wanted, `decoder_attention_mask`; for "gradients" `labels` (-100:
none). For a decoder alone there are `input_ids` and `position_ids`, which keep a row's texts apart, and
`labels`; for "generate" `input_ids` and `attention_mask`, padded on the right. For a classifier there are
`token_type_ids`, and the labels are [rows], or [rows, source] of tokens. For a head for questions they are
[rows, 2], the places of the answer's first and last token. For one for choices the inputs are [rows, choices,
source]. A classifier of pictures reads `pixel_values` [rows, channels, height, width], float32; what is saved
of it, its gradients included, has the names of files, which for these differ from those of the modules.

Everything runs on one thread in float32 with dropout off, but for "dropouts" and "train".
"""

import json
import sys

import numpy as np
import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

T5_SHAPE = dict(
    vocab_size=120, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
)
T5_SHAPE |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=16)
BART_SHAPE = dict(vocab_size=120, max_position_embeddings=64, d_model=32, encoder_layers=2, decoder_layers=2)
BART_SHAPE |= dict(
    encoder_ffn_dim=48, decoder_ffn_dim=48, encoder_attention_heads=4, decoder_attention_heads=4
)
BART_SHAPE |= dict(dropout=0.1, attention_dropout=0.2, activation_dropout=0.3)

BERT_SHAPE = dict(vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_labels=3)
BERT_SHAPE |= dict(intermediate_size=48, max_position_embeddings=40, hidden_dropout_prob=0.1)
BERT_SHAPE |= dict(attention_probs_dropout_prob=0.2)
DISTILBERT_SHAPE = dict(vocab_size=120, dim=32, n_layers=2, n_heads=4, num_labels=3, hidden_dim=48)
DISTILBERT_SHAPE |= dict(max_position_embeddings=40, dropout=0.1, attention_dropout=0.2, qa_dropout=0.4)
MODERNBERT_SHAPE = dict(vocab_size=120, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
MODERNBERT_SHAPE |= dict(intermediate_size=48, max_position_embeddings=40, num_labels=3, pad_token_id=1)
MODERNBERT_SHAPE |= dict(local_attention=6, global_attn_every_n_layers=2, global_rope_theta=1000.0)
MODERNBERT_SHAPE |= dict(local_rope_theta=100.0, embedding_dropout=0.1, attention_dropout=0.2)
MODERNBERT_SHAPE |= dict(mlp_dropout=0.3, classifier_dropout=0.4)
DEBERTA_SHAPE = dict(vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
DEBERTA_SHAPE |= dict(intermediate_size=48, max_position_embeddings=40, num_labels=3, pad_token_id=1)
DEBERTA_SHAPE |= dict(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, pooler_dropout=0.3)
DEBERTA_SHAPE |= dict(relative_attention=True, pos_att_type="p2c|c2p", position_biased_input=False)
# As version 3 is published, but for the sizes: buckets are fewer than the tokens of a text, whose ends are
# farther apart than the farthest distance
DEBERTA_SHAPE |= dict(position_buckets=8, max_relative_positions=10, share_att_key=True, cls_dropout=0.4)
DEBERTA_SHAPE |= dict(norm_rel_ebd="layer_norm")
BIASED = dict(attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True)

GPT2_SHAPE = dict(vocab_size=120, n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=1)
GPT2_SHAPE |= dict(bos_token_id=1, attn_pdrop=0.1, embd_pdrop=0.2, resid_pdrop=0.3)
LLAMA_SHAPE = dict(vocab_size=120, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
LLAMA_SHAPE |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
LLAMA_SHAPE |= dict(pad_token_id=0, bos_token_id=2, eos_token_id=1)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=16)
YARN = dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16)
MODERN_ROPE = {
    "sliding_attention": dict(rope_type="linear", rope_theta=50.0, factor=3.0),
    "full_attention": YARN | dict(original_max_position_embeddings=8),
}
GEMMA_ROPE = {
    "sliding_attention": dict(rope_type="default", rope_theta=100.0),
    "full_attention": dict(rope_type="linear", rope_theta=1000.0, factor=8.0),
}

VIT_SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=[12, 8], patch_size=4)
VIT_SHAPE |= dict(num_labels=3, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2)
DINO_SHAPE = VIT_SHAPE | dict(image_size=12, drop_path_rate=0.3, layerscale_value=0.7)
CONVNEXT_SHAPE = dict(hidden_sizes=[8, 12], depths=[2, 1], num_stages=2, patch_size=4, num_labels=3)
RESNET_SHAPE = dict(hidden_sizes=[8, 16], depths=[2, 1], embedding_size=8, num_labels=3)
SWIN_SHAPE = dict(image_size=20, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=3)
SWIN_SHAPE |= dict(
    num_labels=3, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, drop_path_rate=0.3
)

# variant -> (class of the configuration, its arguments, whether the output table is its own though the
# configuration says tied, as in T5 1.1: there, what the file holds decides)
VARIANTS = {
    "t5": (transformers.T5Config, T5_SHAPE, False),
    "t5-v1.1": (
        transformers.T5Config,
        T5_SHAPE | dict(feed_forward_proj="gated-gelu", num_decoder_layers=3),
        False,
    ),
    "t5-v1.1-untied": (
        transformers.T5Config,
        T5_SHAPE | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=1),
        True,
    ),
    "mt5": (transformers.MT5Config, T5_SHAPE, False),
    "bart": (transformers.BartConfig, BART_SHAPE, False),
    "bart-uneven": (
        transformers.BartConfig,
        BART_SHAPE
        | dict(
            scale_embedding=True, activation_function="relu", encoder_attention_heads=2, encoder_ffn_dim=40
        )
        | dict(decoder_layers=3),
        False,
    ),
    "bart-untied": (transformers.BartConfig, BART_SHAPE | dict(tie_word_embeddings=False), False),
    "mbart": (
        transformers.MBartConfig,
        BART_SHAPE | dict(scale_embedding=True, decoder_start_token_id=2),
        False,
    ),
    "marian": (
        transformers.MarianConfig,
        BART_SHAPE
        | dict(scale_embedding=True, activation_function="swish", pad_token_id=119, eos_token_id=0)
        | dict(decoder_start_token_id=119, forced_eos_token_id=0),
        False,
    ),
    "pegasus": (transformers.PegasusConfig, BART_SHAPE | dict(scale_embedding=True), False),
    # With the padding of the batch, from which positions are counted
    "m2m_100": (
        transformers.M2M100Config,
        BART_SHAPE | dict(pad_token_id=0, bos_token_id=1, encoder_layerdrop=0, decoder_layerdrop=0),
        False,
    ),
    "bert": (transformers.BertConfig, BERT_SHAPE | dict(classifier_dropout=0.3), False),
    "bert-uneven": (
        transformers.BertConfig,
        BERT_SHAPE | dict(hidden_act="gelu_new", type_vocab_size=3, layer_norm_eps=1e-3, num_labels=5),
        False,
    ),
    "roberta": (
        transformers.RobertaConfig,
        BERT_SHAPE | dict(type_vocab_size=1, classifier_dropout=0.3),
        False,
    ),
    "xlm-roberta": (transformers.XLMRobertaConfig, BERT_SHAPE | dict(type_vocab_size=1), False),
    "distilbert": (transformers.DistilBertConfig, DISTILBERT_SHAPE, False),
    "electra": (
        transformers.ElectraConfig,
        BERT_SHAPE | dict(embedding_size=16, summary_last_dropout=0.4, classifier_dropout=0.3),
        False,
    ),
    "modernbert": (transformers.ModernBertConfig, MODERNBERT_SHAPE, False),
    "modernbert-uneven": (
        transformers.ModernBertConfig,
        MODERNBERT_SHAPE
        | BIASED
        | dict(layer_types=["sliding_attention"] * 2 + ["full_attention"], rope_parameters=MODERN_ROPE)
        | dict(hidden_activation="silu", classifier_activation="relu", classifier_pooling="mean")
        | dict(norm_eps=1e-3, local_attention=5),
        False,
    ),
    "deberta": (transformers.DebertaV2Config, DEBERTA_SHAPE, False),
    "deberta-uneven": (  # the convolution of version 2, own projections, narrower tables, places and types
        transformers.DebertaV2Config,
        DEBERTA_SHAPE
        | dict(conv_kernel_size=3, conv_act="gelu", share_att_key=False, norm_rel_ebd="none")
        | dict(embedding_size=16, position_biased_input=True, type_vocab_size=2, position_buckets=-1)
        | dict(max_relative_positions=6, pooler_hidden_act="tanh", layer_norm_eps=1e-3),
        False,
    ),
    "deberta-authors": (  # the head for hidden tokens under the authors' names; one kind of distances
        transformers.DebertaV2Config,
        DEBERTA_SHAPE | dict(legacy=False, pos_att_type="c2p", tie_word_embeddings=False),
        False,
    ),
    "deberta-plain": (  # as a configuration says that states nothing
        transformers.DebertaV2Config,
        DEBERTA_SHAPE
        | dict(relative_attention=False, pos_att_type=None, position_biased_input=True, norm_rel_ebd="none"),
        False,
    ),
    "gpt2": (transformers.GPT2Config, GPT2_SHAPE, False),
    "gpt2-uneven": (
        transformers.GPT2Config,
        GPT2_SHAPE
        | dict(n_inner=40, scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False)
        | dict(activation_function="relu", layer_norm_epsilon=1e-3),
        False,
    ),
    "llama": (transformers.LlamaConfig, LLAMA_SHAPE | dict(attention_dropout=0.1, rms_norm_eps=1e-3), False),
    "llama-3": (
        transformers.LlamaConfig,
        LLAMA_SHAPE
        | dict(rope_parameters=LLAMA3, head_dim=12, tie_word_embeddings=True, pad_token_id=None)
        | dict(attention_bias=True, mlp_bias=True),
        False,
    ),
    "llama-linear": (
        transformers.LlamaConfig,
        LLAMA_SHAPE | dict(rope_parameters=dict(rope_type="linear", rope_theta=100.0, factor=4.0)),
        False,
    ),
    "llama-yarn": (transformers.LlamaConfig, LLAMA_SHAPE | dict(rope_parameters=YARN), False),
    "mistral": (transformers.MistralConfig, LLAMA_SHAPE | dict(sliding_window=5, head_dim=6), False),
    "qwen2": (
        transformers.Qwen2Config,
        LLAMA_SHAPE
        | dict(tie_word_embeddings=True, use_sliding_window=True, sliding_window=5, max_window_layers=1),
        False,
    ),
    "qwen3": (transformers.Qwen3Config, LLAMA_SHAPE | dict(tie_word_embeddings=True, head_dim=12), False),
    "smollm3": (transformers.SmolLM3Config, LLAMA_SHAPE | dict(no_rope_layer_interval=2), False),
    "olmo2": (transformers.Olmo2Config, LLAMA_SHAPE | dict(attention_bias=True), False),
    "gemma3": (
        transformers.Gemma3TextConfig,
        LLAMA_SHAPE
        | dict(sliding_window=5, head_dim=12, query_pre_attn_scalar=20, rope_parameters=GEMMA_ROPE)
        | dict(layer_types=["sliding_attention", "full_attention"]),
        False,
    ),
}
DECODERS = [*VARIANTS][[*VARIANTS].index("gpt2") :]
VARIANTS |= {
    "vit": (transformers.ViTConfig, VIT_SHAPE | dict(intermediate_size=48), False),
    "vit-uneven": (
        transformers.ViTConfig,
        VIT_SHAPE
        | dict(intermediate_size=40, patch_size=[4, 2], num_channels=1, qkv_bias=False, hidden_act="relu")
        | dict(layer_norm_eps=1e-3),
        False,
    ),
    "deit": (
        transformers.DeiTConfig,
        VIT_SHAPE | dict(intermediate_size=48, image_size=12, architectures=["DeiTForImageClassification"]),
        False,
    ),
    "deit-teacher": (
        transformers.DeiTConfig,
        VIT_SHAPE | dict(intermediate_size=48, architectures=["DeiTForImageClassificationWithTeacher"]),
        False,
    ),
    "dinov2": (transformers.Dinov2Config, DINO_SHAPE, False),
    "dinov2-gated": (transformers.Dinov2Config, DINO_SHAPE | dict(use_swiglu_ffn=True, mlp_ratio=2), False),
    "convnext": (
        transformers.ConvNextConfig,
        CONVNEXT_SHAPE | dict(drop_path_rate=0.4, layer_scale_init_value=0.5),
        False,
    ),
    "convnextv2": (
        transformers.ConvNextV2Config,
        CONVNEXT_SHAPE | dict(num_channels=1, hidden_act="relu", layer_norm_eps=1e-3),
        False,
    ),
    "resnet": (
        transformers.ResNetConfig,
        RESNET_SHAPE | dict(hidden_act="silu", downsample_in_first_stage=True, layer_type="basic"),
        False,
    ),
    "resnet-bottleneck": (transformers.ResNetConfig, RESNET_SHAPE, False),
    "swin": (transformers.SwinConfig, SWIN_SHAPE, False),
    "swin-uneven": (
        transformers.SwinConfig,
        SWIN_SHAPE
        | dict(image_size=[16, 12], use_absolute_embeddings=True, qkv_bias=False, layer_norm_eps=1e-3)
        | dict(mlp_ratio=1.5, num_channels=1, hidden_act="relu", drop_path_rate=0.0, depths=[1, 1]),
        False,
    ),
}
PICTURES = [*VARIANTS][[*VARIANTS].index("vit") :]


def build(variant: str, seed: int, head: str | None = None, **changes):
    """A model of the variant, as transformers initialises it; `changes` go into its configuration. `head` is
    a class of transformers, "AutoModel" for none; else it generates, continues or classifies texts."""
    configuration_class, arguments, own_output_table = VARIANTS[variant]
    torch.manual_seed(seed)
    labels = {"num_labels": 2} if head == "AutoModelForQuestionAnswering" else {}  # It takes no other number.
    configuration = configuration_class(**(arguments | labels | changes))
    usual = "Seq2SeqLM" if configuration.is_encoder_decoder else "SequenceClassification"
    usual = "CausalLM" if variant in DECODERS else usual
    usual = "ImageClassification" if variant in PICTURES else usual
    model = getattr(transformers, head or f"AutoModelFor{usual}").from_config(configuration)
    if own_output_table:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
        model.all_tied_weights_keys.pop("lm_head.weight")
    return model


def make(
    variant: str,
    folder: str,
    seed: int = 0,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
    noise=0.1,
    head=None,
):
    """Save a model of random weights. `noise` (its standard deviation) is added to every tensor, so that
    biases, norms and buffers, which start at zero or one, count as well; positions that are computed stay."""
    model = build(variant, seed, head)
    with torch.no_grad():
        named = dict([*model.named_parameters(), *model.named_buffers()])
        for name, tensor in named.items():
            if tensor.is_floating_point() and (tensor.requires_grad or "embed_positions" not in name):
                tensor += noise * torch.randn_like(tensor)
            elif name.endswith("num_batches_tracked"):
                tensor += 70_001
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)


def load(folder: str, **options):
    (name,) = transformers.AutoConfig.from_pretrained(folder).architectures
    return getattr(transformers, name).from_pretrained(folder, **options)


def tensors(path: str) -> dict[str, torch.Tensor]:
    whole = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    return {name: value if value.is_floating_point() else value.long() for name, value in whole.items()}


@torch.no_grad()
def logits(folder: str, inputs: str, outputs: str, **options):
    """Write `logits` [rows, target, vocabulary], [rows, labels], [rows, source, labels], [rows, source, 2] or
    [rows, choices], and of a model that generates `encoder_hidden` [rows, source, width], float32. `options`
    are of the model's call."""
    batch = tensors(inputs) | options
    batch.pop("labels", None)
    result = answer(load(folder, dtype=torch.float32), batch)
    hidden = result.get("encoder_last_hidden_state")
    encoded = {} if hidden is None else {"encoder_hidden": hidden.numpy()}
    np.savez(outputs, logits=scores_of(result).numpy(), **encoded)


def answer(model, batch: dict[str, torch.Tensor]):
    """What a model says of a batch. With its cache a decoder would not keep the texts of a row apart."""
    return model(**batch, **({"use_cache": False} if "position_ids" in batch else {}))


def scores_of(result) -> torch.Tensor:
    """The logits; those of a head for questions, which transformers has apart, side by side."""
    apart = "start_logits" in result
    return torch.stack((result.start_logits, result.end_logits), -1) if apart else result.logits


def gradients(folder: str, inputs: str, outputs: str):
    """Write `loss`, the cross entropy summed over labels that are not -100, and its gradients by parameter.
    Padding is no answer's place, and no choice."""
    model, batch = load(folder, dtype=torch.float32), tensors(inputs)
    for module in model.modules():
        if "Sinusoidal" in type(module).__name__:
            module.requires_grad_(False)  # Fixed; transformers makes them trainable when it loads them.
    labels = batch.pop("labels")
    scores = scores_of(answer(model, batch))
    mask = batch.get("attention_mask", labels)
    if mask.dim() == 3:
        scores = scores.masked_fill(~mask.any(-1), -1e9)
    elif scores.dim() == 3 and labels.shape == scores.shape[:2]:
        scores, labels = scores.flatten(0, 1), labels.flatten()
    elif scores.dim() == 3:
        scores = scores.masked_fill(mask[..., None] == 0, -1e9)
    loss = torch.nn.functional.cross_entropy(scores, labels, ignore_index=-100, reduction="sum")
    loss.backward()
    files = getattr(model, "all_tied_weights_keys", None) or {}  # by a tensor's second name its own
    found = {
        files.get(name, name): value.grad
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    found = {name: value.numpy() for name, value in revert_weight_conversion(model, found).items()}
    np.savez(outputs, loss=loss.detach().numpy(), **found)


def steps(folder: str, inputs: str, outputs: str, rates: list[float]):
    """Write the list of a classifier's losses, the cross entropy summed over rows, before each step of AdamW
    with one of these learning rates, and after all. Dropout is off, as are the statistics of batches."""
    model, batch = load(folder, dtype=torch.float32), tensors(inputs)
    optimizer, labels, losses = torch.optim.AdamW(model.parameters(), weight_decay=0), batch.pop("labels"), []
    for rate in [*rates, 0.0]:
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="sum")
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    with open(outputs, "w") as file:
        json.dump(losses, file)


@torch.no_grad()
def dropouts(folder: str, inputs: str, outputs: str):
    """Write the list of [rate, shape] of each dropout that is applied in training, in order. Of one that
    drops whole rows the shape is [rows, 1, ...]."""
    model = load(folder, attn_implementation="eager").train()
    applied, apply = [], torch.nn.functional.dropout

    def record(values, p=0.5, training=True, inplace=False):
        if training and p > 0:
            applied.append([p, list(values.shape)])
        return apply(values, p, training, inplace)

    def record_path(module, given, returned):
        applied.append([module.drop_prob, [len(returned), *[1] * (returned.dim() - 1)]])

    for module in model.modules():
        if type(module).__name__.endswith("DropPath") and module.drop_prob > 0:
            module.register_forward_hook(record_path)
    batch = tensors(inputs)
    batch.pop("labels", None)
    torch.nn.functional.dropout = record
    answer(model, batch)
    torch.nn.functional.dropout = apply
    with open(outputs, "w") as file:
        json.dump(applied, file)


@torch.no_grad()
def generate(folder: str, inputs: str, outputs: str, settings: list[dict]):
    """Write `sequences_0`, `sequences_1`, ... [rows, length]: the answers to each of `settings`, arguments of
    `generate` that change what the folder's generation_config.json says; without the prompts."""
    model, batch = load(folder, dtype=torch.float32), tensors(inputs)
    batch, given = {name: batch[name] for name in ("input_ids", "attention_mask")}, 0
    if not model.config.is_encoder_decoder:  # whose answers follow the prompts, so that these end together
        order = batch["attention_mask"].argsort(dim=1, stable=True)
        batch, given = {name: values.gather(1, order) for name, values in batch.items()}, order.shape[1]
    own, answers = model.generation_config.eos_token_id, {}
    for i, each in enumerate(settings):
        model.generation_config.eos_token_id = each.get(
            "eos_token_id", own
        )  # None among `each` changes nothing
        answers[f"sequences_{i}"] = model.generate(**batch, **each)[:, given:].numpy()
    np.savez(outputs, **answers)


def sample(folder: str, inputs: str, outputs: str, settings: list[dict]):
    """As "generate", by this project's form in PyTorch, whose inputs have the numbers that choose."""
    from triptych.pytorch import generation

    model = load(folder, dtype=torch.float32).eval()
    batch = {name: torch.from_numpy(array) for name, array in np.load(inputs).items()}
    answers = {f"sequences_{i}": generation.generate(model, batch, each) for i, each in enumerate(settings)}
    np.savez(outputs, **answers)


def check(folder: str, outputs: str):
    """Write what from_pretrained calls "missing_keys", "unexpected_keys" and "mismatched_keys", and what it
    "tied"."""
    model, info = load(folder, output_loading_info=True)
    found = {
        key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    with open(outputs, "w") as file:
        json.dump(found | {"tied": sorted(model.all_tied_weights_keys)}, file)


def sorting_task(generator: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Rows of 2 to 10 tokens between 5 and 24, and the end, which is 1 (padding is 0); `labels` has them in
    ascending order. The answers differ from row to row and end by themselves."""
    lengths = generator.integers(2, 11, rows)
    real, last = np.arange(11) < lengths[:, None], np.arange(11) == lengths[:, None]
    tokens = generator.integers(5, 25, (rows, 11))
    in_order = np.sort(np.where(real, tokens, 99), axis=1)
    return {
        "input_ids": np.where(real, tokens, np.where(last, 1, 0)),
        "attention_mask": (real | last).astype(np.int64),
        "labels": np.where(real, in_order, np.where(last, 1, -100)),
    }


def train(
    variant: str, folder: str, seed: int = 0, steps: int = 600, rows: int = 64, learning_rate: float = 3e-3
):
    """Train a model of the variant on `sorting_task`, for half a minute, and save it: a random model repeats
    one token, so that to compare its generations means nothing. Raises where it has not learnt to sort."""
    ids = dict(pad_token_id=0, eos_token_id=1, bos_token_id=2, decoder_start_token_id=0, vocab_size=32)
    if variant != "t5":
        ids |= dict(forced_eos_token_id=1, init_std=0.1, attention_dropout=0, activation_dropout=0)
    if variant == "m2m_100":
        ids |= dict(forced_eos_token_id=None, decoder_start_token_id=1)
    model = build(variant, seed, d_model=64, **ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    warmed = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        batch = {name: torch.from_numpy(array) for name, array in sorting_task(generator, rows).items()}
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        warmed.step()
    batch = {name: torch.from_numpy(array) for name, array in sorting_task(generator, 256).items()}
    labels = batch.pop("labels")
    answers = model.eval().generate(**batch, max_new_tokens=11, num_beams=1)[:, 1:]
    answers = torch.nn.functional.pad(answers, (0, 11 - answers.shape[1]))
    right = (answers == labels.clamp(min=0)).all(1).float().mean().item()
    print(f"{variant}: {right:.0%} of the rows sorted without a mistake", flush=True)
    if right < 0.3:
        raise RuntimeError(f"the {variant} model has not learnt to sort: {right:.0%} of the rows")
    model.save_pretrained(folder)


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    with open(sys.argv[1]) as file:
        jobs = json.load(file)
    for job in jobs:
        COMMANDS[job.pop("command")](**job)


COMMANDS = {
    command.__name__: command
    for command in (make, logits, gradients, steps, dropouts, generate, sample, check, train)
}

if __name__ == "__main__":
    main()

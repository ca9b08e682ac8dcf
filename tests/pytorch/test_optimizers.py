"""Which parameters decay, which optimizer a name means, and whether a saved optimizer goes on as if never
saved."""

import copy

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from triptych.arguments import TrainingArguments as ExplicitArguments
from triptych.models.tensor_files import OPTIMIZER
from triptych.pytorch import optimization, saving
from triptych.pytorch.arguments import OPTIMIZERS
from triptych.pytorch.trainer import Trainer as OurTrainer

SMALL = dict(vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, decoder_start_token_id=0)
BART = dict(
    vocab_size=50,
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    max_position_embeddings=32,
)


def models():
    torch.manual_seed(0)
    gpt2 = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=4, n_positions=32)
    return {
        "t5": transformers.T5ForConditionalGeneration(transformers.T5Config(**SMALL)),
        "bart": transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)),
        "gpt2": transformers.GPT2LMHeadModel(gpt2),
    }


@pytest.mark.parametrize("kind", ["t5", "bart", "gpt2"])
def test_biases_and_norms_do_not_decay_and_all_else_does(kind):
    """By the kind of module, which the package does not look at."""
    model = models()[kind]
    expected = {
        f"{module_name}.{name}".lstrip(".")
        for module_name, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if name == "bias" or "Norm" in type(module).__name__
    }
    decaying, others = optimization.parameter_groups(model, 0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    by_name = dict(model.named_parameters())
    not_decaying = {
        name for name, parameter in by_name.items() if any(parameter is p for p in others["params"])
    }
    assert not_decaying == expected
    assert len(decaying["params"]) + len(others["params"]) == len(by_name)
    assert set(OurTrainer.get_decay_parameter_names(None, model)) == set(by_name) - expected
    # These a list of strings such as "LayerNorm.weight" misses.
    missed = {"gpt2": "transformer.h.0.ln_1.weight", "bart": "model.encoder.layernorm_embedding.weight"}
    assert missed.get(kind, "encoder.final_layer_norm.weight") in not_decaying


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_is_the_trainers_of_that_name(name, tmp_path):
    settings = dict(optim=name, learning_rate=0.01, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-7)
    ours = optimization.optimizer(models()["t5"], ExplicitArguments(**settings))
    theirs = TrainingArguments(output_dir=str(tmp_path), **settings)
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(theirs)
    reference = cls(models()["t5"].parameters(), **keywords)
    assert type(ours) is type(reference)
    for key, value in reference.defaults.items():
        if key not in ("weight_decay", "fused"):  # that is of the groups
            assert ours.defaults[key] == value, key
    assert bool(ours.defaults.get("fused")) == bool(reference.defaults.get("fused"))


def loss_of(model):
    ids = torch.arange(1, 13).reshape(2, 6)
    return model(input_ids=ids, labels=ids).loss


def steps(model, optimizer, number):
    for _ in range(number):
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_optimizer_goes_on_as_if_never_saved(name, tmp_path):
    args = ExplicitArguments(optim=name, learning_rate=0.01, weight_decay=0.1)
    model = models()["t5"].eval()  # without dropout
    optimizer = optimization.optimizer(model, args)
    steps(model, optimizer, 3)
    save_file(saving.gather_optimizer(model, optimizer), tmp_path / OPTIMIZER)
    model.save_pretrained(tmp_path)

    loaded = models()["t5"].eval()
    saving.load_weights(tmp_path, loaded)
    of_loaded = optimization.optimizer(loaded, args)
    saving.load_optimizer(tmp_path, loaded, of_loaded)

    before = copy.deepcopy(model.state_dict())
    steps(model, optimizer, 3)
    steps(loaded, of_loaded, 3)
    for key, weights in model.state_dict().items():
        assert torch.equal(weights, loaded.state_dict()[key]), key
    assert any(not torch.equal(weights, before[key]) for key, weights in model.state_dict().items())


def test_optimizer_file_names_the_parameters(tmp_path):
    model = models()["bart"]
    optimizer = optimization.optimizer(model, ExplicitArguments())
    steps(model, optimizer, 1)
    save_file(saving.gather_optimizer(model, optimizer), tmp_path / OPTIMIZER)
    saved = load_file(tmp_path / OPTIMIZER)
    names = [name for name, _ in model.named_parameters()]
    assert set(saved) == {f"{kind}.{name}" for kind in ("step", "exp_avg", "exp_avg_sq") for name in names}
    for name, parameter in model.named_parameters():
        assert saved[f"exp_avg.{name}"].shape == parameter.shape
        assert saved[f"exp_avg.{name}"].dtype == torch.float32


def test_dropout_of_a_step_depends_on_seed_step_and_process_alone():
    def draw(*arguments):
        optimization.seed_step(*arguments)
        return torch.rand(4).tolist()

    draws = [draw(*arguments) for arguments in ((1, 1, 0), (1, 2, 0), (2, 1, 0), (1, 1, 1))]
    assert len(set(map(tuple, draws))) == 4
    assert draw(1, 1, 0) == draws[0]

"""Classifiers of pictures of transformers: what is new starts as in the other frameworks, what a run writes
has the names of files, pictures of other sizes, what is trained."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from triptych.errors import InputError
from triptych.models import initial_weights, tensor_files, vision
from triptych.pytorch import models, names, saving
from triptych.pytorch.trainer import Trainer

VIT = dict(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4, num_labels=3
)
STAGES = dict(hidden_sizes=[32, 64], depths=[1, 1], num_stages=2, num_labels=3)
SWIN = dict(embed_dim=32, depths=[1, 2], num_heads=[2, 4], window_size=2, image_size=16, num_labels=3)
SWIN |= dict(patch_size=2, use_absolute_embeddings=True)
TEACHER = ["DeiTForImageClassificationWithTeacher"]
CONFIGS = {
    "vit": transformers.ViTConfig(**VIT, intermediate_size=80),
    "deit": transformers.DeiTConfig(**VIT, intermediate_size=80),
    "deit-teacher": transformers.DeiTConfig(**VIT, intermediate_size=80, architectures=TEACHER),
    "dinov2": transformers.Dinov2Config(**VIT, layerscale_value=0.5),
    "dinov2-gated": transformers.Dinov2Config(**VIT, use_swiglu_ffn=True),
    "convnext": transformers.ConvNextConfig(**STAGES, layer_scale_init_value=0.1),
    "convnextv2": transformers.ConvNextV2Config(**STAGES),
    "resnet": transformers.ResNetConfig(
        hidden_sizes=[32, 64], depths=[1, 1], embedding_size=16, num_labels=3
    ),
    "swin": transformers.SwinConfig(**SWIN),
}


def load(folder, config, gradient_checkpointing=False, **options):
    hub = {"cache_dir": None, "model_revision": "main", "trust_remote_code": False}
    model_args = SimpleNamespace(model_name_or_path=folder and str(folder), **hub)
    args = SimpleNamespace(seed=3, gradient_checkpointing=gradient_checkpointing)
    config = type(config).from_dict(config.to_dict())
    return models.load(model_args, SimpleNamespace(**options), args, config, AutoModelForImageClassification)


def train(model, steps=2):
    """The optimizer that has trained a model on random pictures."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    pixels = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 16, 16), np.float32))
    for _ in range(steps):
        optimizer.zero_grad()
        model(pixel_values=pixels).logits.square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_new_model_is_drawn_by_names_in_files_from_transformers_distributions(config, tmp_path):
    model = load(None, config)
    model.save_pretrained(tmp_path)
    trained = {
        name for name, parts in names.in_files(model).items() if parts[0] in dict(model.named_parameters())
    }
    theirs = type(model)(model.config)
    theirs.save_pretrained(tmp_path / "theirs")
    wanted = tensor_files.read_model(tmp_path / "theirs")
    for name, found in tensor_files.read_model(tmp_path).items():
        if name in trained:
            assert np.array_equal(found, initial_weights.initial(name, found.shape, config, 3)), name
        margin = 6 * float(wanted[name].std()) / np.sqrt(found.size) + 1e-9
        deviation = pytest.approx(wanted[name].std(), rel=5 / np.sqrt(found.size), abs=1e-9)
        assert found.std() == deviation, name
        assert found.mean() == pytest.approx(wanted[name].mean(), abs=margin), name


def test_checkpoint_has_names_of_files_and_is_continued(config, tmp_path):
    model = load(None, config)
    optimizer = train(model)
    model.save_pretrained(tmp_path)
    moments = saving.gather_optimizer(model, optimizer)
    torch_file = tmp_path / tensor_files.OPTIMIZER
    saving.save_file(moments, torch_file)
    stored = load_file(tmp_path / tensor_files.MODEL)
    trainable = {name for name in stored if not vision.is_fixed(name) and stored[name].is_floating_point()}
    kinds = ("exp_avg", "exp_avg_sq", "step")
    assert {f"{kind}.{name}" for kind in kinds for name in trainable} >= moments.keys()
    assert {key.partition(".")[2] for key in moments} == {
        name
        for name, parts in names.in_files(model).items()
        if all(dict(model.named_parameters()).get(part) is not None for part in parts)
        and not vision.is_fixed(name)
    }
    assert all(
        moments[f"exp_avg.{name}"].shape == stored[name].shape
        for name in trainable
        if f"exp_avg.{name}" in moments
    )

    other, of_trainer = load(None, config), load(None, config)
    saving.load_weights(tmp_path, other)
    Trainer._load_from_checkpoint(SimpleNamespace(model=of_trainer), str(tmp_path))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
        assert torch.equal(of_trainer.state_dict()[name], value), name
    continued = torch.optim.AdamW(other.parameters(), lr=0.01)
    saving.load_optimizer(tmp_path, other, continued)
    found = saving.gather_optimizer(other, continued)
    assert found.keys() == moments.keys()
    assert all(torch.equal(found[key], moments[key]) for key in moments)


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_positions_fitted_to_another_size_are_transformers(kind, tmp_path):
    made = load(None, CONFIGS[kind])
    made.get_parameter(f"{kind}.{vision.POSITIONS}").data.normal_()
    made.save_pretrained(tmp_path)
    model = load(tmp_path, made.config, image_size=28)
    pixels = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 28, 28), np.float32))
    with torch.no_grad():
        expected = made.eval()(pixel_values=pixels, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(model.eval()(pixel_values=pixels).logits, expected, atol=1e-6, rtol=1e-5)
    assert model.config.image_size == 28


@pytest.mark.parametrize(("before", "after"), [(14, 24), (24, 14), (37, 16), (3, 1), (1, 4), (7, 7)])
def test_matrix_that_resizes_is_torchs_interpolation(before, after):
    table = np.random.default_rng(3).standard_normal((1, 2, before, 5), np.float32)
    across = vision.resizing(5, 4)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(table), size=(after, 4), mode="bicubic", align_corners=False
    )
    found = np.einsum("ah,bw,rchw->rcab", vision.resizing(before, after), across, table)
    np.testing.assert_allclose(found, wanted, atol=5e-6)


def test_backbone_that_is_frozen_leaves_the_head_alone_to_train(config):
    model = load(None, config, freeze_backbone=True)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    heads = ("classifier", "cls_classifier", "distillation_classifier")
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(heads)}
    assert len(trained) == (4 if config is CONFIGS["deit-teacher"] else 2)


def test_statistics_of_batches_do_not_change_in_training(caplog):
    model = load(None, CONFIGS["resnet"]).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    pixels = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 16, 16), np.float32))
    whole = model(pixel_values=pixels).logits
    assert len(before) == 3 * 9
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    torch.testing.assert_close(model(pixel_values=pixels[:1]).logits, whole[:1], atol=1e-5, rtol=1e-5)
    assert "batch normalisation" in caplog.text


def test_gradient_checkpointing_that_transformers_has_not_is_refused():
    with pytest.raises(InputError, match=r"--gradient_checkpointing: .* resnet\."):
        load(None, CONFIGS["resnet"], gradient_checkpointing=True)

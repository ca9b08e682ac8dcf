"""What configurations of classifiers of pictures say, and pictures of other sizes."""

import logging

import numpy as np
import pytest
import transformers

from triptych.errors import InputError
from triptych.models import convnext, resnet, swin, vision, vit

VIT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=4)


def test_deit_with_a_teacher_is_told_by_its_class():
    deit, vit = transformers.DeiTConfig(), transformers.ViTConfig()
    vision.settle_class(deit)
    assert deit.architectures == ["DeiTForImageClassification"]
    assert vision.head(deit, vision.HEAD) == vision.HEAD
    deit.architectures = vit.architectures = ["DeiTForImageClassificationWithTeacher"]
    vision.settle_class(deit)
    assert vision.head(deit, vision.HEAD) == vision.WITH_TEACHER
    assert vision.head(vit, vision.HEAD) == vision.HEAD
    assert vision.head(deit, "ForSequenceClassification") == "ForSequenceClassification"


def test_settings_that_do_not_fit_are_all_named():
    config = transformers.ViTConfig(**VIT | dict(num_attention_heads=5), image_size=[3, 12])
    with pytest.raises(InputError) as refusal:
        vit.vit_settings(config)
    assert len(refusal.value.problems) == 2
    with pytest.raises(InputError, match="depths differ"):
        convnext.convnext_settings(transformers.ConvNextConfig(hidden_sizes=[8, 16], num_stages=4))
    with pytest.raises(InputError, match="width 24 of a stage is no multiple of its num_heads=5"):
        swin.swin_settings(transformers.SwinConfig(embed_dim=12, depths=[1, 1], num_heads=[2, 5]))


def test_size_of_pictures_is_put_into_the_configuration():
    vit = transformers.ViTConfig(**VIT, image_size=[12, 8])
    assert vision.set_image_size(vit, None, trained=True) is None
    assert vit.image_size == [12, 8]
    assert vision.set_image_size(vit, 20, trained=True) == (3, 2)
    assert vit.image_size == 20
    assert vision.set_image_size(vit, 20, trained=True) is None
    assert vision.set_image_size(vit, 24, trained=False) is None
    assert vit.image_size == 24
    swin = transformers.SwinConfig(image_size=224)
    assert vision.set_image_size(swin, 448, trained=True) is None, "it has no table"
    assert swin.image_size == 448
    swin.use_absolute_embeddings = True
    assert vision.set_image_size(swin, 224, trained=True) == (112, 112)
    resnet = transformers.ResNetConfig()
    assert vision.set_image_size(resnet, 96, trained=True) is None
    assert not hasattr(resnet, "image_size")


def test_dinov2_keeps_the_size_that_its_table_is_for():
    dino = transformers.Dinov2Config(**VIT, image_size=12)
    assert vision.set_image_size(dino, 24, trained=True) is None
    assert dino.image_size == 12
    assert vision.set_image_size(dino, 24, trained=False) is None
    assert dino.image_size == 24


def test_positions_are_fitted_and_tokens_before_them_kept():
    config = transformers.DeiTConfig(**VIT, image_size=24)
    down, across = np.meshgrid(np.arange(3.0), np.arange(3.0), indexing="ij")
    slope = np.stack((down, across), axis=-1).reshape(1, 9, 2)
    table = np.concatenate((np.full((1, 2, 2), 7), slope), axis=1)
    found = vision.fit_positions(table, (3, 3), config)
    assert found.dtype == np.float32
    assert found.shape == (1, 2 + 36, 2)
    assert (found[:, :2] == 7).all()
    grid = found[0, 2:].reshape(6, 6, 2)
    np.testing.assert_allclose(grid[..., 0], grid[..., 1].T, atol=1e-6)
    assert (np.diff(grid[:, 0, 0]) > 0).all()
    assert grid.mean() == pytest.approx(1)
    with pytest.raises(InputError, match=r"of 9 patches.* 4 x 2"):
        vision.fit_positions(table, (4, 2), config)


@pytest.mark.parametrize(("before", "after"), [(3, 7), (16, 4), (5, 5)])
def test_weights_of_interpolation_sum_to_one_and_nothing_moves_where_sizes_agree(before, after):
    matrix = vision.resizing(before, after)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)
    if before == after:
        np.testing.assert_array_equal(matrix, np.eye(before))


def test_pictures_of_another_size_or_other_channels_are_refused():
    vision.require_size((3, 8, 12), 3, (8, 12))
    vision.require_size((3, 9, 13), 3, None)
    with pytest.raises(InputError, match=r"3 channels, and was given 1 x 8 x 12\."):
        vision.require_size((1, 8, 12), 3, None)
    with pytest.raises(
        InputError, match=r"3 x 8 x 12 \(channels, height, width\).* 3 x 12 x 8\. .*--image_size"
    ):
        vision.require_size((3, 12, 8), 3, (8, 12))


def test_windows_that_were_rolled_together_do_not_see_one_another():
    plain = swin.windows((6, 6), 3, shifted=False)
    assert plain == ((6, 6), 0, None)
    assert swin.windows((3, 9), 3, shifted=True).shift == 0, "it is as high as a window"
    padded, shift, bias = swin.windows((5, 7), 3, shifted=True)
    assert padded == (6, 9)
    assert shift == 1
    assert bias.shape == (6, 9, 9)
    assert not bias[0].any(), "the first window's places were neighbours"
    # The last window: two rows and columns of the padded picture's end, and one of its beginning.
    together = bias[-1].reshape(3, 3, 3, 3) == 0
    assert together[0, 0, 1, 1]
    assert not together[0, 0, 2, 0]
    assert not together[0, 0, 0, 2]
    assert together[2, 2].sum() == 1
    with pytest.raises(InputError, match=r"2 x 5 patches.* window of 3 x 3\..*--image_size"):
        swin.windows((2, 5), 3, shifted=True)


def test_distances_name_a_row_for_each_offset():
    found = swin.distances(2).reshape(2, 2, 2, 2)
    assert found[0, 0, 0, 0] == found[1, 1, 1, 1] == 4, "no distance is in the middle"
    assert found[1, 0, 0, 0] == found[1, 1, 0, 1] == 7
    assert found[0, 1, 0, 0] == 5
    assert sorted(set(found.ravel())) == list(range(9))


def test_convolutions_of_a_resnet_are_where_the_configuration_has_them():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2])
    layers = resnet.resnet_settings(config).layers
    assert [*layers] == [f"encoder.stages.{name}" for name in ("0.layers.0", "1.layers.0", "1.layers.1")]
    assert layers["encoder.stages.0.layers.0"]["shortcut"] == (8, 16, 1, 1, None)
    halving = layers["encoder.stages.1.layers.0"]
    assert [each.stride for each in halving.values()] == [1, 2, 1, 2]
    assert [each.activation for each in halving.values()] == ["relu", "relu", None, None]
    assert "shortcut" not in layers["encoder.stages.1.layers.1"]
    config.downsample_in_bottleneck = config.downsample_in_first_stage = True
    first = resnet.resnet_settings(config).layers["encoder.stages.0.layers.0"]
    assert [each.stride for each in first.values()] == [2, 1, 1, 2]


def test_first_weights_of_a_resnet_are_transformers():
    config, draw = transformers.ResNetConfig(hidden_sizes=[64]), np.random.default_rng
    kernel = vision.initial("resnet.a.convolution.weight", (50, 8, 3, 3), config, draw(0))
    assert kernel.std() == pytest.approx(np.sqrt(2 / 450), rel=0.05)
    for name, shape in (("classifier.1.weight", (100, 64)), ("classifier.1.bias", (1000,))):
        found = vision.initial(name, shape, config, draw(0))
        assert 0.12 < np.abs(found).max() <= 0.125
    assert vision.initial("resnet.a.normalization.running_var", (4,), config, draw(0)).all()
    assert not vision.initial("resnet.a.normalization.num_batches_tracked", (), config, draw(0)).any()


def test_frozen_statistics_are_announced(caplog):
    caplog.set_level(logging.WARNING)
    resnet.announce_frozen_statistics(trained=True)
    assert "stay those of the checkpoint" in caplog.text
    resnet.announce_frozen_statistics(trained=False)
    assert "stay 0 and 1" in caplog.text

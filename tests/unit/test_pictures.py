"""Pictures: as people's files hold them, as a checkpoint wants them, as draws change them."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from triptych import command_line, data
from triptych.arguments import PictureArguments, PictureModelArguments, TrainingArguments
from triptych.batching.draws import IN_EVALUATION, Draws
from triptych.data import pictures
from triptych.errors import InputError, RunError
from triptych.images import augmentation, batches, decoding, mixing
from triptych.images.decoding import Unreadable, decoded, problem
from triptych.images.processors import Processor

GRADIENT = np.add.outer(np.arange(40), 3 * np.arange(60))[..., None] * [1, 1, 1] % 256
GRADIENT = GRADIENT.astype(np.uint8)


def file_of(image, format="PNG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def noise(height, width, seed=0):
    """A picture with coarse structure, as photographs have, in every channel another."""
    small = np.random.default_rng(seed).integers(
        0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8
    )
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


# Decoding


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_as_its_camera_says(orientation):
    image = Image.fromarray(GRADIENT)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(file_of(image, exif=exif))
    turns = {1: GRADIENT, 2: GRADIENT[:, ::-1], 3: GRADIENT[::-1, ::-1], 4: GRADIENT[::-1]}
    turns |= {number + 4: turns[which].swapaxes(0, 1) for number, which in ((1, 1), (4, 2), (3, 3), (2, 4))}
    np.testing.assert_array_equal(found, turns[orientation])


def test_what_is_transparent_is_white():
    grey, alpha = np.full((2, 3), 40, np.uint8), np.array([[0, 255, 128]] * 2, np.uint8)
    expected = np.array([255, 40, 147])
    rgba = Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.fromarray(alpha)])
    la = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    for image in (rgba, la):
        np.testing.assert_allclose(decoded(file_of(image))[0, :, 0], expected, atol=1)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([9, 9, 9, 200, 100, 50])
    found = decoded(file_of(palette, transparency=0))
    assert found[0].tolist() == [[255, 255, 255], [200, 100, 50]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert decoded(file_of(keyed, transparency=(1, 2, 3)))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_grey_of_16_bits_is_not_white():
    values = np.array([[0, 144 * 257, 65535]], np.uint16)
    assert decoded(file_of(Image.fromarray(values)))[0, :, 1].tolist() == [0, 144, 255]
    dark = np.array([[0, 200]], np.uint16)  # nearly black, and not as 8 bits
    assert decoded(file_of(Image.fromarray(dark)))[0, :, 1].tolist() == [0, 1]
    assert decoded(file_of(Image.fromarray(values), "TIFF"))[0, :, 1].tolist() == [0, 144, 255]
    shares = np.array([[0, 0.5, 1]], np.float32)
    assert decoded(file_of(Image.fromarray(shares), "TIFF"))[0, :, 1].tolist() == [0, 128, 255]


def test_inks_bits_and_frames():
    inks = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    found = decoded(file_of(inks, "JPEG", quality=95))
    assert found.shape == (2, 2, 3)
    assert found[0, 0, 0] > 230
    assert found[0, 0, 1] < 25
    bits = Image.fromarray(np.array([[True, False]]))
    assert decoded(file_of(bits))[0].tolist() == [[255] * 3, [0] * 3]
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    moving = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decoded(moving)[0, 0].tolist() == [255, 0, 0]
    assert decoded(file_of(noise(1, 1))).shape == (1, 1, 3)


def bomb():
    """A PNG whose header promises 40,000 x 40,000 pixels."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IEND"
        + struct.pack(">I", zlib.crc32(b"IEND"))
    )


def test_broken_pictures_are_told_without_decoding_the_whole_ones(tmp_path, monkeypatch):
    image, photo = noise(64, 64), noise(200, 300)
    whole = {"a.png": file_of(image), "b.jpg": file_of(photo, "JPEG"), "c.gif": file_of(image, "GIF")}
    whole["d.jpg"] = whole["b.jpg"] + b"appended by a camera" * 9
    broken = {
        "cut.png": whole["a.png"][: len(whole["a.png"]) // 2],
        "cut.jpg": whole["b.jpg"][: len(whole["b.jpg"]) // 2],
        "empty.png": b"",
        "text.jpg": b"this is no picture",
        "bomb.png": bomb(),
    }
    for name, content in (whole | broken).items():
        (tmp_path / name).write_bytes(content)
        told = problem(name, str(tmp_path))
        assert (told is None) == (name in whole), name
        assert problem(content) == told or name == "empty.png"
        if name in broken:
            with pytest.raises(Unreadable):
                decoded(name, str(tmp_path))
    assert "179 million" in problem(broken["bomb.png"])
    assert "empty" in problem("empty.png", str(tmp_path))
    assert "No such file" in problem("missing.png", str(tmp_path))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert problem(whole["d.jpg"]) is None


def test_part_of_a_large_jpeg_is_decoded_small():
    photo = noise(1600, 2400)
    content = file_of(photo, "JPEG", quality=95)
    part = (0.25, 0.5, 0.75, 1.0)
    small = decoded(content, part=lambda size: part, least=(100, 150))
    whole = decoded(content, part=lambda size: part)
    assert small.shape == (100, 150, 3)
    assert whole.shape == (800, 1200, 3)
    reduced = np.asarray(Image.fromarray(whole).resize((150, 100), Image.Resampling.BOX), float)
    assert np.abs(small - reduced).mean() < 2
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = file_of(photo, "JPEG", quality=95, exif=exif)
    sizes = []
    found = decoded(turned, part=lambda size: sizes.append(size) or (0, 0, 1, 0.5), least=(100, 100))
    assert sizes == [(1600, 2400)]
    assert found.shape == (150, 200, 3)


# Processors

SIZES = ((8, 8), (37, 61), (61, 37), (300, 400), (1, 1), (20, 500))
PROCESSORS = {
    "ViTImageProcessor": [{}, {"size": {"height": 30, "width": 44}, "resample": 3, "do_normalize": False}],
    "DeiTImageProcessor": [
        {},
        {"size": {"height": 20, "width": 20}, "crop_size": {"height": 33, "width": 24}},
    ],
    "BitImageProcessor": [{}, {"size": {"shortest_edge": 35}, "crop_size": {"height": 30, "width": 31}}],
    "CLIPImageProcessor": [{"image_mean": [0.1, 0.2, 0.3], "image_std": [1.5, 2.5, 3.5]}],
    "SiglipImageProcessor": [{"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}],
    "BeitImageProcessor": [{"do_rescale": False}],
    "ConvNextImageProcessor": [
        {},
        {"size": {"shortest_edge": 60}},
        {"size": {"shortest_edge": 224}, "crop_pct": 0.9},
    ],
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pixels_are_those_of_transformers(kind, tmp_path):
    import transformers

    for settings in PROCESSORS[kind]:
        theirs = getattr(transformers, f"{kind}Pil")(**settings)
        theirs.save_pretrained(tmp_path)
        ours = Processor(eval_json(tmp_path / "preprocessor_config.json"))
        for seed, size in enumerate(SIZES):
            image = noise(*size, seed)
            expected = theirs(image, return_tensors="np")["pixel_values"][0]
            found = np.empty((3, *ours.output_size), np.float32)
            ours.normalised(ours.fitted(np.asarray(image)), found)
            assert found.shape == expected.shape, (settings, size)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=f"{settings} {size}")
        ours.save_pretrained(tmp_path)
        assert Processor(eval_json(tmp_path / "preprocessor_config.json")).settings == ours.settings
        again = getattr(transformers, f"{kind}Pil").from_pretrained(tmp_path)
        picture = noise(37, 61)
        pixels = [one(picture, return_tensors="np")["pixel_values"] for one in (theirs, again)]
        np.testing.assert_array_equal(*pixels)


def eval_json(path):
    import json

    return json.loads(path.read_text())


def test_processors_of_first_releases_and_other_sizes():
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "do_resize": True}
    assert Processor(old).output_size == (32, 32)
    assert Processor(old).resized_to(48).output_size == (48, 48)
    cropped = Processor({"image_processor_type": "BitImageProcessorFast", "size": {"shortest_edge": 256}})
    larger = cropped.resized_to(448)
    assert larger.output_size == (448, 448)
    assert larger.settings["size"] == {"shortest_edge": 512}
    convnext = {"image_processor_type": "ConvNextImageProcessor"}
    assert Processor(convnext).resized_to(224).output_size == (224, 224)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"image_processor_type": "LevitImageProcessor"}, "is a LevitImageProcessor"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "does do_pad"),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, "different shapes"),
        ({}, "without a name"),
    ],
)
def test_other_processors_are_refused(settings, part):
    with pytest.raises(InputError, match=part):
        Processor(settings, "somebody")


# Augmentation


def args(**flags):
    return PictureArguments(**({"train_file": "x"} | flags))


TINY = Processor({"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}})


def rows_of(count, **others):
    return {pictures.PICTURE: [file_of(noise(40, 60, n), "JPEG") for n in range(count)], **others}


@pytest.mark.parametrize("augment", ["crop", "trivial"])
def test_draws_make_the_same_pictures_whatever_the_batch(augment):
    rows, flags = rows_of(6), args(augment=augment)
    whole, _ = batches.pixel_values(rows, Draws(3, np.arange(6)), TINY, flags)
    alone = [
        batches.pixel_values({pictures.PICTURE: [value]}, Draws(3, np.array([n])), TINY, flags)[0][0]
        for n, value in enumerate(rows[pictures.PICTURE])
    ]
    np.testing.assert_array_equal(whole, alone)
    later, _ = batches.pixel_values(rows, Draws(3, np.arange(6) + 6), TINY, flags)
    assert all(np.abs(one - other).max() > 0.05 for one, other in zip(whole, later, strict=True))
    plain, _ = batches.pixel_values(rows, Draws(3, np.arange(6)), TINY, args())
    evaluated, _ = batches.pixel_values(rows, Draws(3, np.arange(6) + IN_EVALUATION), TINY, flags)
    np.testing.assert_array_equal(evaluated, plain)


def test_augmented_pixels_are_known():
    """A change of Pillow or of the draws must not go unnoticed: continued runs would differ."""
    rows = {pictures.PICTURE: [file_of(Image.fromarray(GRADIENT))] * 40}
    found, _ = batches.pixel_values(rows, Draws(1, np.arange(40)), TINY, args(augment="trivial"))
    again, _ = batches.pixel_values(rows, Draws(1, np.arange(40)), TINY, args(augment="trivial"))
    assert hashlib.sha256(found.tobytes()).digest() == hashlib.sha256(again.tobytes()).digest()
    assert len({picture.tobytes() for picture in found}) == 40


def test_crops_have_the_areas_and_shapes_that_are_asked_for():
    numbers = Draws(0, np.arange(2000)).uniform(augmentation.NUMBERS)
    boxes = np.array([augmentation.crop(one, (600, 400), 0.25) for one in numbers])
    width, height = (boxes[:, 2] - boxes[:, 0]), (boxes[:, 3] - boxes[:, 1])
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-12
    area, shape = width * height, width * 600 / (height * 400)
    assert area.min() >= 0.25 - 1e-9
    # Of areas from a quarter to all those of the largest crops fit the least often.
    assert 0.4 < np.mean(area) < 0.55
    assert area.max() > 0.8
    assert shape.min() >= 0.75 - 1e-9
    assert shape.max() <= 4 / 3 + 1e-9
    long = np.array([augmentation.crop(one, (1000, 10), 0.5) for one in numbers[:5]])
    np.testing.assert_allclose(long[:, 2] - long[:, 0], 4 / 300, rtol=1e-6)


def test_half_of_the_crops_are_mirrored():
    image = Image.fromarray(GRADIENT)
    numbers = Draws(0, np.arange(1000)).uniform(augmentation.NUMBERS)
    same = sum(augmentation.changed(image, one, "crop", True) == image for one in numbers)
    assert 450 < same < 550
    assert all(augmentation.changed(image, one, "crop", False) == image for one in numbers[:20])


def test_every_operation_changes_a_picture_more_the_stronger_it_is():
    image = noise(64, 64)
    for operation in augmentation.OPERATIONS[1:-2]:
        weak, strong = (
            np.abs(np.asarray(operation(image, strength, 1), float) - np.asarray(image, float)).mean()
            for strength in (0.1, 1.0)
        )
        assert weak < strong
    assert augmentation.OPERATIONS[0](image, 1.0, 1) == image


class Rows:
    """Features of training rows."""

    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns[pictures.PICTURE])

    def __getitem__(self, rows):
        return {name: [column[row] for row in rows] for name, column in self.columns.items()}


def mix(draws, rows, every, **flags):
    """A batch of `rows` mixed with `every`, and what it was before."""
    data_args = args()
    vars(data_args).update({"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | flags)
    pixels, _ = batches.pixel_values(rows, draws, TINY, data_args)
    batch = {"pixel_values": pixels.copy(), "labels": np.array(rows["labels"])}
    return mixing.mixed(batch, draws, Rows(every), TINY, 3, data_args), pixels


def test_mixed_pictures_and_labels_have_the_same_shares():
    every = rows_of(9, labels=[0, 1, 2] * 3)
    some = Rows(every)[range(4)]
    found, before = mix(Draws(5, np.arange(4)), some, every, mixup_alpha=0.8)
    weights = found["label_weights"]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    plain, _ = batches.pixel_values(every, Draws(5, np.arange(9)), TINY, args())
    for row in range(4):
        fits = []
        for partner in range(9):
            share = 1 - weights[row, every["labels"][partner]]
            if every["labels"][partner] == row % 3:
                continue
            blend = share * before[row] + (1 - share) * plain[partner]
            fits.append(np.abs(blend - found["pixel_values"][row]).max())
        same_label = weights[row, row % 3] == pytest.approx(1)
        assert same_label or min(fits) < 1e-5
    assert found["labels"].tolist() == some["labels"]

    found, before = mix(Draws(5, np.arange(4)), some, every, cutmix_alpha=1.0)
    for row in range(4):
        kept = (found["pixel_values"][row] == before[row]).all(axis=0).mean()
        assert kept == pytest.approx(found["label_weights"][row, row % 3], abs=1e-6) or (
            found["label_weights"][row, row % 3] == pytest.approx(1)
        )


def test_mixing_does_not_depend_on_the_batch_and_is_of_training_alone():
    every = rows_of(6, labels=[0, 1, 2] * 2)
    flags = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
    whole, _ = mix(Draws(2, np.arange(6)), every, every, **flags)
    for row in range(6):
        alone, _ = mix(Draws(2, np.array([row])), Rows(every)[[row]], every, **flags)
        for name in whole:
            np.testing.assert_array_equal(alone[name][0], whole[name][row])
    evaluated, before = mix(Draws(2, np.arange(6) + IN_EVALUATION), every, every, **flags)
    assert "label_weights" not in evaluated
    np.testing.assert_array_equal(evaluated["pixel_values"], before)


def test_labels_of_several_a_row_are_mixed_themselves():
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]].tolist()
    every = rows_of(4, labels=labels)
    found, _ = mix(Draws(1, np.arange(4)), every, every, mixup_alpha=1.0)
    assert "label_weights" not in found
    np.testing.assert_allclose(found["labels"].sum(axis=1), 1, rtol=1e-6)
    assert ((found["labels"] > 0) & (found["labels"] < 1)).any()


def test_broken_pictures_count_for_nothing_in_training_and_end_an_evaluation(caplog):
    corrupt = bytearray(file_of(noise(64, 64)))
    corrupt[len(corrupt) // 2] ^= 255
    rows = {pictures.PICTURE: [file_of(noise(8, 8)), {"bytes": bytes(corrupt), "path": "a/corrupt.png"}]}
    assert problem(rows[pictures.PICTURE][1]) is None  # neither header nor end tells
    pixels, readable = batches.pixel_values(rows, Draws(0, np.arange(2)), TINY, args())
    assert readable.tolist() == [True, False]
    assert not pixels[1].any()
    assert "a/corrupt.png" in caplog.text
    with pytest.raises(RunError, match=r"a/corrupt\.png cannot be decoded"):
        batches.pixel_values(rows, Draws(0, np.arange(2) + IN_EVALUATION), TINY, args())


# Folders and files


@pytest.fixture
def ugly(tmp_path):
    """What a folder of somebody's looks like."""
    root = tmp_path / "Fotos für Oma"
    for name in ("Blaue Äpfel/1 a.JPG", "Blaue Äpfel/inner/2.jpeg", "Birnen/ü.png", "Birnen/3.webp"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(9, 7).save(
            path, {"JPG": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.split(".")[1]]
        )
    noise(1, 1).save(root / "Birnen/one.png")
    (root / "Birnen/notes.txt").write_text("mine")
    (root / "Birnen/.hidden.png").write_bytes(b"")
    (root / "Leer").mkdir()
    (root / "Thumbs.db").write_bytes(b"")
    os.symlink(root / "Birnen/ü.png", root / "Blaue Äpfel/link.png")
    os.symlink(root, root / "Blaue Äpfel/loop")
    return root


def load(**flags):
    data_args = args(**{"train_file": None} | flags)
    assert data_args.problems() == []
    run = TrainingArguments(
        do_train=bool(data_args.source("train")), do_eval=bool(data_args.source("validation"))
    )
    run.do_predict, run.do_eval = bool(data_args.source("test")), run.do_eval or data_args.holds_out()
    return data.load(data_args, run)


def test_ugly_folder_is_read(ugly, caplog):
    raw, columns = load(train_dir=str(ugly))
    assert columns == {"image": "image"}
    assert len(raw["train"]) == 6
    found = pictures.from_folder(str(ugly), "train")
    pairs = dict(zip(found["image"], found["label"], strict=True))
    assert pairs == {
        "Birnen/3.webp": "Birnen",
        "Birnen/one.png": "Birnen",
        "Birnen/ü.png": "Birnen",
        "Blaue Äpfel/1 a.JPG": "Blaue Äpfel",
        "Blaue Äpfel/inner/2.jpeg": "Blaue Äpfel",
        "Blaue Äpfel/link.png": "Blaue Äpfel",
    }
    assert found["label"][:4] == ["Birnen", "Blaue Äpfel"] * 2  # in turn
    assert "2 files that are no pictures left out: Birnen/notes.txt, Thumbs.db" in caplog.text
    assert "no pictures in Leer" in caplog.text
    for value, folder in pictures.values(found, "image"):
        assert problem(value, folder) is None


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda root: root, "there is no such folder"),
        (lambda root: root.mkdir() or root, "holds no pictures"),
        (
            lambda root: [(root / name).mkdir(parents=True) for name in ("test", "Train")] and root,
            r"/Train\.",
        ),
        (lambda root: root.parent / "file", "is a file"),
    ],
)
def test_folders_that_are_none_of_pictures(make, part, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=part):
        pictures.from_folder(str(make(tmp_path / "pictures")), "train")


def test_rows_without_a_picture_are_left_out_of_any_split(tmp_path, caplog):
    noise(8, 8).save(tmp_path / "a.png")
    (tmp_path / "rows.csv").write_text("image,label\na.png,x\n,y\na.png,z\n")
    for split in ("train", "test"):
        raw, _ = load(**{f"{split}_file": str(tmp_path / "rows.csv")})
        assert len(raw[split]) == 2
        assert f"{split}: 1 of 3 rows dropped" in caplog.text


def test_folder_of_pictures_is_no_dataset(ugly):
    (problem,) = args(train_file=None, dataset_name=str(ugly)).problems()
    assert "is a folder of pictures: give --train_dir" in problem


def test_loose_pictures_have_no_class(tmp_path):
    noise(8, 8).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"1 picture\(s\) lie in none \(a\.png\): make some"):
        pictures.from_folder(str(tmp_path), "train")
    assert pictures.from_folder(str(tmp_path), "test").column_names == ["image", pictures.FOLDER]


def test_metadata_and_paths_are_relative_to_their_file(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    noise(8, 8, 1).save(folder / "in/a b.png")
    noise(8, 8, 2).save(folder / "c.png")
    (folder / "metadata.csv").write_text("file_name,label,camera\nin/a b.png,cat,x\nc.png,dog,y\n")
    raw, columns = load(train_dir=str(folder))
    assert columns == {"image": "file_name"}
    (tmp_path / "rows.jsonl").write_text('{"picture": "photos/c.png", "label": "dog"}\n')
    raw_files, columns = load(train_file=str(tmp_path / "rows.jsonl"))
    assert columns == {"image": "picture"}
    for rows, column, size in ((raw["train"], "file_name", 2), (raw_files["train"], "picture", 1)):
        read = [decoded(value, folder) for value, folder in pictures.values(rows, column)]
        assert len(read) == size
        np.testing.assert_array_equal(read[-1], np.asarray(noise(8, 8, 2)))
    # Where a folder lies is nothing that decides a result; what is in its files is.
    before = data.fingerprint(raw["train"])
    folder.rename(tmp_path / "moved")
    moved = load(train_dir=str(tmp_path / "moved"))[0]["train"]
    assert data.fingerprint(moved) == before
    noise(9, 9, 3).save(tmp_path / "moved/c.png")
    assert data.fingerprint(load(train_dir=str(tmp_path / "moved"))[0]["train"]) != before


def test_parquet_with_bytes_never_becomes_python_objects(tmp_path, monkeypatch):
    import pyarrow
    import pyarrow.parquet

    contents = [file_of(noise(8, 8, n)) for n in range(5)]
    structs = [{"bytes": content, "path": f"{n}.png"} for n, content in enumerate(contents)]
    for name, column in (("structs", structs), ("bytes", contents)):
        table = pyarrow.table({"image": column, "label": list("abcab")})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
        with monkeypatch.context() as patched:
            patched.setattr("triptych.data.sources.read_rows", lambda *_: pytest.fail("row by row"))
            raw, _ = load(train_file=str(tmp_path / f"{name}.parquet"))
        read = [
            bytes(v["bytes"] if isinstance(v, dict) else v) for v, _ in pictures.values(raw["train"], "image")
        ]
        assert read == contents
        features = data.features(raw, lambda rows: {}, {"image": "image"}, args())["train"]
        found = features[np.array([3, 1])]
        assert [decoding.name_of(value) for value in found[pictures.PICTURE]] == (
            ["3.png", "1.png"] if name == "structs" else ["", ""]
        )
        np.testing.assert_array_equal(decoded(found[pictures.PICTURE][0]), np.asarray(noise(8, 8, 3)))
        before = data.fingerprint(raw["train"])
        changed = [*contents[:4], file_of(noise(8, 8, 9))]
        column = changed if name == "bytes" else [{"bytes": c, "path": "x"} for c in changed]
        pyarrow.parquet.write_table(
            pyarrow.table({"image": column, "label": list("abcab")}), tmp_path / "other.parquet"
        )
        other, _ = load(train_file=str(tmp_path / "other.parquet"))
        assert data.fingerprint(other["train"]) != before


def test_datasets_of_pictures_are_not_decoded(tmp_path):
    import datasets

    contents = [file_of(noise(8, 8, n)) for n in range(4)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": c, "path": None} for c in contents], "label": [0, 1, 0, 1]}
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})
    saved.save_to_disk(tmp_path / "saved")
    data_args = args(train_file=None, dataset_name=str(tmp_path / "saved"))
    raw, columns = data.load(data_args, TrainingArguments(do_train=True))
    assert columns == {"image": "image"}
    assert [row["image"]["bytes"] for row in raw["train"]] == contents
    features = data.features(raw, lambda rows: {}, columns, data_args)["train"]
    assert features[[2]][pictures.PICTURE][0]["bytes"] == contents[2]


def test_unreadable_training_pictures_are_dropped_and_others_refused(ugly, caplog):
    (ugly / "Birnen/cut.png").write_bytes(file_of(noise(64, 64))[:100])
    raw, _ = load(train_dir=str(ugly))
    assert len(raw["train"]) == 6
    assert "1 of 7 pictures dropped" in caplog.text
    assert "Birnen/cut.png" in caplog.text
    with pytest.raises(InputError, match=r"validation: 1 of 7 pictures cannot be decoded.*Birnen/cut\.png"):
        load(validation_dir=str(ugly))


def test_held_out_pictures_are_the_same_in_any_order(tmp_path):
    for n in range(200):
        path = tmp_path / f"{n % 2}/{n}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file_of(noise(2, 2, n)))
    rows = pictures.from_folder(str(tmp_path), "train")
    parts = pictures.held_out(rows, "image", 0.2, seed=1)
    held = set(parts["validation"]["image"])
    assert 20 < len(held) < 60
    assert held | set(parts["train"]["image"]) == set(rows["image"])
    assert not held & set(parts["train"]["image"])
    again = pictures.held_out(rows.shuffle(seed=3).select(range(150)), "image", 0.2, seed=1)
    assert set(again["validation"]["image"]) <= held
    assert set(pictures.held_out(rows, "image", 0.2, seed=2)["validation"]["image"]) != held
    raw, _ = load(train_dir=str(tmp_path), train_val_split=0.2)
    assert {len(raw["train"]), len(raw["validation"])} == {
        200 - len(raw["validation"]),
        len(raw["validation"]),
    }
    with pytest.raises(InputError, match="leaves one side none"):
        pictures.held_out(rows.select(range(2)), "image", 1e-9, seed=1)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (dict(train_val_split=1.5), "must be above 0 and below 1"),
        (dict(train_val_split=0.1, validation_file="v.csv"), "give one of them"),
        (dict(train_val_split=0.1, streaming=True), "--streaming is for files and datasets"),
        (dict(train_file="x.csv", train_dir="x"), "--train_dir and --train_file"),
        (dict(train_dir="x", dataset_name="beans"), "--dataset_name and --train_dir name two sources"),
        (dict(image_size=0), "at least 1"),
        (dict(crop_scale=0.5), "--crop_scale is for --augment"),
        (dict(crop_scale=0.0, augment="crop"), "above 0 and at most 1"),
        (dict(horizontal_flip=False), "--horizontal_flip is for --augment"),
    ],
)
def test_flags_that_do_not_go_together(flags, part, tmp_path):
    problems = PictureArguments(**{"train_file": str(tmp_path / "x.csv")} | flags).problems()
    assert any(part in told for told in problems), problems


def test_flags_of_lengths_are_refused_with_the_reason(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("image,label\na.png,b\n")
    (tmp_path / "config.json").write_text("{}")
    words = ["--model_name_or_path", str(tmp_path), "--train_file", str(tmp_path / "rows.csv"), "--do_train"]
    words += ["--group_by_length", "--max_tokens_per_batch", "99", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        command_line.parse(PictureModelArguments, PictureArguments, TrainingArguments, argv=words)
    told = capsys.readouterr().err
    for name in ("group_by_length", "max_tokens_per_batch"):
        assert f"--{name} is for rows of different lengths; these images all have one size" in told

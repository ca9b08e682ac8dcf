"""Folders of pictures, and what training makes of them, in whole runs: the same in every form."""

import json
import os
import shutil

import numpy as np
import pytest
from harness import alike, answers, finish_script, flags, run_python, run_script, start_script
from hub import READS, USER, Hub
from PIL import Image
from safetensors.numpy import load_file

REPOSITORY = f"{USER}/digits"

pytestmark = pytest.mark.needs("pictures")


@pytest.fixture(scope="session")
def augmented(shared_run, start, samples):
    """A folder of which a part is held out, every way of augmentation at once, threads, several batches a
    step."""

    def run(form):
        words = flags(
            model_name_or_path=start(form),
            train_dir=samples / "digits/train",
            label_column_name="label",
            train_val_split=0.05,
            augment="trivial",
            crop_scale=0.5,
            horizontal_flip=False,
            mixup_alpha=0.4,
            cutmix_alpha=1.0,
            label_smoothing_factor=0.1,
            do_train=True,
            do_eval=True,
            max_train_samples=100,
            max_steps=6,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
        )
        return shared_run(form, "augmented", *words, record="batches.jsonl")

    return run


def recorded(run):
    return [json.loads(line) for line in (run.output.parent / "batches.jsonl").read_text().splitlines()]


def test_augmented_run_is_the_first_forms(first_form, other_form, augmented):
    first, other = augmented(first_form), augmented(other_form)
    for expected, found in zip(recorded(first)[:12], recorded(other)[:12], strict=True):
        assert found["numbers"] == expected["numbers"]
        assert found["arrays"] == expected["arrays"]
        assert "label_weights" in found["arrays"]
    for expected, found in zip(first.log("loss"), other.log("loss"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    results = [run.json("eval_results.json") for run in (first, other)]
    assert results[0]["eval_samples"] == results[1]["eval_samples"] > 20
    assert results[1]["eval_loss"] == pytest.approx(results[0]["eval_loss"], rel=1e-4)


@pytest.fixture(scope="session")
def enlarged(shared_run, start, files):
    """Larger pictures, other labels and a backbone that stays."""

    def run(form):
        words = flags(
            model_name_or_path=start(form),
            train_file=files["train_file"],
            test_file=files["test_file"],
            label_column_name="topic",
            ignore_mismatched_sizes=True,
            image_size=12,
            freeze_backbone=True,
            do_train=True,
            do_predict=True,
            max_train_samples=24,
            max_predict_samples=6,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            logging_steps=1,
        )
        return shared_run(form, "enlarged", *words)

    return run


def test_frozen_backbone_stays_and_positions_are_fitted(form, enlarged, start):
    run = enlarged(form)
    before, after = load_file(start(form) / "model.safetensors"), load_file(run.output / "model.safetensors")
    assert set(before) == set(after)
    positions = "vit.embeddings.position_embeddings"
    assert (before[positions].shape[1], after[positions].shape[1]) == (17, 37)
    assert run.json("config.json")["image_size"] == 12
    assert run.json("preprocessor_config.json")["size"] == {"height": 12, "width": 12}
    for name in before:
        if name.startswith("vit.") and name != positions:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    labels = run.json("config.json")["id2label"]
    assert after["classifier.weight"].shape == (len(labels), 32) != before["classifier.weight"].shape


def test_enlarged_run_is_the_first_forms(first_form, other_form, enlarged):
    first, other = enlarged(first_form), enlarged(other_form)
    for expected, found in zip(first.log("loss"), other.log("loss"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    expected, found = (load_file(run.output / "model.safetensors") for run in (first, other))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope="session")
def of_several(shared_run, start, files):
    """Rows with several labels, mixed."""

    def run(form):
        rows = [json.loads(line) for line in files["train_file"].read_text().splitlines()[:24]]
        path = files["train_file"].with_name("several.jsonl")
        named = [[row["digit"], *["odd"] * (int(row["digit"]) % 2)] for row in rows]
        lines = [json.dumps({"image": row["image"], "label": n}) for row, n in zip(rows, named, strict=True)]
        path.write_text("\n".join(lines))
        words = flags(
            model_name_or_path=start(form).with_name(form.tests["bare"]),
            train_file=path,
            validation_file=path,
            label_column_name="label",
            mixup_alpha=0.5,
            do_train=True,
            do_eval=True,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
        )
        return shared_run(form, "of-several", *words)

    return run


def test_several_labels_a_picture_are_the_first_forms(first_form, other_form, of_several):
    first, other = of_several(first_form), of_several(other_form)
    assert other.json("config.json")["problem_type"] == "multi_label_classification"
    for expected, found in zip(first.log("loss"), other.log("loss"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert other.json("eval_results.json")["eval_f1_micro"] == pytest.approx(
        first.json("eval_results.json")["eval_f1_micro"], rel=1e-6
    )


FAMILIES = ("deit", "dinov2", "swin", "convnext", "convnextv2", "resnet")
SAVED = 6  # the step from which a run of a family is continued


@pytest.fixture(scope="session")
def of_family(shared_run, tiny, samples):
    """A small model of a family, fine-tuned on digits."""

    def words(family, **others):
        return flags(
            model_name_or_path=tiny / f"digits-{family}",
            train_dir=samples / "digits/train",
            validation_dir=samples / "digits/validation",
            test_dir=samples / "digits/test",
            label_column_name="label",
            do_train=True,
            max_train_samples=60,
            max_eval_samples=40,
            max_predict_samples=40,
            max_steps=2 * SAVED,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=2e-3,
            logging_steps=1,
            save_steps=SAVED,
            **others,
        )

    def run(form, family):
        return shared_run(form, f"family-{family}", *words(family, do_eval=True, do_predict=True))

    run.words = words
    return run


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_fine_tuned_as_by_the_first_form(
    first_form, other_form, of_family, family, samples, tmp_path
):
    """And the first form, which is transformers' own model, answers from the weights of the other as it
    does."""
    first, other = (of_family(form, family) for form in (first_form, other_form))
    expected, found = ([entry["loss"] for entry in run.log("loss")] for run in (first, other))
    assert len(found) == 2 * SAVED
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    expected, found = (load_file(run.output / "model.safetensors") for run in (first, other))
    assert set(found) == set(expected)
    words = flags(
        model_name_or_path=other.output,
        validation_dir=samples / "digits/validation",
        test_dir=samples / "digits/test",
        label_column_name="label",
        do_eval=True,
        do_predict=True,
        max_eval_samples=40,
        max_predict_samples=40,
    )
    again = run_script(first_form, *words, folder=tmp_path)
    assert "newly initialized" not in again.stderr
    for prefix in ("eval", "predict"):
        losses = [run.json(f"{prefix}_results.json")[f"{prefix}_loss"] for run in (again, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    rows = [answers(run.output / "predictions.tsv") for run in (again, other)]
    assert all(map(alike, *rows))


@pytest.mark.nightly
def test_continued_resnet_is_the_uninterrupted_one_and_keeps_its_statistics(form, of_family, tiny, tmp_path):
    expected = of_family(form, "resnet")
    assert "statistics of batch normalisation stay those of the checkpoint" in expected.stderr
    checkpoint = expected.output / f"checkpoint-{SAVED}"
    words = of_family.words("resnet", resume_from_checkpoint=checkpoint)
    found = run_script(form, *words, folder=tmp_path)
    assert found.log("loss") == expected.log("loss")
    before, after, continued = (
        load_file(folder / "model.safetensors")
        for folder in (tiny / "digits-resnet", expected.output, found.output)
    )
    assert set(before) == set(after) == set(continued)
    for name, value in after.items():
        np.testing.assert_array_equal(continued[name], value, err_msg=name)
        if "running_" in name:
            np.testing.assert_array_equal(before[name], value, err_msg=name)
    assert np.any([before["classifier.1.weight"] != after["classifier.1.weight"]])


# As the datasets of the hub have pictures: files' bytes with a name, and numbers of classes
WRITE_PARQUET = """if True:
    import json, sys
    import pyarrow as pa, pyarrow.parquet
    from pathlib import Path

    folder, target, count = sys.argv[1:]
    paths = sorted(Path(folder).rglob("*.png"), key=lambda path: path.name)[: int(count)]
    names = [str(digit) for digit in range(10)]
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    table = pa.table({"image": images, "label": [names.index(path.parent.name) for path in paths]})
    kinds = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    about = json.dumps({"info": {"features": kinds}})
    pa.parquet.write_table(table.replace_schema_metadata({"huggingface": about}), target)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("streaming", [None, True])
def test_pictures_of_a_hub_reach_the_model_as_they_are(streaming, form, start, samples, tmp_path):
    """Files' bytes in Parquet, with classes by number, also as they are needed."""
    counts, folder = {"train": 60, "validation": 12}, tmp_path / "hub/datasets" / REPOSITORY
    folder.mkdir(parents=True)
    for split, count in counts.items():
        where = samples / "digits" / split, folder / f"{split}.parquet"
        run_python("-c", WRITE_PARQUET, *where, count, framework=form.framework)
    words = flags(
        model_name_or_path=start(form),
        dataset_name=REPOSITORY,
        hub_token=READS,
        label_column_name="label",
        streaming=streaming,
        do_train=True,
        do_eval=True,
        max_steps=6,
        per_device_train_batch_size=4,
        logging_steps=1,
        output_dir="out",
    )
    with Hub(tmp_path / "hub") as hub:
        # `datasets` looks elsewhere as well: not noted
        environment = hub.environment(tmp_path / "cache") | {"TRIPTYCH_CONNECTIONS": os.devnull}
        process = start_script(form, words, tmp_path, tmp_path / "batches.jsonl", **environment)
        run = finish_script(process, form, tmp_path / "out", 0)
        assert hub.tokens == {READS}
    assert len(run.log("loss")) == 6
    assert run.json("eval_results.json")["eval_samples"] == counts["validation"]
    names = json.loads((start(form) / "config.json").read_text())["id2label"]
    known = {}
    for path in (samples / "digits").rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
        known[(pixels / 127.5 - 1).round(4).tobytes()] = path.parent.name
    seen = []
    for batch in (one["arrays"] for one in recorded(run)):
        for pixels, label in zip(batch["pixel_values"], batch["labels"], strict=True):
            key = np.array(pixels).round(4).tobytes()
            seen.append(key)
            assert known[key] == names[str(label)]
    assert len(set(seen[:24])) == 24


@pytest.mark.crossed
def test_folder_as_people_have_it(form, start, samples, tmp_path):
    """Spaces, umlauts, other endings, a text file, an empty class, a picture cut off; and new ones without
    classes, whose names stand beside the answers."""
    folder = tmp_path / "Fotos für alle"
    for digit in "01":
        for number, path in enumerate(sorted((samples / f"digits/train/{digit}").iterdir())[:8]):
            target = folder / f"Ziffer {digit} ä" / f"Bild {number}.PNG"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (folder / "Ziffer 0 ä/notes.txt").write_text("mine")
    (folder / "Ziffer 0 ä/cut.png").write_bytes(target.read_bytes()[:60])
    (folder / "leer").mkdir()
    (tmp_path / "neu").mkdir()
    for number, path in enumerate(sorted((samples / "digits/test/1").iterdir())[:3]):
        shutil.copy(path, tmp_path / "neu" / f"ö {number}.jpeg.png")
    words = flags(
        model_name_or_path=start(form),
        ignore_mismatched_sizes=True,
        train_dir=folder,
        test_dir=tmp_path / "neu",
        label_column_name="label",
        do_train=True,
        do_predict=True,
        num_train_epochs=1,
    )
    run = run_script(form, *words, folder=tmp_path)
    assert "1 of 17 pictures dropped" in run.stderr
    assert "no pictures in leer" in run.stderr
    assert run.json("config.json")["label2id"] == {"Ziffer 0 ä": 0, "Ziffer 1 ä": 1}
    table = [line.split("\t") for line in (run.output / "predictions.tsv").read_text().splitlines()]
    assert [row[3] for row in table] == ["file", "ö 0.jpeg.png", "ö 1.jpeg.png", "ö 2.jpeg.png"]
    assert (run.output / "predicted_samples.png").read_bytes()[:4] == b"\x89PNG"
    words[words.index(str(folder))] = str(tmp_path / "one")
    shutil.copytree(folder / "Ziffer 1 ä", tmp_path / "one/only")
    refused = run_script(form, *words, folder=tmp_path, output="refused", expect=2)
    assert "All training rows have the same label, 'only'" in refused.problems[0]
    words[words.index("--train_dir")] = "--validation_dir"
    words[words.index(str(tmp_path / "one"))] = str(folder)
    words = ["--do_eval" if word == "--do_train" else word for word in words]
    refused = run_script(form, *words, folder=tmp_path, output="refused", expect=2)
    assert "cut.png" in refused.problems[0]

"""How many pictures a second become arrays, beside the plain ways: `python benchmarks/pictures.py [PICTURES]`

JPEGs of 500 x 375 pixels for a ViT of 224 x 224, on as many cores as the process has. TensorFlow's own way is
measured where TensorFlow is installed; its pixels are others, since it resizes otherwise.
"""

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from triptych.arguments import PictureArguments
from triptych.batching import Draws
from triptych.data import pictures
from triptych.images.batches import pixel_values
from triptych.images.processors import Processor

BATCH, TIMES, SIDE = 16, 3, 224


def make(folder: Path, count: int, size: tuple[int, int] = (500, 375), ending: str = "jpg") -> None:
    """Pictures with as much detail as photographs, some 60 kB each, in two folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (94, 125, 3), np.uint8)
        path = folder / str(number % 2) / f"{number:04d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def plain(image: Image.Image) -> np.ndarray:
    """What tutorials write."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return ((pixels.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def measured(name: str, count: int, work: Callable[[], None]) -> None:
    seconds = []
    for _ in range(TIMES):
        began = time.process_time(), time.perf_counter()
        work()
        seconds.append((time.process_time() - began[0], time.perf_counter() - began[1]))
    computed, passed = (count / min(each) for each in zip(*seconds, strict=True))
    print(f"{name:48} {computed:8.0f} a second of a core {passed:8.0f} a second")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, count)
        rows = pictures.from_folder(name, "train")
        features = pictures.Beside(rows, "image", None)
        size = {"height": SIDE, "width": SIDE}
        processor = Processor({"image_processor_type": "ViTImageProcessor", "size": size})
        batches = [np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]

        def ours(threads: int, **flags: str) -> None:
            data_args = PictureArguments(train_dir=name, **flags)

            def one(batch: np.ndarray) -> None:
                pixel_values(features[batch], Draws(0, batch), processor, data_args)

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, batches))

        measured("ours, whole pictures", count, lambda: ours(1))
        measured("ours, --augment crop", count, lambda: ours(1, augment="crop"))
        measured("ours, --augment trivial", count, lambda: ours(1, augment="trivial"))
        threads = len(os.sched_getaffinity(0))
        measured(f"ours, whole pictures, {threads} threads", count, lambda: ours(threads))
        paths = sorted(folder.glob("*/*.jpg"))

        def by_pillow() -> None:
            for batch in batches:
                np.stack([plain(Image.open(paths[number])) for number in batch])

        def by_datasets() -> None:
            for batch in batches:
                np.stack([plain(image) for image in loaded[batch]["image"]])

        def by_tensorflow() -> None:
            import tensorflow as tf

            def read(path):
                pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
                return (tf.image.resize(pixels, (SIDE, SIDE)) / 255 - 0.5) / 0.5

            names = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
            for _ in names.map(read, num_parallel_calls=1).batch(BATCH):
                pass

        import datasets

        datasets.disable_progress_bars()
        loaded = datasets.load_dataset("imagefolder", data_dir=name, split="train", cache_dir=f"{name}/cache")
        measured("Pillow and numpy, plainly", count, by_pillow)
        measured("the same on datasets' imagefolder", count, by_datasets)
        if importlib.util.find_spec("tensorflow"):
            measured("tf.data", count, by_tensorflow)


if __name__ == "__main__":
    main()

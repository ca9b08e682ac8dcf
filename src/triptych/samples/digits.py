"""Real pictures without a network: the handwritten digits that scikit-learn brings along."""

import hashlib
from pathlib import Path
from typing import Any

from triptych.errors import InputError

WHITE = 16  # of the values, which count ink


def digits(out_dir: str | Path, rows: int | None = None, seed: int = 0) -> dict[str, int]:
    """Writes the 1,797 handwritten digits of scikit-learn (Alpaydin and Kaynak 1998, "Optical recognition of
    handwritten digits") as pictures of 8 x 8 pixels, black on white: train/3/0042.png and so on, a tenth each
    in validation and test.

    Args:
        rows: of all splits together, at most.
        seed: of the order, by a hash of which the splits are made.

    Returns:
        The number of pictures of each split.

    Raises:
        InputError: scikit-learn is missing, or the folder cannot be written to.
    """
    import numpy as np
    from PIL import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("The digits are scikit-learn's: pip install 'scikit-learn>=1.6,<2'") from None

    found = load_digits()

    def drawn(number: int) -> bytes:
        return hashlib.sha256(f"{seed} {number}".encode()).digest()

    order = sorted(range(len(found.target)), key=drawn)[:rows]
    held_out = max(1, len(order) // 10)
    parts: dict[str, Any] = {
        "train": order[: -2 * held_out],
        "validation": order[-2 * held_out : -held_out],
        "test": order[-held_out:],
    }
    try:
        for split, numbers in parts.items():
            for number in numbers:
                ink = found.images[number] / WHITE
                path = Path(out_dir, split, str(found.target[number]), f"{number:04d}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.rint(255 * (1 - ink)).astype(np.uint8)).save(path)
    except OSError as error:
        raise InputError(
            f"{error.filename}: {error.strerror}; name a folder that can be written to."
        ) from error
    return {split: len(numbers) for split, numbers in parts.items()}

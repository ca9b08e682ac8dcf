"""Random numbers for data: a pure function of (seed, draw of the row, place), the same bytes everywhere."""

from dataclasses import dataclass

import numpy as np

IN_EVALUATION = 2**62  # where the numbers of rows in evaluation and prediction begin
GOLDEN_GAMMA = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Draws:
    """What a batch's rows draw at random: masks, crops, orders.

    The numbers depend on nothing but seed, draw and place: not on the batch, the process, the worker or the
    framework, and there is no state that a checkpoint would have to hold.

    Attributes:
        seed: of the run's data.
        numbers: int64 (rows,): in training, epoch times rows of an epoch plus the row's number (of a stream,
            how many rows came before), so that a row draws anew in each epoch; in evaluation IN_EVALUATION
            plus the row's number, so that it draws the same each time.
    """

    seed: int
    numbers: np.ndarray

    @property
    def in_training(self) -> bool:
        """Whether the rows are trained on: what augments them is not for evaluation."""
        return bool((self.numbers < IN_EVALUATION).all())

    def comparable(self) -> "Draws":
        """These in training; in evaluation those of seed 0, so that runs with different seeds are scored
        alike."""
        return self if self.in_training else Draws(0, self.numbers)

    def bits(self, places: int, purpose: int = 0) -> np.ndarray:
        """uint64 (rows, places), each bit as likely 0 as 1, by splitmix64 (Steele, Lea and Flood 2014,
        "Fast splittable pseudorandom number generators").

        Args:
            purpose: numbers that serve different purposes get different ones.
        """
        start = mixed(np.array([self.seed, purpose]).astype(np.uint64))
        rows = mixed(self.numbers.astype(np.uint64) ^ start[0] ^ (start[1] << np.uint64(1)))
        return mixed(rows[:, None] + np.arange(places, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA))

    def uniform(self, places: int, purpose: int = 0) -> np.ndarray:
        """float64 (rows, places), from 0 to below 1."""
        return (self.bits(places, purpose) >> np.uint64(11)) * 2.0**-53


def mixed(values: np.ndarray) -> np.ndarray:
    """The output function of splitmix64, of uint64 to uint64."""
    values = values + np.uint64(GOLDEN_GAMMA)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

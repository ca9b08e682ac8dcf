"""Finds source files that are nearly the same, by MinHash and locality-sensitive hashing.

    python run_deduplication.py --output_dir out

The corpus is the Python files of installed packages, by default of those that requirements.txt pins. A file
is the set of its shingles, the runs of five tokens. Two files are near-duplicates if the Jaccard similarity
of their sets (the number of shingles that both have, of all that either has) is `--threshold` or more.

MinHash (Broder 1997) keeps of each set the least value of each of many random functions: two sets agree in
one of them with the probability of their similarity. Files that agree in all functions of at least one band
are a candidate pair. Candidates alone are compared set with set; `--exact` compares all pairs, to tell what
was missed.

Writes results.json (the figures, for each seed), duplicates.json (the groups of near-duplicates) and kept.txt
(the files that stay: the first of each group), the last two by the first seed.
"""

import argparse
import json
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from importlib import metadata
from itertools import combinations
from pathlib import Path

import numpy as np

PRIME = (1 << 31) - 1  # the values of the random functions are smaller: products fit into 64 bits
PACKAGES = ["importlib_metadata", "more-itertools", "networkx", "packaging", "platformdirs", "poetry-core"]
PACKAGES += ["setuptools", "typing_extensions", "zipp"]  # several carry copies of the others
TOKEN = re.compile(r"\w+|[^\w\s]")


def read(packages: list[str], shortest: int = 50) -> dict[str, np.ndarray]:
    """The sets of shingles of the Python files of installed packages, as sorted arrays, by the files' names.

    Files with fewer than `shortest` shingles are left out: of so few lines many are the same by chance.
    """
    corpus = {}
    for package in packages:
        for file in metadata.files(package) or []:
            if file.suffix == ".py":
                text = Path(file.locate()).read_text(encoding="utf-8", errors="replace")
                corpus[file.as_posix()] = shingles(text)
    return {name: found for name, found in sorted(corpus.items()) if len(found) >= shortest}


def shingles(text: str, length: int = 5) -> np.ndarray:
    """The set of runs of `length` tokens, each a number below `PRIME` that is the same on every machine."""
    tokens = TOKEN.findall(text)
    runs = {" ".join(tokens[start : start + length]) for start in range(len(tokens) - length + 1)}
    return np.unique(np.array([zlib.crc32(run.encode()) % PRIME for run in runs], np.int64))


def signatures(sets: list[np.ndarray], functions: int, seed: int) -> np.ndarray:
    """Of each set the least value of each function (a·x + b) mod p: int64[sets, functions]."""
    generator = np.random.default_rng(seed)
    factors = generator.integers(1, PRIME, (functions, 1))
    terms = generator.integers(0, PRIME, (functions, 1))
    return np.stack([((factors * one + terms) % PRIME).min(axis=1) for one in sets])


def candidates(found: np.ndarray, bands: int) -> list[tuple[int, int]]:
    """The pairs of rows that agree in all functions of at least one band."""
    pairs: set[tuple[int, int]] = set()
    for band in np.split(found, bands, axis=1):
        buckets = defaultdict(list)
        for number, values in enumerate(band):
            buckets[values.tobytes()].append(number)
        for bucket in buckets.values():
            pairs.update(combinations(bucket, 2))
    return sorted(pairs)


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """The Jaccard similarity of two sorted sets."""
    both = np.intersect1d(one, other, assume_unique=True).size
    return both / (one.size + other.size - both)


def groups(number: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The rows that pairs connect, directly or through others; rows alone are groups of one."""
    first = list(range(number))

    def root(row: int) -> int:
        while first[row] != row:
            row = first[row] = first[first[row]]
        return row

    for one, other in pairs:
        one, other = sorted((root(one), root(other)))
        first[other] = one
    members = defaultdict(list)
    for row in range(number):
        members[root(row)].append(row)
    return list(members.values())


def leaked(files: Sequence[int], pairs: set[tuple[int, int]], seed: int) -> float:
    """If a tenth of the files (at least one) is drawn for tests: the share of them that has a
    near-duplicate in the rest."""
    number = max(1, len(files) // 10)
    test = set(np.random.default_rng(seed).permutation(files)[:number].tolist())
    rest = set(files) - test
    found = {one for pair in pairs for one, other in (pair, pair[::-1]) if one in test and other in rest}
    return len(found) / len(test)


def deduplicate(sets: list[np.ndarray], args: argparse.Namespace, seed: int) -> tuple[dict, list[list[int]]]:
    """The figures of one seed, and the groups of files that near-duplicates connect."""
    began = time.process_time()
    found = signatures(sets, args.functions, seed)
    compared = {
        (one, other): similarity(sets[one], sets[other]) for one, other in candidates(found, args.bands)
    }
    near = [pair for pair, similar in compared.items() if similar >= args.threshold]
    seconds = time.process_time() - began
    errors = [abs((found[one] == found[other]).mean() - compared[one, other]) for one, other in compared]
    together = groups(len(sets), near)
    figures = {
        "candidates": len(compared),
        "share_of_pairs_compared": len(compared) / (len(sets) * (len(sets) - 1) / 2),
        "near_duplicates": len(near),
        "mean_error_of_estimate": float(np.mean(errors)) if errors else 0.0,
        "files_kept": len(together),
        "cpu_seconds": round(seconds, 2),
    }
    return figures, together


def check(args: argparse.Namespace) -> list[str]:
    """What is wrong with the flags: one sentence each."""
    problems = []
    for package in args.packages:
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            problems.append(f"--packages: {package} is not installed.")
    if args.functions < 1 or args.bands < 1 or args.functions % args.bands:
        problems.append(
            f"--functions {args.functions} cannot be cut into {args.bands} --bands of equal size."
        )
    if not 0 < args.threshold <= 1:
        problems.append(f"--threshold {args.threshold} is no similarity: it is above 0 and at most 1.")
    if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
        problems.append(f"--output_dir {args.output_dir} is there already, and is no empty folder.")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="whose files are read (%(default)s)")
    parser.add_argument("--functions", type=int, default=128, help="random functions (%(default)s)")
    parser.add_argument("--bands", type=int, default=32, help="of as many functions each (%(default)s)")
    parser.add_argument("--threshold", type=float, default=0.8, help="of near-duplicates (%(default)s)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of the random functions (%(default)s)"
    )
    parser.add_argument("--exact", action="store_true", help="compare all pairs as well")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    if problems := check(args):
        parser.error("\n".join(["these do not work:", *problems]))

    corpus = read(args.packages)
    names, sets = list(corpus), list(corpus.values())
    if len(sets) < 2:
        parser.error(f"{', '.join(args.packages)}: {len(sets)} files of 50 shingles or more; two are needed.")
    results: dict = {"files": len(sets), "pairs": len(sets) * (len(sets) - 1) // 2}
    if args.exact:
        began = time.process_time()
        pairs = combinations(range(len(sets)), 2)
        true = {pair for pair in pairs if similarity(sets[pair[0]], sets[pair[1]]) >= args.threshold}
        results["exact"] = {
            "near_duplicates": len(true),
            "files_in_them": len({one for pair in true for one in pair}),
            "cpu_seconds": round(time.process_time() - began, 2),
        }
    of_seeds = {seed: deduplicate(sets, args, seed) for seed in args.seeds}
    results["seeds"] = {seed: figures for seed, (figures, _) in of_seeds.items()}
    if args.exact:
        for seed, (figures, together) in of_seeds.items():
            figures["recall"] = figures["near_duplicates"] / max(1, len(true))
            figures["leaked_into_test"] = leaked(range(len(sets)), true, seed)
            figures["leaked_when_kept"] = leaked([members[0] for members in together], true, seed)

    first = of_seeds[args.seeds[0]][1]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    duplicates = [[names[one] for one in members] for members in first if len(members) > 1]
    for file, content in (
        ("results.json", json.dumps(results, indent=1)),
        ("duplicates.json", json.dumps(duplicates, indent=1)),
        ("kept.txt", "\n".join(names[members[0]] for members in first)),
    ):
        (args.output_dir / file).write_text(content + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

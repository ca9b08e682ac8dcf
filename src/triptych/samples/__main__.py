"""The command line of the samples: `python -m triptych.samples -h`."""

import argparse

from triptych.errors import InputError
from triptych.samples import train_tokenizer, write
from triptych.samples.bulletins import COLUMNS, USUAL

PROGRAM = "python -m triptych.samples"
DATASETS = {
    "docstrings": "Real text: the docstrings of Python's standard library, some 3,000. The first sentence is "
    "the summary, the rest the text; a third column, package, says where they are from.",
    "bulletins": "Made text: short news reports with their headlines, which a small model learns in minutes; "
    "a third column, topic, is one of nine.",
}
WRITES = "Writes train.jsonl, validation.jsonl, test.jsonl with the columns text and summary; no text twice."
HELP_COLUMNS = (
    "columns to write (default: text summary topic); also: tokens, the words; ner_tags, theirs, of places "
    "(LOC), companies (ORG), persons (PER), days and months (DATE) and MONEY; entities, the same as spans"
)
TOKENIZER = (
    "Trains a tokenizer (byte-level BPE) for a model from scratch; AutoTokenizer loads it from OUT_DIR."
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Makes a small dataset, or a tokenizer for a model from scratch; needs no network.",
        epilog=f"All options of one of them: {PROGRAM} NAME -h",
    )
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    out_dir = argparse.ArgumentParser(add_help=False)
    out_dir.add_argument("out_dir", metavar="OUT_DIR", help="folder to write to; made if it is missing")
    for name, about in DATASETS.items():
        dataset = names.add_parser(name, help=about, description=f"{about} {WRITES}", parents=[out_dir])
        help_rows = "rows of all three files together (default: all docstrings, or 16,000 bulletins)"
        dataset.add_argument("--rows", type=int, metavar="N", help=help_rows)
        help_seed = "of the shuffling, and of what is made (default: %(default)s)"
        dataset.add_argument("--seed", type=int, default=0, metavar="S", help=help_seed)
        if name == "bulletins":
            dataset.add_argument(
                "--columns", nargs="+", choices=COLUMNS, default=USUAL, metavar="C", help=HELP_COLUMNS
            )
    tokenizer = names.add_parser("tokenizer", help=TOKENIZER, description=TOKENIZER, parents=[out_dir])
    help_files = "what to learn from: CSV, TSV, JSON, JSONL, Parquet or text, each also .gz; lists, globs"
    tokenizer.add_argument("--files", nargs="+", required=True, metavar="F", help=help_files)
    help_columns = "columns to learn from (default: text summary; a .txt file has only text)"
    tokenizer.add_argument(
        "--columns", nargs="+", default=["text", "summary"], metavar="C", help=help_columns
    )
    help_size = "entries at most, 259 or more (default: %(default)s)"
    tokenizer.add_argument("--vocab_size", type=int, default=4000, help=help_size)
    args = parser.parse_args()
    try:
        if args.name == "tokenizer":
            size = train_tokenizer(args.files, args.columns, args.out_dir, args.vocab_size)
            print(f"{args.out_dir}: a tokenizer with {size:,} entries")
        else:
            columns = getattr(args, "columns", USUAL)
            for split, count in write(args.name, args.out_dir, args.rows, args.seed, columns).items():
                print(f"{args.out_dir}/{split}.jsonl: {count:,} rows")
    except InputError as error:
        parser.exit(2, "".join(f"{PROGRAM}: {problem}\n" for problem in error.problems))


if __name__ == "__main__":
    main()

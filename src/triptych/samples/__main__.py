"""The command line of the samples: `python -m triptych.samples -h`."""

import argparse

from triptych.errors import InputError
from triptych.samples import PICTURES, train_tokenizer, write
from triptych.samples.bulletins import COLUMNS, USUAL
from triptych.samples.messages import CATALOGS
from triptych.samples.senses import DICTIONARY, KINDS

PROGRAM = "python -m triptych.samples"
DATASETS = {
    "docstrings": "Real text: the docstrings of Python's standard library, some 3,000. The first sentence is "
    "the column summary, the rest text; a third, package, says where they are from.",
    "sources": "Real text: short functions of Python's standard library, some 8,000, as words in the column "
    "tokens; ner_tags are theirs, of names of functions, classes, modules and parameters, found by parsing; "
    "package says where they are from.",
    "library": "Real text and code: the source files of Python's standard library, some 600 of 8 million "
    "characters, each whole in the column text; package says where they are from.",
    "messages": "Real pairs of languages: the translated messages of the programs on this machine, some "
    '40,000 on Debian. The column translation holds {"en": ..., "de": ...}; package says whose they are.',
    "senses": "Real questions with four choices: which sense of a word a sentence uses, some 8,000 from "
    "WordNet (Debian's package wordnet-base). The sentence is the column context; question, choices and "
    "label, the letter of the right one, are what they are called; word is the word.",
    "digits": "Real pictures: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels, as PNG in a folder "
    "for each digit.",
    "bulletins": "Made text: short news reports in the column text, which a small model learns in minutes, "
    "with their headlines in summary; a third, topic, is one of nine.",
}
WRITES_PICTURES = "Writes the folders train, validation and test."
WRITES = "Writes train.jsonl, validation.jsonl and test.jsonl; no text twice."
HELP_COLUMNS = (
    "columns to write (default: text summary topic); also: tokens, the words; ner_tags, theirs, of places "
    "(LOC), companies (ORG), persons (PER), days and months (DATE) and MONEY; entities, the same as spans; "
    'translation, {"en": a sentence, "xx": the same in a made language}; question, one about the text, and '
    "answers, which a third lack; choices, three to five sentences of different reports, and choice, the "
    "letter of the one that the summary is of"
)
TOKENIZER = (
    "Trains a tokenizer (byte-level BPE) for a model from scratch; AutoTokenizer loads it from OUT_DIR."
)


def two_codes(languages: str) -> tuple[str, str]:
    """The two codes of "en,de"."""
    codes = [code.strip() for code in languages.split(",") if code.strip()]
    if len(codes) != 2:
        raise argparse.ArgumentTypeError(f"two codes with a comma between them are needed, not {languages!r}")
    return codes[0], codes[1]


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
        writes = WRITES_PICTURES if name == PICTURES else WRITES
        dataset = names.add_parser(name, help=about, description=f"{about} {writes}", parents=[out_dir])
        help_rows = "rows of all three together (default: all that there are, or 16,000 bulletins)"
        dataset.add_argument("--rows", type=int, metavar="N", help=help_rows)
        help_seed = "of the shuffling, and of what is made (default: %(default)s)"
        dataset.add_argument("--seed", type=int, default=0, metavar="S", help=help_seed)
        if name == "bulletins":
            dataset.add_argument(
                "--columns", nargs="+", choices=COLUMNS, default=USUAL, metavar="C", help=HELP_COLUMNS
            )
        if name == "messages":
            help_languages = "codes of two, as folders of catalogs are called, or en (default: en,de)"
            dataset.add_argument(
                "--languages", type=two_codes, default="en,de", metavar="A,B", help=help_languages
            )
            help_catalogs = "folder of <language>/LC_MESSAGES/*.mo (default: %(default)s)"
            dataset.add_argument("--catalogs", default=CATALOGS, metavar="FOLDER", help=help_catalogs)
        if name == "senses":
            help_definitions = (
                "whose the wrong definitions are: the same word's, or, which is easier and gives "
            )
            help_definitions += "some 18,000 rows, other words' (default: %(default)s)"
            dataset.add_argument("--definitions", choices=KINDS, default="same", help=help_definitions)
            help_dictionary = "folder of WordNet's files, data.noun and so on (default: %(default)s)"
            dataset.add_argument("--dictionary", default=DICTIONARY, metavar="FOLDER", help=help_dictionary)
    tokenizer = names.add_parser("tokenizer", help=TOKENIZER, description=TOKENIZER, parents=[out_dir])
    help_files = "what to learn from: CSV, TSV, JSON, JSONL, Parquet or text, each also .gz; lists, globs"
    tokenizer.add_argument("--files", nargs="+", required=True, metavar="F", help=help_files)
    help_columns = "columns to learn from (default: text summary; a .txt file has only text)"
    tokenizer.add_argument(
        "--columns", nargs="+", default=["text", "summary"], metavar="C", help=help_columns
    )
    help_size = "entries at most, 259 or more (default: %(default)s)"
    tokenizer.add_argument("--vocab_size", type=int, default=4000, help=help_size)
    help_mask = "with a mask token, <mask>, for texts with holes"
    tokenizer.add_argument("--mask_token", action="store_true", help=help_mask)
    help_extra = "with so many sentinels, <extra_id_0> and so on, for texts with holes (default: %(default)s)"
    tokenizer.add_argument("--extra_ids", type=int, default=0, metavar="N", help=help_extra)
    args = parser.parse_args()
    try:
        if args.name == "tokenizer":
            further = args.mask_token, args.extra_ids
            size = train_tokenizer(args.files, args.columns, args.out_dir, args.vocab_size, *further)
            print(f"{args.out_dir}: a tokenizer with {size:,} entries")
        else:
            for split, count in write(**vars(args)).items():
                end, unit = ("", "pictures") if args.name == PICTURES else (".jsonl", "rows")
                print(f"{args.out_dir}/{split}{end}: {count:,} {unit}")
    except InputError as error:
        parser.exit(2, "".join(f"{PROGRAM}: {problem}\n" for problem in error.problems))


if __name__ == "__main__":
    main()

"""The command line of the migration: `python -m triptych.migrate -h`."""

import argparse

from triptych.errors import InputError, RunError
from triptych.migrate import migrate
from triptych.models.tensor_files import MODEL

PROGRAM = "python -m triptych.migrate"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Makes of a folder that transformers 4 wrote (pytorch_model.bin, tf_model.h5, "
        f"flax_model.msgpack, {MODEL} of TensorFlow or Flax; each also in parts) one that is read today: "
        f"{MODEL} with PyTorch's names, configuration, tokenizer. Runs nothing of what it reads.",
    )
    parser.add_argument("old", metavar="OLD", help="folder of the old checkpoint; it stays as it is")
    parser.add_argument("new", metavar="NEW", help="folder to write to; nothing, or an empty one")
    args = parser.parse_args()
    try:
        done = migrate(args.old, args.new)
    except InputError as error:
        parser.exit(2, "".join(f"{PROGRAM}: {problem}\n" for problem in error.problems))
    except RunError as error:
        parser.exit(1, f"{PROGRAM}: {error}\n")
    print(f"{args.new}/{MODEL}: {done.tensors:,} tensors of {done.source}, {done.size:,} bytes")
    print(f"copied: {', '.join(done.copied)}")
    if done.left:
        print(f"left where they are: {', '.join(done.left)}")
    for note in done.notes:
        print(f"Note: {note}")


if __name__ == "__main__":
    main()

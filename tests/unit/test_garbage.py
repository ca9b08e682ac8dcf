"""Files that are not what they should be end in a message: no traceback, no hang, and nothing is removed."""

import gzip
import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from triptych import arguments, command_line
from triptych.data import readers
from triptych.errors import InputError
from triptych.migrate import migrate
from triptych.output import checkpoints, ownership, results
from triptych.run.state import RunState

OLD = Path(__file__).resolve().parents[1] / "fixtures/old"
DEEP = b"[" * 100_000
GARBAGE = {
    "nothing": b"",
    "half": b"{",
    "array": b"[]",
    "null": b"null",
    "number": b"1",
    "text": b'"x"',
    "zeros": bytes(100),
    "not UTF-8": b'{"files": "\xff\xfe"}',
    "deep": DEEP,
    "deep object": b'{"a":' * 50_000,
    "huge number": b"1" * 10_000,
    "not a number": b'{"files": {"model": {"size": NaN, "sha256": Infinity}}}',
}


def seed_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def mutations(content, count, name):
    """A file with a few bytes flipped, removed, doubled or replaced by what has a meaning somewhere."""
    chance = random.Random(seed_of(name))
    tokens = [
        b'"',
        b"{",
        b"}",
        b"[",
        b",",
        b"\n",
        b"\r",
        b"\0",
        b"null",
        b"-1",
        b"1e999",
        b"\xff",
        b"\xed\xa0\x80",
    ]
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(changed) + 1)
            end = place + chance.choice((0, 1, 3, 40))
            changed[place:end] = chance.choice(
                (b"", chance.choice(tokens), bytes(changed[place:end]) * 3, chance.randbytes(3))
            )
        yield bytes(changed)


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path):
    """Two checkpoints of a run, and a file of somebody else beside them."""
    (tmp_path / "secret.txt").write_text("not of this run")
    state = RunState(
        step=2, log_history=[{"loss": 1.0, "step": 2}], losses=[1.0], settings={"total_steps": 4}
    )
    for step in (2, 4):
        (tmp_path / "out").mkdir(exist_ok=True)
        with checkpoints.writing(tmp_path / "out", step) as folder:
            state.save(folder)
            (folder / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "out"


def entry(**values):
    return {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()} | values


MANIFESTS = [
    {},
    {"files": None},
    {"files": []},
    {"files": {}},
    {"files": {"": entry()}},
    {"files": {"model.safetensors": None}},
    {"files": {"model.safetensors": entry(size="7")}},
    {"files": {"model.safetensors": entry(size={})}},
    {"files": {"model.safetensors": entry(size=True)}},
    {"files": {"model.safetensors": entry(sha256=None)}},
    {"files": {"a\0b": entry()}},
    {"files": {"a" * 5000: entry()}},
    {"files": {"\ud800": entry()}},
    {"files": {"../secret.txt": entry(size=15)}},
    {"files": {"/etc/passwd": entry()}},
    {"files": {"link": entry(size=15, sha256=hashlib.sha256(b"not of this run").hexdigest())}},
]


def test_garbage_for_a_manifest_is_no_checkpoint_and_removes_nothing(run):
    """Handmade and random: the one before is taken, and nothing outside the folder is looked at."""
    newest = run / "checkpoint-4"
    (newest / "link").symlink_to(run.parent / "secret.txt")
    whole = (newest / checkpoints.MANIFEST).read_bytes()
    handmade = [*GARBAGE.values(), *(json.dumps(manifest).encode() for manifest in MANIFESTS)]
    for content in [*handmade, *mutations(whole, 300, "manifest")]:
        (newest / checkpoints.MANIFEST).write_bytes(content)
        before = files_below(run.parent)
        problems = checkpoints.verify(newest)
        if content in handmade:
            assert problems, content[:80]
        elif not problems:  # what was changed is not what counts: a space, for instance
            named = json.loads(content)["files"].items()
            assert named <= json.loads(whole)["files"].items() or len(named) < 2, content
        found, skipped = checkpoints.newest(run)
        assert (found, len(skipped)) == ((run / "checkpoint-2", 1) if problems else (newest, 0))
        assert all(isinstance(sentence, str) and "\n" not in sentence for sentence in skipped)
        assert ownership.problems(str(run), True, False) == []
        checkpoints.tidy(run)
        checkpoints.rotate(run, 2, None)
        assert files_below(run.parent) == before


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": "2"},
        {"step": True},
        {"step": -1},
        {"step": 2.5},
        {"best_metric": "good"},
        {"best_step": [2]},
        {"evaluations_without_gain": None},
        {"log_history": {}},
        {"log_history": [1]},
        {"log_history": [{"loss": 1.0}]},
        {"losses": ["a"]},
        {"loss_sum": "a"},
        {"settings": []},
        {"settings": {"total_steps": "4"}},
        {"another": 1},
    ],
    ids=str,
)
def test_state_of_the_wrong_kind_is_refused_in_one_line(change, run):
    path = run / "checkpoint-4" / checkpoints.STATE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    checkpoints.seal(run / "checkpoint-4")
    assert checkpoints.verify(run / "checkpoint-4") == [], "only the contents are wrong"
    with pytest.raises(InputError, match=r"training_state.json: cannot be read as the state of a run"):
        RunState.load(run / "checkpoint-4")


def test_garbage_for_a_state_is_refused(run):
    path = run / "checkpoint-4" / checkpoints.STATE
    whole = path.read_bytes()
    refused = 0
    for content in [*GARBAGE.values(), *mutations(whole, 300, "state")]:
        path.write_bytes(content)
        try:
            RunState.load(path.parent)
        except InputError:
            refused += 1
    assert refused > 200


FILES = {
    "csv": b'text,summary\n"a, ""b""",c\nd,"e\nf"\n' * 3,
    "tsv": b"text\tsummary\na\tb\nc\td\n" * 3,
    "jsonl": b'{"text": "a \\u00e9", "summary": "b"}\n{"text": "c", "more": [1, {"x": 2.5}, null]}\n' * 3,
    "json": b'{"version": 1, "data": [{"text": "a", "summary": "b"}, {"text": "\\ud83d\\ude00", "n": -1e5}]}',
    "txt": "Grüße\nein Satz\n".encode() * 3,
}


def read_all(path):
    """The rows and problems of a file, which has to be read to its end without an exception."""
    problems = []
    rows = list(readers.read_rows(str(path), problems))
    _, found = readers.peek(str(path))
    assert all(isinstance(problem, str) and str(path) in problem for problem in problems + found)
    assert len(problems) <= 2 * readers.MOST_PROBLEMS
    return rows, problems + found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("extension", FILES)
def test_garbage_for_rows_is_a_list_of_problems(extension, packed, tmp_path):
    path = tmp_path / f"rows.{extension}{'.gz' if packed else ''}"
    troubles = 0
    for number, content in enumerate([*GARBAGE.values(), *mutations(FILES[extension], 300, extension)]):
        content = gzip.compress(content, mtime=0) if packed else content
        if packed and number % 2:
            content = next(mutations(content, 1, f"{extension}{number}"))
        path.write_bytes(content)
        troubles += bool(read_all(path)[1])
        assert path.read_bytes() == content
    assert troubles > 50 or extension == "txt"


@pytest.mark.timeout(60)
def test_garbage_for_parquet_is_a_problem(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", "b"] * 20, "summary": ["c", None] * 20}), path)
    whole = path.read_bytes()
    for content in [*GARBAGE.values(), *mutations(whole, 200, "parquet"), whole[:-20], whole[20:]]:
        path.write_bytes(content)
        read_all(path)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_for_a_file_of_arguments_is_refused(name, tmp_path, capsys):
    for extension in ("json", "yaml"):
        path = tmp_path / f"arguments.{extension}"
        path.write_bytes(GARBAGE[name])
        with pytest.raises(SystemExit) as ended:
            command_line.parse(arguments.ModelArguments, arguments.TrainingArguments, argv=[str(path)])
        assert ended.value.code == 2
        assert "problem" in capsys.readouterr().err


def test_garbage_for_results_is_written_anew(tmp_path):
    for content in [*GARBAGE.values(), *mutations(b'{"eval_loss": 1.0}', 100, "results")]:
        (tmp_path / "all_results.json").write_bytes(content)
        results.save_metrics(tmp_path, "eval", {"eval_loss": 2.0})
        assert json.loads((tmp_path / "all_results.json").read_bytes())["eval_loss"] == 2.0


@pytest.mark.parametrize("value", ["false", "False", "FALSE", "0", "no"])
def test_code_of_others_is_not_trusted_by_a_word_for_no(value):
    """`bool("False")` is true, and would run the code of a stranger."""
    words = ["--model_name_or_path", "x", "--trust_remote_code", value]
    assert command_line.parse(arguments.ModelArguments, argv=words)[0].trust_remote_code is False


def test_code_of_others_is_trusted_only_by_a_plain_yes(capsys):
    def parsed(*words):
        words = ["--model_name_or_path", "x", *words]
        return command_line.parse(arguments.ModelArguments, argv=words)[0].trust_remote_code

    assert [parsed(), parsed("--trust_remote_code"), parsed("--trust_remote_code", "true")] == [
        False,
        True,
        True,
    ]
    with pytest.raises(SystemExit):
        parsed("--trust_remote_code", "falsch")
    assert "--trust_remote_code falsch" in capsys.readouterr().err


WEIGHTS = {
    "pytorch_model.bin": "bin-bert-legacy",
    "pytorch_model-00001-of-00003.bin": "bin-t5-parts",
    "tf_model.h5": "tf-t5",
    "flax_model.msgpack": "flax-t5",
    "model.safetensors": "tf-t5-safe",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", WEIGHTS)
def test_garbage_for_old_weights_is_refused_or_becomes_a_model(name, tmp_path):
    shutil.copytree(OLD / WEIGHTS[name], tmp_path / "old")
    path, refused = tmp_path / "old" / name, 0
    whole = path.read_bytes()
    head = whole[: len(whole) // 4]  # where the names and sizes are, of which there are few
    changed = [content + whole[len(head) :] for content in mutations(head, 150, name)]
    for content in [*GARBAGE.values(), *mutations(whole, 150, name), *changed]:
        path.write_bytes(content)
        before = files_below(tmp_path)
        try:
            migrate(tmp_path / "old", tmp_path / "new")
            problems = []
        except InputError as error:
            problems = error.problems
        assert all(problem.isprintable() and str(tmp_path) in problem for problem in problems)
        refused += bool(problems)
        if problems:
            assert files_below(tmp_path) == before
        else:
            assert load_file(tmp_path / "new/model.safetensors")
            shutil.rmtree(tmp_path / "new")
    assert refused > 100

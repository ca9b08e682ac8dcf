"""Small models and datasets under the names that commands use.

A script takes a folder before it asks the hub, so that a command runs as it stands in a folder that holds
these.
"""

import csv
import json
import re
import shutil
from pathlib import Path

TRAIN, OTHER = 24, 6  # rows
MODELS = {
    "google-t5/t5-small": "t5",
    "google-bert/bert-base-uncased": "topics-bare",
    "somebody/bert-base-uncased-mnli": "topics",
    "google-bert/bert-base-multilingual-cased": "topics-bare",
    "google-bert/bert-base-cased": "topics-bare",
    "somebody/bert-base-cased-ner": "entities",
    "somebody/bert-base-uncased-swag": "choices",
    "google-bert/bert-large-uncased-whole-word-masking": "questions-bare",
    "facebook/mbart-large-en-ro": "mbart-2020",
    "FacebookAI/roberta-base": "masked",
    "answerdotai/ModernBERT-base": "masked",
    "openai-community/gpt2": "gpt2",
    "HuggingFaceTB/SmolLM2-135M": "llama",
    "Helsinki-NLP/opus-mt-en-ro": "marian",
    "Helsinki-NLP/opus-mt-en-de": "marian",
    "google/t5-v1_1-small": "t5-1.1",
    "facebook/bart-base": "bart-with-holes",
    "google/vit-base-patch16-224-in21k": "digits-bare",
}
# Of CoNLL-2003, in part, in the order of their numbers there
CLASSES = {
    "pos_tags": [".", "CD", "NN", "NNP"],
    "chunk_tags": ["O", "B-NP", "I-NP"],
    "ner_tags": ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"],
}


def build(folder: Path, tiny: Path, samples: Path) -> None:
    """Fills a folder.

    Args:
        tiny: checkpoints of random weights.
        samples: bulletins and their tokenizer.
    """
    for name, checkpoint in MODELS.items():
        shutil.copytree(tiny / checkpoint, folder / name)
    shutil.copytree(samples / "tokenizer", folder / "tok")
    rows = [json.loads(line) for line in (samples / "train.jsonl").read_text().splitlines()[: TRAIN + OTHER]]
    for split in ("train", "validation"):
        for digit in "01":
            there = folder / "photos" / split / digit
            there.mkdir(parents=True)
            for path in sorted((samples / "digits" / split / digit).iterdir())[:OTHER]:
                shutil.copy(path, there)
    texts, summaries = [row["text"] for row in rows], [row["summary"] for row in rows]
    stars = [len(text) % 3 for text in texts]
    table(folder / "train.csv", article=texts, abstract=summaries, review=texts, stars=stars)
    shutil.copy(folder / "train.csv", folder / "valid.csv")
    table(folder / "named.csv", text=texts, summary=summaries)
    table(folder / "two.csv", story=texts, gist=summaries)
    table(folder / "labelled.csv", remark=summaries, label=stars)
    table(
        folder / "pairs.csv", id=range(len(rows)), premise=summaries, hypothesis=summaries[::-1], label=stars
    )

    table(folder / "unlabelled.csv", premise=summaries, hypothesis=summaries[::-1])

    article = {"article": texts, "highlights": summaries, "id": [str(n) for n in range(len(rows))]}
    dataset(folder / "cnn_dailymail", {"3.0.0": ("train", "validation", "test")}, article)
    pair = {"sentence1": summaries, "sentence2": summaries[::-1], "label": [n % 2 for n in stars]}
    dataset(folder / "nyu-mll/glue", {"mrpc": ("train", "validation", "test")}, pair)
    pair = {"premise": summaries, "hypothesis": summaries[::-1], "label": stars}
    dataset(folder / "facebook/xnli", dict.fromkeys(("de", "en"), ("train", "validation", "test")), pair)
    dataset(folder / "imdb", {"plain_text": ("train", "test")}, {"text": texts, "label": stars})
    reviews = {
        "id": stars,
        "title": summaries,
        "body": texts,
        "author": [None, "Ann", ""] * 10,
        "stars": stars,
    }
    dataset(folder / "reviews", {"default": ("most", "rest", "extra")}, reviews)
    tagged = tagged_words(rows)
    own = [{"words": words, "ner": tags["ner_tags"]} for words, tags in tagged]
    json_lines(folder / "sample.json", own)
    sentences = ["".join(map("{}\t{}\n".format, words, tags["ner_tags"])) for words, tags in tagged]
    for name in ("train.conll", "valid.conll"):
        (folder / name).write_text("\n".join(sentences))
    json_lines(folder / "texts.jsonl", [{"text": text} for text in texts])
    dataset(folder / "wikitext", {"wikitext-2-raw-v1": ("train", "validation", "test")}, {"text": texts})
    json_lines(folder / "prompts.jsonl", [{"prompt": text[:40]} for text in texts])
    (folder / "wiki.train.txt").write_text("\n\n".join(texts))
    (folder / "src").mkdir()
    for number, text in enumerate(texts):
        (folder / f"src/{number:02}.py").write_text(f'"""{text}"""\n')
    (folder / "docs").mkdir()
    (folder / "docs/all.md").write_text("\n\n".join(texts))
    (folder / "docs/more.md").write_text("\n\n".join(summaries))
    for name in ("train", "validation", "test"):
        json_lines(folder / f"data/{name}.jsonl", rows)
    questions(folder, rows)
    numbers = {
        column: [[classes.index(tag) for tag in tags[column]] for _, tags in tagged]
        for column, classes in CLASSES.items()
    }
    numbered = {"id": list(map(str, range(len(rows)))), "tokens": [words for words, _ in tagged], **numbers}
    splits = {"conll2003": ("train", "validation", "test")}
    dataset(folder / "conll2003", splits, numbered, CLASSES)
    letters = [row["choice"] for row in rows]
    fields = [[*row["choices"], "", ""][:5] for row in rows]
    columns = {f"choice{number}": [row[number - 1] for row in fields] for number in range(1, 6)}
    for name in ("questions.csv", "more_questions.csv"):
        table(folder / name, context=texts, question=summaries, **columns, label=letters)
    table(folder / "unanswered.csv", context=texts, question=summaries, **columns)
    ending = {f"ending{n}": [row["choices"][n % 3] for row in rows] for n in range(4)}
    swag = {"video-id": letters, "startphrase": summaries, "sent1": summaries, "sent2": letters, **ending}
    splits = {"regular": ("train", "validation", "test")}
    dataset(
        folder / "allenai/swag", splits, {**swag, "label": ["ABC".find(letter) % 4 for letter in letters]}
    )
    pairs = [{"en": row["translation"]["en"], "ro": row["translation"]["xx"]} for row in rows]
    dataset(folder / "wmt16", {"ro-en": ("train", "validation", "test")}, {"translation": pairs})
    json_lines(folder / "en-ro.json", [{"translation": pair} for pair in pairs])
    for name in ("train", "valid"):
        json_lines(
            folder / f"{name}.jsonl",
            [{"translation": {"en": each["en"], "de": each["ro"]}} for each in pairs],
        )
        for ending, language in (("en", "en"), ("de", "ro")):
            (folder / f"{name}.{ending}").write_text("".join(each[language] + "\n" for each in pairs))


def questions(folder: Path, rows: list[dict]) -> None:
    """The rows' questions as SQuAD has them, in its own files and on the hub; and without answers."""
    asked = [
        {
            "id": f"5{number}",
            "title": "It",
            "context": row["text"],
            "question": row["question"],
            "answers": found,
        }
        for number, row in enumerate(rows)
        for found in [row["answers"]]
    ]
    paragraphs = []
    for row in asked:
        pairs = zip(*row["answers"].values(), strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        qa = {"id": row["id"], "question": row["question"], "answers": answers, "is_impossible": not answers}
        paragraphs.append({"context": row["context"], "qas": [qa]})
    for name in ("train", "dev"):
        articles = [{"title": "It", "paragraphs": paragraphs}]
        (folder / f"{name}-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": articles}))
    table(
        folder / "questions.csv", **{name: [row[name] for row in asked] for name in ("question", "context")}
    )
    both = ("train", "validation")
    dataset(folder / "rajpurkar/squad_v2", {"squad_v2": both}, by_column(asked))
    answered = [row if row["answers"]["text"] else {**row, "answers": first_word(row)} for row in asked]
    dataset(folder / "rajpurkar/squad", {"plain_text": both}, by_column(answered))


def by_column(rows: list[dict]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def first_word(row: dict) -> dict[str, list]:
    return {"text": [row["context"].split()[0]], "answer_start": [0]}


def json_lines(path: Path, rows: list[dict]) -> None:
    """Writes a file of JSON Lines."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tagged_words(rows: list[dict]) -> list[tuple[list[str], dict[str, list[str]]]]:
    """The words of each bulletin, and their tags of the columns of CLASSES."""
    found = []
    for row in rows:
        places = [match.span() for match in re.finditer(r"\w+|\S", row["text"])]
        tags = {column: [] for column in CLASSES}
        for start, end in places:
            word = row["text"][start:end]
            part = "CD" if word.isdigit() else "NNP" if word[0].isupper() else "NN" if word.isalpha() else "."
            goes_on = part != "." and tags["chunk_tags"] and tags["chunk_tags"][-1] != "O"
            tags["pos_tags"].append(part)
            tags["chunk_tags"].append("O" if part == "." else "I-NP" if goes_on else "B-NP")
            entity = next((one for one in row["entities"] if one["start"] <= start < one["end"]), None)
            kind = "" if entity is None else f"-{entity['label']}".replace("-DATE", "-MISC")
            kind = kind.replace("-MONEY", "-MISC")
            tags["ner_tags"].append("O" if entity is None else "BI"[start > entity["start"]] + kind)
        found.append(([row["text"][start:end] for start, end in places], tags))
    return found


def table(path: Path, **columns) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])


def dataset(
    folder: Path,
    configurations: dict[str, tuple[str, ...]],
    columns: dict[str, list],
    classes: dict[str, list[str]] | None = None,
) -> None:
    """Writes a dataset as the hub keeps one: files, and a README that says what they are. The first split of
    each configuration has the first rows, the others share the last.

    Args:
        classes: what the numbers stand for in columns of lists of them; the others then hold text.
    """
    folder.mkdir(parents=True)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = ["---", "configs:"]
    for name, splits in configurations.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split in splits:
            chosen = rows[:TRAIN] if split == splits[0] else rows[TRAIN:]
            path = folder / f"{name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
            lines += [f"  - split: {split}", f"    path: {path.name}"]
    if classes is not None:
        lines += ["dataset_info:", *(f"- config_name: {name}" for name in configurations), "  features:"]
        for column, values in columns.items():
            kind = "sequence: string" if isinstance(values[0], list) else "dtype: string"
            lines += [f"  - name: {column}", *([f"    {kind}"] if column not in classes else ())]
            if column in classes:
                lines += ["    sequence:", "      class_label:", "        names:"]
                lines += [f"          '{n}': {name!r}" for n, name in enumerate(classes[column])]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))

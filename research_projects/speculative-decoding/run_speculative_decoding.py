"""Generates with a model's own words in fewer of its calls: a cheap model drafts, the model checks.

    python run_speculative_decoding.py --output_dir out

Trains a small decoder, the target, on made news reports, and counts the draft: a model of three words. Then
continues unseen reports with the target alone and with both (Leviathan et al. 2023, algorithm 1): the draft
writes `--drafted` words, one call of the target gives its distribution after each of them, and `verify` keeps as
many as that allows, and one word more. Greedy, that is the target's own text; sampled, it has the target's
distribution.

Writes results.json: losses, calls, words that stayed, seconds; with --draws the test of the distribution.
"""

import argparse
import gzip
import json
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

CONTEXT, PROMPT = 96, 16  # words that the target sees; that are given


class Target(nn.Module):
    """A decoder: int64[batch, length] to logits, [batch, length, vocabulary]. Counts its calls."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(CONTEXT, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        for table in (self.words, self.places):  # the first gives the logits as well
            nn.init.normal_(table.weight, std=0.02)
        self.calls = 0

    def forward(self, given: Tensor) -> Tensor:
        self.calls += 1
        length = given.shape[1]
        states = self.words(given) + self.places.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=states.dtype)
        return self.layers(states, mask, is_causal=True) @ self.words.weight.T

    def distributions(self, text: Tensor, last: int) -> Tensor:
        """Of the next word after each of the last `last` places, float64[last, vocabulary]."""
        return self(text[None])[0, -last:].double().softmax(-1)


class Draft:
    """Counts of words after two, after one, and at all, mixed: no training, and no cost to speak of."""

    def __init__(
        self, text: Tensor, vocabulary: int, shares: tuple[float, float, float] = (0.7, 0.25, 0.05)
    ) -> None:
        self.counts: dict[tuple[int, ...], Counter] = defaultdict(Counter)
        words = text.tolist()
        for length in (1, 2):
            for place in range(length, len(words)):
                self.counts[tuple(words[place - length : place])][words[place]] += 1
        alone = (torch.bincount(text, minlength=vocabulary) + 1).double()
        self.alone, self.shares = alone / alone.sum(), shares

    def distributions(self, text: Tensor, last: int) -> Tensor:
        """Of the next word after each of the last `last` places, float64[last, vocabulary]."""
        return torch.stack([self.after(text[: len(text) - back].tolist()) for back in reversed(range(last))])

    def after(self, words: list[int]) -> Tensor:
        result, rest = torch.zeros_like(self.alone), 1.0
        for length, share in zip((2, 1), self.shares, strict=False):
            if found := self.counts.get(tuple(words[-length:])):
                total = found.total()
                for word, count in found.items():
                    result[word] += share * count / total
                rest -= share
        return result + rest * self.alone


def read(split: str) -> list[list[str]]:
    """The words of each report."""
    path = Path(__file__).with_name("data") / f"{split}.jsonl.gz"
    texts = [json.loads(line)["text"] for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    return [re.findall(r"\w+|[^\w\s]", text) for text in texts]


def as_ids(reports: list[list[str]], vocabulary: dict[str, int]) -> Tensor:
    """One long text; a report begins with word 0, and unknown words are 1."""
    return torch.tensor(
        [one for report in reports for one in [0, *(vocabulary.get(word, 1) for word in report)]]
    )


def windows(text: Tensor, number: int, length: int, generator: torch.Generator) -> Tensor:
    """Random windows of a text, int64[number, length]."""
    starts = torch.randint(len(text) - length, (number, 1), generator=generator)
    return text[starts + torch.arange(length)]


def train(model: Target, text: Tensor, steps: int, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = windows(text, 16, CONTEXT + 1, generator)
        logits = model(batch[:, :-1])
        optimizer.zero_grad()
        functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def loss_of(model: Target | Draft, batch: Tensor) -> float:
    """The mean of a word's negative log-likelihood."""
    losses = []
    for row in batch:
        found = model.distributions(row[:-1], len(row) - 1)
        losses.append(-found.gather(1, row[1:, None]).log().mean())
    return float(torch.stack(losses).mean())


def cooled(distributions: Tensor, is_greedy: bool) -> Tensor:
    """With all on the likeliest word, if that is what is wanted."""
    return (
        functional.one_hot(distributions.argmax(-1), distributions.shape[-1]).double()
        if is_greedy
        else distributions
    )


def draw(distribution: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(distribution, 1, generator=generator))


def verify(drafted: list[int], of_draft: Tensor, of_target: Tensor, generator: torch.Generator) -> list[int]:
    """The drafted words that stay, and one more: of the target's distribution, whatever the draft's.

    Args:
        of_draft: that which each word was drawn from, float64[drafted, vocabulary].
        of_target: the target's at the same places and after the last, float64[drafted + 1, vocabulary].
    """
    for place, word in enumerate(drafted):
        kept = of_target[place, word] / of_draft[place, word]
        if torch.rand((), generator=generator, dtype=torch.float64) >= kept:
            rest = (of_target[place] - of_draft[place]).clamp(min=0)
            return [*drafted[:place], draw(rest / rest.sum(), generator)]
    return [*drafted, draw(of_target[len(drafted)], generator)]


def alone(target: Target, prompt: Tensor, length: int, is_greedy: bool, generator: torch.Generator) -> Tensor:
    """The prompt and `length` words by the target."""
    text = prompt
    while len(text) < len(prompt) + length:
        (following,) = cooled(target.distributions(text, 1), is_greedy)
        text = torch.cat([text, torch.tensor([draw(following, generator)])])
    return text


def together(
    target: Target,
    draft: Draft,
    prompt: Tensor,
    length: int,
    is_greedy: bool,
    drafts: int,
    generator: torch.Generator,
) -> tuple[Tensor, int, int]:
    """The same by both, how many words were drafted, and how many of these stayed."""
    text, written, stayed = prompt, 0, 0
    while (missing := len(prompt) + length - len(text)) > 0:
        drafted, of_draft, longer = [], [], text
        for _ in range(min(drafts, missing - 1)):
            (following,) = cooled(draft.distributions(longer, 1), is_greedy)
            drafted.append(draw(following, generator))
            of_draft.append(following)
            longer = torch.cat([longer, torch.tensor(drafted[-1:])])
        of_target = cooled(target.distributions(longer, len(drafted) + 1), is_greedy)
        new = verify(drafted, torch.stack(of_draft) if drafted else of_target[:0], of_target, generator)
        written, stayed = written + len(drafted), stayed + len(new) - 1
        text = torch.cat([text, torch.tensor(new)])
    return text, written, stayed


def unlikeliness(pairs: Tensor, expected: Tensor) -> float:
    """The chance of pairs that are as far from their distribution, by chi-square; cells that fewer than five
    are expected in count as one.

    Args:
        pairs: int64[draws, 2]. expected: float64[vocabulary, vocabulary], which sums to 1.
    """
    seen = torch.zeros_like(expected).index_put_(
        tuple(pairs.T), torch.ones(len(pairs)).double(), accumulate=True
    )
    expected = expected * len(pairs)
    frequent = expected >= 5
    seen, expected = (torch.cat([one[frequent], one[~frequent].sum()[None]]) for one in (seen, expected))
    distance = ((seen - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(seen) - 1) / 2).double(), distance / 2))


def chances(
    target: Target, draft: Draft, prompt: Tensor, draws: int, generator: torch.Generator
) -> dict[str, float]:
    """Draws the next two words many times: the chance of what `verify` came to, if it is the target's, and of
    what the draft alone comes to, which shows that the test sees a difference."""
    vocabulary = len(draft.alone)
    both = torch.cat([prompt.expand(vocabulary, -1), torch.arange(vocabulary)[:, None]], 1)
    of_target = torch.cat([target(part)[:, -2:].softmax(-1) for part in both.split(100)])
    of_draft = torch.stack([draft.distributions(one, 2) for one in both])
    expected = of_target[0, 0][:, None] * of_target[:, 1]
    drawn: dict[str, list[list[int]]] = {"both": [], "draft": []}
    for _ in range(draws):
        one = draw(of_draft[0, 0], generator)
        other = draw(of_draft[one, 1], generator)
        drawn["draft"].append([one, other])
        # After the last drafted word nothing is looked at: any distribution will do.
        of_places = torch.stack([of_target[0, 0], of_target[one, 1], of_target[0, 0]])
        new = verify([one, other], torch.stack([of_draft[0, 0], of_draft[one, 1]]), of_places, generator)
        drawn["both"].append((new if len(new) > 1 else [*new, draw(of_target[new[0], 1], generator)])[:2])
    return {name: unlikeliness(torch.tensor(pairs), expected) for name, pairs in drawn.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=300, help="of training (%(default)s)")
    parser.add_argument("--rows", type=int, default=40, help="reports to continue (%(default)s)")
    parser.add_argument("--length", type=int, default=48, help="words to write to each (%(default)s)")
    parser.add_argument(
        "--drafted", type=int, default=4, help="words that the draft writes at once (%(default)s)"
    )
    parser.add_argument("--draws", type=int, default=0, help="test the distribution by as many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    problems = [
        f"--{name} is less than 1." for name in ("steps", "rows", "length", "drafted") if vars(args)[name] < 1
    ]
    if args.length > CONTEXT - PROMPT:
        problems.append(
            f"--length {args.length}: the target sees {CONTEXT} words, of which {PROMPT} are given."
        )
    if args.rows > len(read("validation")):
        problems.append(f"--rows {args.rows}: there are {len(read('validation'))}.")
    if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
        problems.append(f"--output_dir {args.output_dir} is there already, and is no empty folder.")
    if problems:
        parser.error("\n".join(["these do not work:", *problems]))
    return args


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    reports = read("train")
    frequent = [
        word for word, count in Counter(word for report in reports for word in report).items() if count > 4
    ]
    vocabulary = {word: number for number, word in enumerate(["<report>", "<unknown>", *frequent])}
    train_text, test_text = (as_ids(one, vocabulary) for one in (reports, read("validation")))
    held_out = windows(test_text, 40, CONTEXT + 1, torch.Generator().manual_seed(0))

    target, began = Target(len(vocabulary), 128, 2, 4), time.process_time()
    train(target, train_text, args.steps, generator)
    results: dict = {"words": len(train_text), "vocabulary": len(vocabulary)}
    results["cpu_seconds_of_training"] = round(time.process_time() - began, 1)
    # In float64 the same distribution does not depend on how many places are computed at once.
    target, draft = target.eval().double(), Draft(train_text, len(vocabulary))
    prompts = [as_ids([report], vocabulary)[:PROMPT] for report in read("validation")[: args.rows]]
    with torch.no_grad():
        results["loss_of_a_word"] = {"target": loss_of(target, held_out), "draft": loss_of(draft, held_out)}
        for name, is_greedy in (("greedy", True), ("sampled", False)):
            target.calls, began = 0, time.process_time()
            texts = [alone(target, one, args.length, is_greedy, generator) for one in prompts]
            calls_alone, middle, target.calls = target.calls, time.process_time(), 0
            found = [
                together(target, draft, one, args.length, is_greedy, args.drafted, generator)
                for one in prompts
            ]
            results[name] = {
                "calls_alone": calls_alone,
                "calls_together": target.calls,
                "words_a_call": calls_alone / target.calls,
                "stayed": sum(stayed for *_, stayed in found)
                / max(1, sum(written for _, written, _ in found)),
                "equal_texts": sum(
                    torch.equal(one, other) for one, (other, *_) in zip(texts, found, strict=True)
                ),
                "cpu_seconds": [round(middle - began, 1), round(time.process_time() - middle, 1)],
            }
        if args.draws:
            results["chances"] = chances(target, draft, prompts[0], args.draws, generator)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

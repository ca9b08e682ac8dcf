"""Functions on plain text that metrics need: words, sentences, the lead baseline."""

# ruff: noqa: RUF001 (the punctuation of other scripts is meant)

import re
from itertools import islice

# Han with its iteration marks, and kana: written without spaces, so that each character counts as a word.
CJK = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_WORD = re.compile(f"[{CJK}]|[^\\s{CJK}]+")

# A mark before white space may end a sentence; the stops of scripts that need no space always do. The
# look-behind and the possessive ++ keep the time linear in what a model repeats without end: "......".
_STOP = re.compile(
    r"(?<![.!?…])(?P<mark>[.!?…]++)[\"'”’»)\]]*+(?=\s)|(?:[。！？｡।॥؟۔։።။។]|．(?!\d))+[\"'”’»」』）】》)\]]*"
)
_NEXT = re.compile(r"\s*[\"'“‘„«(\[]*(?P<word>\w*\.?)(?P<rest>[,;:.!?…]?)")
_ABBREVIATION = re.compile(
    r"mrs?|ms|messrs|dr|prof|st|sen|rep|gov|gen|col|maj|lt|sgt|capt|cmdr|adm|rev|hon|pres|supt|jr|sr|ph\.d|"
    r"inc|ltd|co|corp|bros|dept|univ|assn|vs|e\.?g|i\.?e|cf|viz|resp|incl|approx|al|etc|ca|figs?|eqs?|vols?|pp|"
    r"eds?|ave|blvd|rd|mt|ft|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|"
    r"(?:[^\W\d_]\.)*[^\W\d_]",  # initials
    re.IGNORECASE,
)
# After an abbreviation only these words begin a sentence: "in the U.S. The …" against "the U.S. Army".
_STARTER = re.compile(
    r"the|an?|s?he|it|we|they|you|i|this|that|these|those|t?here|his|her|its|their|our|my|in|on|at|but|and|so|if|when|"
    r"while|after|before|as|for|however|then|now|what|who|why|how|some|many|most|both|yet|also|meanwhile|since|"
    r"although|by|from|with|to|no|not",
    re.IGNORECASE,
)


def lead_baseline(texts: list[str], words: int) -> list[str]:
    """The first `words` words of each text: the summary that any trained model has to beat.

    Words stand between white space, except that a Chinese or Japanese character is a word of its own.
    """
    leads = []
    for text in texts:
        end = max((match.end() for match in islice(_WORD.finditer(text), words)), default=0)
        leads.append(" ".join(text[:end].split()))
    return leads


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, found by rules, with no model and no download; a line break always ends one.

    English abbreviations, initials, decimals, quotes and ellipses do not end a sentence where they only look
    like it. A lower-case word begins one only if the whole text has no upper case.
    """
    cased = text != text.lower()
    sentences = []
    for line in text.splitlines():
        start = 0
        for stop in _STOP.finditer(line):
            if stop["mark"] is None or _ends_sentence(line, start, stop, cased):
                sentences.append(line[start : stop.end()])
                start = stop.end()
        sentences.append(line[start:])
    return [sentence.strip() for sentence in sentences if sentence.strip()]


def _ends_sentence(line: str, start: int, stop: re.Match[str], cased: bool) -> bool:
    following = _NEXT.match(line, stop.end())
    assert following is not None  # every part of the pattern may be empty
    word = following["word"]
    if (not word and following["rest"]) or (cased and word[:1].islower()):
        return False
    if stop["mark"] != ".":
        return True
    before = line[max(start, stop.start() - 20) : stop.start()]  # longer than any abbreviation
    if before.strip(" (").isdigit():
        return False  # "1. First …": a number alone is no sentence
    last = re.split(r"[\s\"'“‘„«(\[]", before)[-1]  # empty where a space precedes the stop
    if last.lower() == "no" and word[:1].isdigit():
        return False
    if last != "I" and _ABBREVIATION.fullmatch(last):
        return _STARTER.fullmatch(word) is not None
    return True

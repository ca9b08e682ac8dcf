"""Made text that a small model can learn: short news reports, each with the headline an editor would give it.

A report puts one event into a few sentences, in varied wording and order, among facts that do not matter
(another match, yesterday's weather, a rival's profit). The headline follows from the event alone. Names and
numbers combine freely, so whoever writes the headline of an unseen report has to take them from its text.

A story is a topic, a headline, lines that may open the report, one or more groups of lines that give one line
each to the event, and lines that may follow anywhere. In a line, {town} is a fact of the report, [rose|fell]
a choice, [2-30] a number in words up to twelve, [#2-30] one in figures; "a" becomes "an" where it has to.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from triptych.data import tagged_rows, words
from triptych.samples.second_language import translate


def _list(text: str) -> list[str]:
    return [" ".join(value.split()) for value in text.split(",")]


FIRST_NAMES = _list("""
    Ada, Amir, Anna, Boris, Carla, Chen, Daniel, Elif, Emil, Fiona, Greta, Hana, Ivan, Julia, Karim, Lena,
    Maria, Nils, Omar, Paula, Samir, Theo, Vera, Zoe
""")
LAST_NAMES = _list("""
    Abbott, Becker, Castillo, Demir, Eriksen, Ferreira, Garner, Hassan, Ivanov, Jensen, Kimura, Larsen,
    Moreau, Novak, Okafor, Patel, Quinn, Rossi, Silva, Tanaka, Varga, Walsh, Yilmaz, Zhang
""")
TOWN_STARTS = _list("Ash, Black, Cran, Dun, Elm, Fern, Holm, Mill, Oak, Raven, Stan, Win")
TOWN_ENDS = _list("bridge, bury, ford, haven, port")
COMPANY_STARTS = _list("Amber, Blue, Crest, Fox, Nova, Star")
COMPANY_ENDS = _list("gate, land, peak, tree, way")
TRADES = _list("""
    Airlines, Bakeries, Bank, Energy, Foods, Furniture, Hotels, Media, Motors, Paper, Robotics, Shipping,
    Software, Steel
""")
DAYS = _list("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _list("""
    January, February, March, April, May, June, July, August, September, October, November, December
""")
PERIODS = _list("first quarter, second quarter, third quarter, last quarter, past six months")
NUMBERS = _list("no, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve")
CAUSES = _list("""
    burst water main, chemical spill, fallen tree, gas leak, landslide, lorry fire, oil spill, overturned
    lorry
""")
PROJECTS = _list("""
    bus station, concert hall, fire station, footbridge, ice rink, library, market hall, nursery, swimming
    pool
""")
POSTS = _list("""
    conductor orchestra, curator gallery, dean college, director museum, editor newspaper, head hospital
""")
ARTS = _list("architecture, dance, drawing, essay, music, painting, photography, poetry")
WEATHER = [
    ("{} millimetres of rain", range(30, 100), range(2, 25)),
    ("{} centimetres of snow", range(10, 46), range(2, 9)),
    ("gusts of {} kilometres an hour", range(75, 141), range(20, 60)),
    ("a high of {} degrees", range(30, 42), range(15, 28)),
    ("a low of minus {} degrees", range(10, 26), range(2, 9)),
]
GROWING = dict(rises="rises", rose="rose", more="more", up="up", cut="create", fewer="more", dismiss="hire")
SHRINKING = dict(
    rises="falls", rose="fell", more="less", up="down", cut="cut", fewer="fewer", dismiss="dismiss"
)
APPROVED = dict(approves="approves", approved="approved", will="will", won_side="for", lost_side="against")
REJECTED = dict(approves="rejects", approved="rejected", will="will not", won_side="against", lost_side="for")
TOWNS = [start + end for start in TOWN_STARTS for end in TOWN_ENDS]
COMPANIES = [start + end for start in COMPANY_STARTS for end in COMPANY_ENDS]
NAMES = frozenset([*FIRST_NAMES, *LAST_NAMES, *TOWNS, *COMPANIES, *TRADES])
# Facts that are entities, by the label of their kind
ENTITIES = {
    "LOC": _list("town, home, away, winner, loser"),
    "ORG": _list("company"),
    "PER": _list("person"),
    "DATE": _list("day, month"),
    "MONEY": _list("profit, old_profit, price, cost, worth"),
}
MONEY = re.compile(r"\$\[.*?](?: million)?")  # in a line, where it is no fact
# Signs of private use, that mark the entities of a text while it is written
BEGINS = {label: chr(0xE000 + number) for number, label in enumerate(ENTITIES)}
END = chr(0xE000 + len(ENTITIES))
MARKED = re.compile(rf"([{''.join(BEGINS.values())}])(.*?){END}")
DRAWN = [
    ("town", TOWNS, 4),
    ("company", COMPANIES, 3),
    ("person", FIRST_NAMES, 3),
    ("surname", LAST_NAMES, 3),
    ("day", DAYS, 3),
    ("month", MONTHS, 2),
    ("period", PERIODS, 1),
    ("cause", CAUSES, 2),
    ("project", PROJECTS, 3),
    ("post", POSTS, 1),
    ("art", ARTS, 2),
]

BEFORE_A_MATCH = """
    A crowd of [#2000-20000] saw {home} play {away}[| in the rain| in bright sunshine].
    A week ago [{home}|{away}] had [beaten|lost to] {town3} [#2-4]-[#0-1].
    [{home}|{away}] had waited [3-9] games for a win before they met {town3} last month.
    Before the match {person3}, the {winner} coach, had asked the supporters for patience.
"""
AFTER_A_MATCH = """
    In another match {town4} won [#2-5]-[#0-1].
    {person2} [missed a penalty|hit the post] for {loser} before half-time.
    {person2} had scored [twice|three times] for {loser} a week ago.
    The reserves of {away} [won|lost] [#2-4]-[#0-1] a day earlier.
    {home} play at {town3} next {day2}.
    {town3} stay at the top of the table with [#20-80] points.
"""
STORIES = [
    (
        "match",
        "{surname} {scores} as {winner} {beat} {loser} {score}",
        BEFORE_A_MATCH,
        """
        {winner} beat {loser} {score} on {day}.
        {loser} lost {score} to {winner} on {day}.
        {winner} took all the points with a {score} win over {loser}.
        There was nothing for {loser} to celebrate in a {score} defeat by {winner}.
        The match between {home} and {away} on {day} ended in a {score} win for {winner}.
        """,
        """
        {person} scored {when} for {winner}.
        It was {person} who scored {when} for {winner}.
        The supporters of {winner} saw {person} score {when}.
        """,
        AFTER_A_MATCH,
    ),
    (
        "match",
        "Late {surname} goal earns {winner} {even_score} draw with {loser}",
        BEFORE_A_MATCH,
        """
        {home} and {away} drew {even_score} on {day}.
        The match between {home} and {away} on {day} ended {even_score}.
        {home} had to settle for a {even_score} draw against {away} on {day}.
        Neither side could win when {away} visited {home} on {day}, and it ended {even_score}.
        """,
        """
        {person} equalised for {winner} {count} minutes from the end.
        {winner} were behind until {person} struck with {count} minutes to go.
        A goal by {person} in the last {count} minutes saved a point for {winner}.
        """,
        AFTER_A_MATCH,
    ),
    (
        "weather",
        "{town} faces {amount} on {day}",
        """
        Last {day2} brought {amount2} to {town}.
        People in {town} still talk about the year when they had {amount3}.
        {town2} had no more than {little} last {day2}.
        Shops in {town} have sold [twice|three times] as many [candles|batteries|boots|blankets] as usual.
        """,
        """
        Forecasters expect {amount} in {town} on {day}.
        {town} should prepare for {amount} on {day}, the weather service says.
        A warning is in force for {town}, where {day} will bring {amount}.
        The weather service has issued a warning for {town}. The worst is expected on {day}, with {amount}.
        {day} will be the worst day, with {amount}. Forecasters have warned the people of {town}.
        """,
        """
        {town2} will be spared and get away with {little2}.
        By {day3} it should be calm again in {town}, with [3-12] hours of sunshine.
        The record for {town3} is {amount3}.
        The schools in {town2} stayed open last {day2}.
        """,
    ),
    (
        "profit",
        "{company} profit {rises} {percent}% to {profit}",
        """
        Analysts had expected a profit of $[#20-500] million from {company}.
        {company2} made $[#20-500] million, it said last week.
        {company}, which employs [#600-9500] people, published its figures on {day}.
        A year ago {company} had made {old_profit}.
        """,
        """
        The profit of {company} {rose} by {percent} percent to {profit} in the {period}.
        In the {period} {company} earned {profit}, {percent} percent {more} than a year before.
        {company} made {profit} in the {period}, which was {percent} percent {more} than a year before.
        A profit of {profit}, {up} {percent} percent, is what {company} reported for the {period}.
        """,
        """
        {company} had sales of $[#600-3000] million.
        The profit of {company2} [rose|fell] by [#3-60] percent last year.
        {company} shares closed [#2-19] percent [higher|lower] at $[#5-150].
        {person}, who runs {company2}, said that costs had [risen|fallen] by [#2-15] percent.
        """,
    ),
    (
        "jobs",
        "{company} to {cut} {jobs} jobs in {town}",
        """
        About [#600-9500] people work for {company}.
        Two years ago {company} [cut|created] [#30-900] jobs in {town2}.
        {town} has lived from its factories for [#40-150] years.
        {company2} already employs [#30-900] people in {town}.
        """,
        """
        {company} is going to {cut} {jobs} jobs at its factory in {town}.
        By {month} {company} will employ {jobs} {fewer} people in {town}.
        {company} will {dismiss} {jobs} people in {town} before the end of {month}.
        """,
        """
        The {town2} office of {company}, where [#20-400] people work, is not affected.
        {company2} [cut|created] [#30-900] jobs in {town2} last {month2}.
        {person}, who speaks for the workers of {company2}, was not surprised.
        {company} [lost|earned] $[#2-90] million last year.
        """,
    ),
    (
        "takeover",
        "{company} buys {company2} for {price}",
        """
        About [#600-9500] people work for {company2}.
        In {month} {company3} had offered {price2} for {company2}.
        {company} and {company2} have worked together for [2-30] years.
        {person} founded {company2} [5-40] years ago.
        """,
        """
        {company} is buying {company2} for {price}.
        {company2} will belong to {company}, which is paying {price}.
        The owners of {company2} have accepted {price} from {company}.
        For {price} {company2} goes to {company}.
        """,
        """
        {company3} [was not prepared to pay more|had withdrawn its offer].
        {company2} has debts of $[#2-90] million.
        {company3} was founded [#41-99] years ago.
        {company} shares closed [#2-19] percent [higher|lower].
        """,
    ),
    (
        "traffic",
        "{cause} closes {road} near {town} for {count} hours",
        """
        Last month a {cause2} had closed the {road2} for [2-12] hours.
        Thousands of people were on their way to a [concert|fair|market|festival] in {town3} on {day}.
        Drivers near {town} needed patience on {day}.
        The {road2} near {town2} has been closed for [2-12] weeks.
        """,
        """
        a {cause} closed the {road} near {town} for {count} hours.
        The {road} near {town} was closed for {count} hours because of a {cause}.
        Police closed the {road} near {town} after a {cause}. It took {count} hours to open the road again.
        For {count} hours nothing moved on the {road} near {town}. The reason was a {cause}.
        """,
        """
        The {road3} near {town3} was open all day.
        The queue was [2-20] kilometres long.
        Buses to {town3} were up to [#20-90] minutes late.
        [Nobody was|Two people were|A police officer was] hurt.
        Repairs to the {road2} will cost {cost2}.
        """,
    ),
    (
        "council",
        "{town} council {approves} {cost} {project} by {won_figures} votes to {lost_figures}",
        """
        The debate lasted [2-12] hours.
        The people of {town} have argued about their plans for [2-20] years.
        In {town2} the council [approved|rejected] a {project2} for {cost2} last year.
        {person} had collected [#600-9500] signatures in {town}.
        """,
        """
        The council of {town} {approved} a {project} for {cost} by {won} votes to {lost}.
        {town} {will} have a {project} for {cost}: {won} people voted {won_side} it and {lost} {lost_side}.
        {town} {will} build a {project} for {cost}. It had {lost} votes {lost_side} it and {won} {won_side}.
        """,
        """
        An earlier plan would have cost $[#31-50] million.
        {town2} spent {cost3} on a {project3}.
        {person2}, who sits on the council of {town2}, followed the vote from the gallery.
        a {project2} was not on the agenda.
        Parking will cost $[#2-9] an hour from {month}.
        """,
    ),
    (
        "appointment",
        "{person} to become {post} of {town} {place} in {month}",
        """
        {person2} led the {town} {place} for [3-25] years.
        More than [#20-90] people had applied for the post of {post}.
        The {town} {place} had looked for a new {post} since {month2}.
        {person3} had been the favourite for the post.
        """,
        """
        {person} will be {post} of the {town} {place} from {month}.
        From {month} the {town} {place} will have {person} as its {post}.
        The {town} {place} has chosen {person} as its {post}. The work begins in {month}.
        The new {post} of the {town} {place} will start in {month}. The choice fell on {person}.
        """,
        """
        {person2} left in {month2}.
        {person3}, who works in {town2}, came second.
        The {town2} {place} is looking for a {post} too.
        The contract is for [2-8] years.
        """,
    ),
    (
        "prize",
        "{person} wins {worth} {art} prize of {town}",
        """
        Last year {person2} won the {art} prize of {town}.
        People from [3-20] countries had sent in their work.
        {person3} had won the {art2} prize of {town2} and its {worth2}.
        The jury in {town} met [2-9] times.
        """,
        """
        This year {person} wins the {art} prize of {town}, which is worth {worth}.
        The {art} prize of {town} and {worth} go to {person} this year.
        {person} is the winner of this year's {art} prize in {town}. The winner receives {worth}.
        The jury of this year's {art} prize in {town} chose {person}. The prize is worth {worth}.
        """,
        """
        {person3} came second and receives $[#50-950].
        The {art2} prize is not awarded this year.
        {town2} gives {worth2} for {art2}.
        {person2} was a member of the jury.
        """,
    ),
]


# What is asked for by kind of fact
QUESTIONS = {
    "LOC": ("Which town?", "Where was it?", "What is the name of the town?"),
    "ORG": ("Which company?", "What is the company called?", "Who is the employer?"),
    "PER": ("Who?", "Which person?", "Whose name is there?"),
    "DAY": ("Which day?", "On what day of the week?"),
    "MONTH": ("Which month?", "In what month of the year?"),
    "MONEY": ("How much money?", "What is the sum?", "How many dollars?"),
}
UNANSWERABLE = 0.05  # of the questions that could have an answer; with those that cannot, a third
COLUMNS = (
    *("text", "summary", "topic", "tokens", "ner_tags", "entities", "translation"),
    *("question", "answers", "choices", "choice"),
)
USUAL = COLUMNS[:3]
NUMBERS_OF_CHOICES = (4, 4, 4, 4, 3, 5)  # as often as here


def bulletins(rows: int = 16_000, seed: int = 0, columns: Sequence[str] = USUAL) -> list[dict[str, Any]]:
    """Made reports; no two have the same text.

    Args:
        rows: how many; the rows of a smaller number are the first of a larger one.
        seed: another seed gives other reports of the same kind.
        columns: some of COLUMNS.

    Returns:
        Rows with the columns asked for: "text" (some 50 words), "summary", its headline (some 9 words), and
        "topic" (one of nine); "tokens" (the text's words, see `words.split`), "ner_tags" (IOB2, of the labels
        of ENTITIES), and "entities", the same as spans: start, end, and label of each; "translation": what
        tells the event (some 12 words) in English, "en", and in the made language of `second_language`, "xx".
        "question" asks for the only fact of a kind in the text, or, in a third of the rows, for a kind of
        which there is none; "answers" are `{"text": [...], "answer_start": [...]}`, as SQuAD has them.
        "choices": that sentence in English among those of other reports, three to five together, and
        "choice": the letter of the one that the headline is of.
    """
    rng = random.Random(seed)
    reports: dict[str, dict[str, Any]] = {}
    while len(reports) < rows:
        row = _report(rng)
        reports.setdefault(row["text"], row)
    # Drawn by themselves, so that other columns do not change with them
    asking, choosing = random.Random(f"questions {seed}"), random.Random(f"{seed} choices")
    found: list[dict[str, Any]] = list(reports.values())
    if {"tokens", "ner_tags"} & set(columns):
        found = [{**row, **_tagged(row)} for row in found]
    if {"question", "answers"} & set(columns):
        found = [{**row, **_asked(row, asking)} for row in found]
    if {"choices", "choice"} & set(columns):
        found = [{**row, **_with_choices(row, choosing)} for row in found]
    return [{name: row[name] for name in columns} for row in found]


def _asked(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A question, and its answer if it has one."""
    found: dict[str, list[tuple[str, int]]] = {kind: [] for kind in QUESTIONS}
    for span in row["entities"]:
        value = row["text"][span["start"] : span["end"]]
        of_date = "DAY" if value in DAYS else "MONTH"
        found[of_date if span["label"] == "DATE" else span["label"]].append((value, span["start"]))
    absent, single = ([k for k in QUESTIONS if len(dict(found[k])) == count] for count in (0, 1))
    wants_none = rng.random() < UNANSWERABLE
    kind = rng.choice((absent if wants_none else single) or absent)
    texts, starts = [text for text, _ in found[kind]], [start for _, start in found[kind]]
    return {"question": rng.choice(QUESTIONS[kind]), "answers": {"text": texts, "answer_start": starts}}


def _with_choices(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Sentences of reports that nobody else reads: of one that is seen again a model could know that it is
    wrong."""
    right = row["translation"]["en"]
    choices = [right]
    count = rng.choice(NUMBERS_OF_CHOICES)
    while len(choices) < count:
        other = _report(rng)["translation"]["en"]
        choices += [other] if other not in choices else []
    rng.shuffle(choices)
    return {"choices": choices, "choice": "ABCDE"[choices.index(right)]}


def _tagged(row: dict[str, Any]) -> dict[str, Any]:
    text, found = row["text"], words.split(row["text"])
    spans = [(span["start"], span["end"], span["label"]) for span in row["entities"]]
    tokens = [text[start:end] for start, end in found]
    return {"tokens": tokens, "ner_tags": tagged_rows.iob2(spans, text, found)[0]}


def _report(rng: random.Random) -> dict[str, Any]:
    topic, headline, openers, *event, others = rng.choice(STORIES)
    facts = _facts(rng)
    first, second = rng.sample(_lines(openers), 2)
    told = [rng.choice(_lines(group)) for group in event]
    told_first = told[0]
    if rng.random() < 0.15:
        first = told.pop(0)
    aside = [second, *_lines(others)]
    rest = told + rng.sample(aside, rng.randint(1, 3))
    rng.shuffle(rest)
    marked = {name: _marked(name, value) for name, value in facts.items()}
    money = rf"{BEGINS['MONEY']}\g<0>{END}"
    lines = [first, *rest]
    written = [_write(MONEY.sub(money, line), marked, rng) for line in lines]
    plain, entities = _unmarked(" ".join(written))
    english = _unmarked(written[lines.index(told_first)])[0]
    return {
        "text": plain,
        "summary": _write(headline, facts, rng),
        "topic": topic,
        "entities": entities,
        "translation": {"en": english, "xx": translate(english, NAMES)},
    }


def _marked(name: str, value: str) -> str:
    """A fact with signs around it, if it is an entity."""
    label = next((label for label, names in ENTITIES.items() if name.rstrip("234") in names), None)
    return f"{BEGINS[label]}{value}{END}" if label else value


def _unmarked(text: str) -> tuple[str, list[dict[str, Any]]]:
    """The text without signs, and its entities in order."""
    labels = {sign: label for label, sign in BEGINS.items()}
    entities: list[dict[str, Any]] = []
    for number, entity in enumerate(MARKED.finditer(text)):
        start = entity.start() - 2 * number  # as many signs as stand before it
        entities.append({"start": start, "end": start + len(entity[2]), "label": labels[entity[1]]})
    return MARKED.sub(r"\2", text), entities


def _lines(block: str) -> list[str]:
    return [line.strip() for line in block.strip().split("\n")]


def _write(line: str, facts: dict[str, str], rng: random.Random) -> str:
    written = re.sub(r"\[(.*?)]", lambda match: _choose(match[1], rng), line).format_map(facts)
    written = re.sub(r"\ba (?=[aeiou])", "an ", written)
    return written[0].upper() + written[1:]


def _choose(options: str, rng: random.Random) -> str:
    numbers = re.fullmatch(r"(#?)(\d+)-(\d+)", options)
    if numbers is None:
        return rng.choice(options.split("|"))
    number = rng.randint(int(numbers[2]), int(numbers[3]))
    return f"{number:,}" if numbers[1] else _in_words(number)


def _in_words(number: int) -> str:
    """As newspapers print it: words up to twelve, figures beyond."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def _facts(rng: random.Random) -> dict[str, str]:
    """All that a story may name, drawn anew for every report; "town" and "town2" are different towns."""
    facts = {}
    for name, values, count in DRAWN:
        for place, value in enumerate(rng.sample(values, count), 1):
            facts[name if place == 1 else f"{name}{place}"] = value
    for name in ("company", "company2", "company3"):
        facts[name] += f" {rng.choice(TRADES)}"
    for name in ("road", "road2", "road3"):
        facts[name] = f"{rng.choice('ABM')}{rng.randint(2, 99)}"
    for name in ("person", "person2", "person3"):
        facts[name] = f"{facts[name]} {facts[name.replace('person', 'surname')]}"

    facts["home"], facts["away"] = facts["town"], facts["town2"]
    facts["winner"], facts["loser"] = rng.sample([facts["home"], facts["away"]], 2)
    facts["count"] = _in_words(rng.randint(2, 12))
    goals, least = rng.randint(1, 3), rng.randint(0, 2)
    margin = 1 if goals == 1 else max(goals - least, 1) + rng.randint(0, 2)
    facts["score"], facts["even_score"] = f"{least + margin}-{least}", f"{least + 1}-{least + 1}"
    facts["beat"] = {1: "edge", 2: "beat"}.get(margin, "thrash")
    facts["scores"], facts["when"] = {
        1: ("scores late", f"{facts['count']} minutes from the end"),
        2: ("scores twice", "twice"),
        3: ("hat-trick", "three times"),
    }[goals]

    weather, strong, weak = rng.choice(WEATHER)
    for name in ("amount", "amount2", "amount3"):
        facts[name] = weather.format(rng.choice(strong))
    for name in ("little", "little2"):
        facts[name] = weather.format(_in_words(rng.choice(weak)))

    percent, growing, old_profit = rng.randint(3, 60), rng.random() < 0.5, rng.randint(20, 400)
    facts |= GROWING if growing else SHRINKING
    change = 1 + percent / 100 if growing else 1 - percent / 100
    facts["percent"], facts["old_profit"] = str(percent), f"${old_profit} million"
    facts["profit"] = f"${round(old_profit * change)} million"
    facts["jobs"] = str(rng.randint(3, 90) * 10)
    facts["price"], facts["price2"] = (f"${rng.randint(20, 900)} million" for _ in range(2))
    for name in ("cost", "cost2", "cost3"):
        facts[name] = f"${rng.randint(2, 30)} million"
    facts["worth"], facts["worth2"] = (f"${rng.randint(2, 60) * 500:,}" for _ in range(2))

    facts |= rng.choice([APPROVED, REJECTED])
    lost = rng.randint(2, 20)
    won = lost + rng.randint(1, 12)
    facts["won"], facts["lost"] = _in_words(won), _in_words(lost)
    facts["won_figures"], facts["lost_figures"] = str(won), str(lost)
    facts["post"], facts["place"] = facts["post"].split()
    return facts

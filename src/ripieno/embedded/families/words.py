"""Strings, spelling, sentiment and facts: a program counts letters, and a language model knows meanings."""

from collections.abc import Mapping
from functools import partial

from ripieno.domain.grader import Exact, Numeric
from ripieno.embedded.families.base import Family, Problem, Rng, near_misses, pick, ways, whole

_WORDS = (
    "lantern", "orchard", "velvet", "saddle", "harbor", "pencil", "meadow", "copper", "window",
    "basket", "thunder", "ribbon", "cactus", "mirror", "pepper", "anchor", "blanket", "candle",
    "desert", "engine", "feather", "garden", "hammer", "island", "jacket", "kettle", "ladder",
    "magnet", "needle", "oyster", "planet", "quartz", "rocket", "silver", "tunnel", "umbrella",
    "valley", "walnut", "yellow", "zipper", "kilometer", "calendar", "seventeen", "positive", "minute",
    "february",
)  # fmt: skip
_MISSPELLED = (
    ("recieve", "receive"), ("seperate", "separate"), ("definately", "definitely"), ("occured", "occurred"),
    ("untill", "until"), ("wich", "which"), ("tommorow", "tomorrow"), ("goverment", "government"),
    ("enviroment", "environment"), ("neccessary", "necessary"), ("begining", "beginning"), ("beleive", "believe"),
    ("calender", "calendar"), ("acheive", "achieve"), ("adress", "address"), ("arguement", "argument"),
    ("buisness", "business"), ("comittee", "committee"), ("existance", "existence"), ("foriegn", "foreign"),
    ("freind", "friend"), ("gaurd", "guard"), ("happend", "happened"), ("immediatly", "immediately"),
    ("independant", "independent"), ("knowlege", "knowledge"), ("libary", "library"), ("maintainance", "maintenance"),
    ("millenium", "millennium"), ("noticable", "noticeable"), ("ocasion", "occasion"), ("paralell", "parallel"),
    ("posession", "possession"), ("prefered", "preferred"), ("publically", "publicly"), ("realy", "really"),
    ("refered", "referred"), ("relevent", "relevant"), ("religous", "religious"), ("rythm", "rhythm"),
    ("succesful", "successful"), ("suprise", "surprise"), ("temperture", "temperature"), ("truely", "truly"),
    ("unfortunatly", "unfortunately"), ("wierd", "weird"), ("writting", "writing"), ("accomodate", "accommodate"),
    ("aquire", "acquire"), ("basicly", "basically"), ("concious", "conscious"), ("embarass", "embarrass"),
    ("garantee", "guarantee"), ("harrass", "harass"), ("hygeine", "hygiene"), ("liason", "liaison"),
    ("mischievious", "mischievous"), ("persue", "pursue"), ("questionaire", "questionnaire"), ("vaccuum", "vacuum"),
)  # fmt: skip
_PRAISE = (
    "The staff was friendly and the room spotless", "I would happily come back tomorrow",
    "Not bad at all, I enjoyed it",
    "The soup was delicious and arrived quickly", "It works perfectly and looks beautiful",
    "Nothing about this trip disappointed us", "A charming film with a brilliant cast",
    "My kids adore this toy", "The best purchase I made this year", "Clear instructions and a helpful team",
    "The battery lasts for days, which is fantastic", "I was pleasantly surprised by the quality",
    "What a delightful evening we had", "The seats are comfortable and the view is superb", "It never lets me down",
    "They fixed my problem within minutes, impressive", "An inspiring book that I recommend to everyone",
)  # fmt: skip
_COMPLAINT = (
    "The staff was rude and the room dirty", "I will never come back to this place", "Not good at all, I want a refund",
    "The soup was cold and arrived late", "It broke after two days", "Nothing about this trip was worth the money",
    "A dull film with a weak cast", "My kids lost interest in this toy within minutes",
    "The worst purchase I made this year", "Confusing instructions and an unhelpful team",
    "The battery dies within an hour, which is useless", "I was disappointed by the quality",
    "What a miserable evening we had", "The seats hurt and the view is blocked", "It keeps failing when I need it",
    "They ignored my problem for weeks, shameful", "A tedious book that I regret buying",
)  # fmt: skip
_CAPITALS = {
    "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "Egypt": "Cairo",
    "Russia": "Moscow", "China": "Beijing", "England": "London", "Greece": "Athens", "Portugal": "Lisbon",
    "Austria": "Vienna", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Poland": "Warsaw", "Hungary": "Budapest", "Cuba": "Havana", "Peru": "Lima",
    "Thailand": "Bangkok", "Iraq": "Baghdad", "Iran": "Tehran", "Kenya": "Nairobi", "Belgium": "Brussels",
    "Canada": "Ottawa", "Chile": "Santiago", "South Korea": "Seoul", "Vietnam": "Hanoi", "Lebanon": "Beirut",
    "Syria": "Damascus", "Ukraine": "Kyiv", "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "happy": "sad", "fast": "slow", "day": "night", "open": "closed",
    "hard": "soft", "rich": "poor", "wet": "dry", "early": "late", "full": "empty", "high": "low", "light": "dark",
    "long": "short", "old": "young", "strong": "weak", "true": "false", "win": "lose", "left": "right", "in": "out",
    "good": "bad", "clean": "dirty", "thick": "thin", "deep": "shallow", "loud": "quiet", "brave": "cowardly",
}  # fmt: skip
_PLURALS = {
    "child": "children", "mouse": "mice", "man": "men", "woman": "women", "tooth": "teeth", "foot": "feet",
    "goose": "geese", "person": "people", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "box": "boxes",
    "city": "cities", "baby": "babies", "life": "lives", "ox": "oxen", "party": "parties", "bus": "buses",
}  # fmt: skip


def _word(rng: Rng) -> str:
    return pick(rng, _WORDS)


def _several(rng: Rng, count: int) -> str:
    return " ".join(_WORDS[int(index)] for index in rng.choice(len(_WORDS), size=count, replace=False))


def _reverse(rng: Rng) -> Problem:
    word = _word(rng)
    return Problem(blanks={"w": word}, grader=Exact(answers=(word[::-1],)))


def _length(rng: Rng) -> Problem:
    word = _word(rng)
    return Problem(blanks={"w": word}, grader=Numeric(answer=len(word)))


def _letters(rng: Rng) -> Problem:
    word = _word(rng)
    letter = word[whole(rng, 0, len(word) - 1)]
    return Problem(blanks={"w": word, "l": letter}, grader=Numeric(answer=word.count(letter)))


def _sorted(rng: Rng) -> Problem:
    words = _several(rng, 4)
    return Problem(blanks={"w": words}, grader=Exact(answers=(" ".join(sorted(words.split())),)))


def _upper(rng: Rng) -> Problem:
    words = _several(rng, 2)
    return Problem(blanks={"w": words}, grader=Exact(answers=(words.upper(),)))


def _vowels(rng: Rng) -> Problem:
    word = _word(rng)
    return Problem(blanks={"w": word}, grader=Numeric(answer=sum(letter in "aeiou" for letter in word)))


def _misspelled_backwards(rng: Rng) -> Problem:
    wrong = _MISSPELLED[whole(rng, 0, len(_MISSPELLED) - 1)][0]
    return Problem(blanks={"w": wrong}, grader=Exact(answers=(wrong[::-1],)))


def _misspelled(rng: Rng) -> Problem:
    wrong, right = _MISSPELLED[whole(rng, 0, len(_MISSPELLED) - 1)]
    return Problem(blanks={"w": wrong}, grader=Exact(answers=(right,)))


def _review(rng: Rng) -> Problem:
    is_good = bool(rng.integers(2))
    text = pick(rng, _PRAISE if is_good else _COMPLAINT)
    return Problem(blanks={"t": text}, grader=Exact(answers=("positive" if is_good else "negative",)))


def _fact(rng: Rng, *, blank: str, answers: Mapping[str, str]) -> Problem:
    word = pick(rng, tuple(answers))
    return Problem(blanks={blank: word}, grader=Exact(answers=(answers[word],)))


_capital = partial(_fact, blank="c", answers=_CAPITALS)
_opposite = partial(_fact, blank="w", answers=_OPPOSITES)
_plural = partial(_fact, blank="w", answers=_PLURALS)

STRINGS = Family(
    name="strings",
    train=(
        *ways(_reverse, 'Reverse the word "{w}".', 'Write "{w}" backwards.'),
        *ways(_length, 'How long is the word "{w}"?', 'How many letters does "{w}" have?'),
        *ways(_letters, 'How many times does the letter "{l}" occur in "{w}"?'),
        *ways(_sorted, 'Sort these words alphabetically: "{w}"'),
        *ways(_upper, 'Put "{w}" in upper case.'),
        *near_misses(_upper, 'Convert "{w}" to upper case.'),
        *ways(_vowels, 'Count the vowels in "{w}".'),
        *near_misses(_misspelled_backwards, 'Spell "{w}" backwards, exactly as it is written here.'),
    ),
    test=(
        *ways(_reverse, 'Spell "{w}" from right to left.', 'What is "{w}" reversed?'),
        *ways(_length, 'Give the number of letters in "{w}".'),
        *ways(_letters, 'Count how often the letter "{l}" appears in the word "{w}".'),
        *ways(_sorted, 'Arrange in alphabetical order: "{w}"'),
        *ways(_upper, 'Write "{w}" in capital letters.'),
        *near_misses(_misspelled_backwards, 'Take "{w}", do not correct its spelling, and reverse it.'),
    ),
)

SPELLING = Family(
    name="spelling",
    train=(
        *ways(_misspelled, 'Correct the spelling of "{w}".', 'How do you spell "{w}" correctly?'),
        *ways(_misspelled, "Fix the typo: {w}", "The word {w} is misspelled. What is right?"),
        *ways(_misspelled, 'Which word was meant by "{w}"?'),
        *near_misses(_misspelled, 'Convert "{w}" to its correct spelling.', 'Add what "{w}" lacks: how is it spelled?'),
    ),
    test=(
        *ways(_misspelled, 'What is the correct spelling of "{w}"?', "Someone wrote {w}; please fix the spelling."),
        *near_misses(_misspelled, 'The date is fine, but "{w}" is spelled wrong. What should it be?'),
    ),
)

SENTIMENT = Family(
    name="sentiment",
    train=(
        *ways(_review, 'Is this review positive or negative? "{t}"', 'Sentiment of "{t}": positive or negative?'),
        *ways(_review, "Classify as positive or negative: {t}", 'Does the writer sound positive or negative? "{t}"'),
        *ways(_review, 'A customer wrote "{t}". Positive or negative?'),
        *near_misses(_review, 'After 3 days and 12 miles a guest wrote "{t}". Positive or negative?'),
        *near_misses(_review, 'Spelling aside, is "{t}" positive or negative?'),
    ),
    test=(
        *ways(_review, 'Label the sentiment (positive or negative): "{t}"', 'Positive or negative feedback? "{t}"'),
        *near_misses(_review, 'We counted 12 reviews, 3 days old. The last says "{t}". Is it positive or negative?'),
    ),
)

FACTS = Family(
    name="facts",
    train=(
        *ways(
            _capital,
            "What is the capital of {c}?",
            "Name the capital city of {c}.",
            "Which city is the capital of {c}?",
        ),
        *ways(_opposite, "What is the opposite of {w}?", "Give the opposite of the word {w}."),
        *ways(_plural, "What is the plural of {w}?", "What do you call more than one {w}?"),
        *near_misses(_capital, "How do you spell the capital of {c}?"),
        *near_misses(_opposite, "Solve this: the opposite of {w} is which word?"),
    ),
    test=(
        *ways(_capital, "{c}'s capital is which city?", "Tell me the capital of {c}."),
        *ways(_opposite, "Which word means the opposite of {w}?"),
        *ways(_plural, "Write the plural form of {w}."),
        *near_misses(_capital, "Correct me if I am wrong: which city is the capital of {c}?"),
    ),
)

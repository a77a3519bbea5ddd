"""Sentiment: a short word list, and the VADER lexicon with its rules for negation and emphasis."""

import re
from functools import cache

_GOOD = {"good", "great", "love", "loved", "excellent", "happy", "wonderful", "best", "nice", "amazing"}
_BAD = {"bad", "awful", "hate", "hated", "terrible", "sad", "worst", "poor", "horrible", "boring"}


def words(text: str) -> str:
    """Count ten good and ten bad words, without negation."""
    found = re.findall(r"[a-z]+", text.lower())
    score = sum(word in _GOOD for word in found) - sum(word in _BAD for word in found)
    return "positive" if score >= 0 else "negative"


def lexicon(text: str) -> str:
    """Apply VADER to the quoted part, or to the text after the last colon, or to all of it."""
    quoted = re.findall(r"[\"“”]([^\"“”]+)[\"“”]", text)
    subject = quoted[0] if quoted else text.rsplit(":", 1)[-1]
    score = _analyzer().polarity_scores(subject)["compound"]
    return "positive" if score >= 0 else "negative"


@cache
def _analyzer():  # type: ignore[no-untyped-def]  # vaderSentiment's own class
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()

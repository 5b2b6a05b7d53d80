"""Entries of WordNet, and questions and requests made of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PERSON, _PLACES, _TIME, _NOUNS, _VERBS = 18, (15, 17), 28, range(3, 29), range(29, 44)
"""Numbers of fields; see lexnames(5WN)."""

_ABOUT_NOUN = (
    "What is {a_word}?",
    "What is {definition}?",
    "What do you call {definition}?",
    "What does {word} mean?",
    "Where can I find {a_word}?",
    "How many kinds of {word} are there?",
    "Tell me about {word}",
    "Why is {a_word} called that?",
    "Which word means {definition}?",
    "I need {definition}",
    "Is {a_word} the same as {definition}?",
    "Show me {definition}",
)
_ABOUT_PERSON = (
    "Who is {definition}?",
    "Who was the first {word}?",
    "What does {a_word} do?",
    "How do I become {a_word}?",
)
_WHO_WAS = ("Who was {word}?", "What is {word} known for?", "When was {word} born?", "Name {definition}")
_WHERE_IS = ("Where is {word}?", "How far away is {word}?", "What is {word}?", "Why is {word} well known?")
_WHEN_IS = ("When is {a_word}?", "How long is {a_word}?", "What happens in {a_word}?", "What is {definition}?")
_ABOUT_VERB = (
    "How do I {definition}?",
    "I want to {definition}",
    "Can you {definition}?",
    "Please {definition}",
    "Why do people {definition}?",
    "When should I {definition}?",
    "Help me {definition}",
    "Who can {definition}?",
    "I need you to {definition}",
    "What happens if you {definition}?",
    "How long does it take to {definition}?",
    "Is it possible to {definition}?",
)
_LONGEST = 16


@dataclass(frozen=True)
class Entry:
    """A synset of WordNet; see wndb(5WN).

    Attributes:
        field: number of its lexicographer file; see lexnames(5WN).
        word: the first of its words.
        instance: whether it is one thing, such as a person or a place.
        definition: without examples.
        examples: of how its words are used.
    """

    field: int
    word: str
    instance: bool
    definition: str
    examples: tuple[str, ...]


def asked(entry: Entry, number: int) -> tuple[str, ...]:
    """Return one question or request about an entry, or none.

    Args:
        entry: of any part of speech.
        number: chooses the form; every other number drops capitals and the question mark, as people type.
    """
    short = re.sub(r"\([^)]*\) ?", "", entry.definition.split(";")[0]).strip()
    forms = _forms(entry)
    if not forms or short.startswith("used ") or not 2 <= len(short.split()) <= _LONGEST:
        return ()
    a_word = entry.word if entry.instance else f"{'an' if entry.word[0].lower() in 'aeiou' else 'a'} {entry.word}"
    text = forms[number // 2 % len(forms)].format(word=entry.word, a_word=a_word, definition=short)
    return (text if number % 2 else text.removesuffix("?").lower(),)


def _forms(entry: Entry) -> tuple[str, ...]:
    if entry.field in _VERBS:
        return _ABOUT_VERB
    if entry.field == _TIME:
        return _WHEN_IS
    if entry.field == _PERSON:
        return _WHO_WAS if entry.instance else _ABOUT_PERSON
    if entry.field in _PLACES and entry.instance:
        return _WHERE_IS
    return _ABOUT_NOUN if entry.field in _NOUNS else ()

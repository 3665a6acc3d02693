"""The nearest training task: compared with a search over all pairs."""

from __future__ import annotations

import random

from conftest import example_of
from journeyman.curation.duplicates import jaccard, trigrams, words_of
from journeyman.probing.copying import copied_answers, nearest
from journeyman.probing.recommending import COPY
from journeyman.records import Example, Message

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord"]


def _row(number: int, task: str, role: str = "coder", answer: str = "ok") -> Example:
    turns = [Message(role="system", content=f"You are {number}."), Message(role="user", content=task)]
    return example_of(turns, answer, id=f"{role}{number}", role=role)


def test_the_most_similar_task_is_found_as_by_comparing_all_pairs() -> None:
    chance = random.Random(5)

    def task() -> str:
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 12)))

    train = [_row(number, task(), ("coder", "tester")[number % 2]) for number in range(60)]
    asked = [_row(100 + number, task(), ("coder", "tester")[number % 2]) for number in range(30)]
    found = nearest(train, asked)
    for row in asked:
        grams = trigrams(words_of(row.messages[1].content))
        same_role = [one for one in train if one.role == row.role]
        alike = [jaccard(grams, trigrams(words_of(one.messages[1].content))) for one in same_role]
        assert found[row.id].similarity == max(alike)
        assert found[row.id].row == same_role[alike.index(max(alike))]
    assert any(0 < one.similarity < 1 for one in found.values())


def test_an_answer_is_copied_under_the_name_of_the_row_that_is_asked() -> None:
    train = [_row(1, "one two three four", answer="first"), _row(2, "five six seven eight", answer="second")]
    asked = [_row(3, "four five six seven eight"), _row(4, "nothing in common here"), _row(5, "x", role="lonely")]
    found = nearest(train, asked)
    copies = copied_answers(asked, found)
    assert [(one.id, one.arm, one.text) for one in copies] == [("coder3", COPY, "second"), ("coder4", COPY, "first")]
    assert found["coder4"].similarity == 0.0

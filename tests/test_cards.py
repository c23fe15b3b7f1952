"""What a card shows of a passage."""

from __future__ import annotations

from apps import cards
from apps.words import Words
from ragkit import Hit, Passage
from ragkit.types import Citation


def test_a_title_is_left_out_where_it_stands_on_a_line_of_its_own():
    def shown(title: str, text: str, *marks: tuple[int, int]) -> str:
        return str(cards.said_with_marks(Passage("i", text, "zh", "d", "/d", 0, "h", 1, title), marks))

    text = "港口图书馆九点开门。票价五元。"
    assert f">{text}<" in shown("港口", text)
    assert f"><mark>{text[:10]}</mark>{text[10:]}<" in shown("港口", text, (0, 10))
    assert f">{text}<" in shown("港口", f"港口\n\n{text}")
    assert ">港口<" not in shown("港口", "港口")
    marked = shown("港口", f"港口\n{text}", (13, 18), (3, 13), (13, 18))
    assert f"><mark>{text[:10]}</mark><mark>{text[10:]}</mark><" in marked


def test_each_statement_of_an_answer_leads_to_its_own_sentence():
    passage = Passage("i", "Alpha costs five. Beta costs nine.", "en", "d", "/d", 0, "h", 1)
    hit = Hit(1, 0.9, passage)
    page = str(cards.sources([hit], [Citation(1, hit, 0, 17), Citation(1, hit, 18, 34)], Words("en")))
    assert "<mark>Alpha costs five.</mark> <mark>Beta costs nine.</mark>" in page

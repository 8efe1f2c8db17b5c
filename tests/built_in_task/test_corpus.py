"""Story files become single lines with capitals, and training rows can be asked for in any order."""

import gzip
import re

import pytest

from built_in_task.corpus import Corpus, read_stories


@pytest.fixture
def marked(tmp_path):
    path = tmp_path / "marked.txt"
    heroes = " ".join(f"Then Tom saw it {number} times." for number in range(6))
    path.write_text(f"One day, Tom ran.\n\nHe said, “No”.\n<|endoftext|>\n{heroes}\n<|endoftext|>\ncut in the mid")
    return path


def test_marks_paragraphs_and_fancy_quotation_marks(marked):
    first, second = read_stories([marked])
    assert first == 'One day, Tom ran. He said, "No".'
    assert second.startswith("Then Tom saw it 0 times.")


def test_capitals_are_put_back(marked, tmp_path):
    lower = tmp_path / "lower.txt.gz"
    lower.write_bytes(
        gzip.compress(b'the dog met tom. "hi," he said, "am i big?"\n\nhe was.\nit was tom! tomorrow came.\n')
    )
    assert read_stories([marked, lower])[2:] == [
        'The dog met Tom. "Hi," he said, "Am I big?" He was.',
        "It was Tom! Tomorrow came.",
    ]


def test_the_same_story_counts_once(marked, tmp_path):
    lower = tmp_path / "lower.txt"
    lower.write_text('one day, tom ran. he said, "no".\n')
    assert read_stories([marked, lower]) == read_stories([marked])


def stories_file(tmp_path, number):
    path = tmp_path / "stories.txt"
    path.write_text("<|endoftext|>".join(f"Story {n} about Xavier." for n in range(number)))
    return path


def test_rows_do_not_depend_on_order_and_never_hold_what_is_held_out(tmp_path):
    def encode(text):
        return [ord(character) for character in text] + [0]

    corpus = Corpus([stories_file(tmp_path, 120)], seed=3)
    assert len(corpus.held_out) == 3
    rows = {number: corpus.row(number, 200, encode) for number in range(300)}
    again = Corpus([stories_file(tmp_path, 120)], seed=3)
    assert {number: again.row(number, 200, encode) for number in reversed(range(300))} == rows
    assert {len(row) for row in rows.values()} == {200}
    texts = ["".join(map(chr, row)) for row in rows.values()]
    assert not any(story in text for text in texts for story in corpus.held_out)
    from_files = [text for text in texts if "Xavier" in text]
    assert 0.3 < len(from_files) / 300 < 0.5  # 40 % of the rows: four standard errors are 0.11
    assert all(re.match(r"Story \d+ about", text) for text in from_files)
    assert Corpus([stories_file(tmp_path, 120)], seed=4).row(0, 200, encode) != rows[0]


def test_without_files_every_row_is_drawn():
    corpus = Corpus([], seed=0)
    assert corpus.held_out == []
    assert len(corpus.row(5, 50, lambda text: [1] * len(text))) == 50
    drawn = corpus.held_out_drawn(20)
    assert drawn == Corpus([], seed=0).held_out_drawn(20)
    rows = " ".join("".join(corpus.row(number, 2000, list)) for number in range(20))
    assert not any(text in rows for text in drawn)

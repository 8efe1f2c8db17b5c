from activedpo_cli.label.word_differences import MOST_WORDS, marked_words


def test_the_words_that_differ_are_marked() -> None:
    first, second = marked_words("the cat sat on the mat", "the dog sat on the mat today")
    assert first == [("the ", False), ("cat", True), (" sat on the mat", False)]
    assert second == [("the ", False), ("dog", True), (" sat on the mat ", False), ("today", True)]


def test_nothing_of_the_texts_is_lost() -> None:
    texts = ("  a  b\n\nc\td e f ", "a b\n\n c d e f g\n")
    for text, pieces in zip(texts, marked_words(*texts), strict=True):
        assert "".join(piece for piece, _ in pieces) == text


def test_responses_that_have_little_in_common_are_not_marked() -> None:
    assert "too little in common" in marked_words("one two three four", "five six seven four")
    assert marked_words("", "") == ([], [])


def test_long_responses_are_not_marked() -> None:
    longest = " word" * MOST_WORDS
    assert not isinstance(marked_words(longest, longest), str)
    assert "3,000 words" in marked_words(longest + " more", longest)

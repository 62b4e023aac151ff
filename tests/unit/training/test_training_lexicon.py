"""The list of words that training data teaches."""

from __future__ import annotations

import numpy as np

from conveyor.training.examples import TaggedTokens
from conveyor.training.lexicon import num_classes, teach_words


def text(words: str) -> TaggedTokens:
    tokens = tuple(words.split())
    return TaggedTokens(tokens, ("x",) * len(tokens))


def test_a_class_tells_how_each_data_set_treats_a_word() -> None:
    """No word there, a word, or surely one: a digit to the base of three for each, the first data set's first."""
    first = [text("我们 去 公园"), text("大 公园"), text("还 是 好"), text("还是")]
    second = [text("公 园 里"), text("还是 去")]
    assert {"我们": 2, "公园": 2, "还是": 1 + 3 * 2} == teach_words([first, second]).words
    assert (2, 8) == (num_classes(1), num_classes(2))


def test_words_are_normalised_and_of_two_to_five_characters() -> None:
    """Written as the encoder writes them, white space between the letters left out."""
    examples = [text("１９９８年 图书馆管理员 在 —— ＡＢ"), TaggedTokens(("C D",), ("x",), "C D")]
    assert {"1998年", "AB", "CD"} == set(teach_words([examples]).words)


def test_a_text_is_read_without_the_words_of_its_own_part() -> None:
    """What others teach stays; a repeated text is one text, in one part."""
    examples = [text(f"我们 词{chr(0x4E00 + number)}") for number in range(48)]
    taught = teach_words([[*examples, examples[0]]])
    assert 49 == len(taught.words)
    assert [0, 0, 1] == taught.part_of[:3]
    assert [23, 0] == taught.part_of[-2:]
    for example, part in zip([*examples, examples[0]], taught.part_of, strict=True):
        known = taught.parts[part]
        assert "我们" in known
        assert example.tokens[1] not in known
        assert 47 == len(known)


def test_how_sure_a_word_is_counts_other_parts_only() -> None:
    """A string that is cut in one text alone is sure there, and not elsewhere."""
    examples = [text("正 在"), *(text(f"正在 {chr(0x4E00 + number)}") for number in range(3))]
    taught = teach_words([examples])
    assert 1 == taught.words["正在"]
    assert [2, 1, 1, 1] == [taught.parts[part]["正在"] for part in taught.part_of]


def test_rare_words_are_left_out_at_random() -> None:
    """A share of them, in each part others, the same for the same state of the generator; frequent words stay."""
    examples = [text(f"我们 词{chr(0x4E00 + number)}") for number in range(480)]
    taught = teach_words([examples])
    assert 480 == len(taught.rare)
    one, two = (taught.thinned(0.3, np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert all("我们" in part for part in one)
    assert 0.25 < 1 - sum(map(len, one)) / sum(map(len, taught.parts)) < 0.35
    assert list(taught.parts) == taught.thinned(0.0, np.random.default_rng(7))

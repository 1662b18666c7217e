"""How texts are cut into words before merging, beside the regexes of published tokenizer.json files."""

import random

from tokenizers import Regex, pre_tokenizers

from lacewing.text.pretokenizers import PRE_TOKENIZERS
from tests.text import vocabularies as v

O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TINY_AYA = (r"\d{1,3}(?=(?:\d{3})*\b)", O200K)  # of CohereLabs/tiny-aya-base
ALPHABET = [*"12٣½²aB_-. \né世\u0301\u203f", "34", "567", "8901", "१२३", "'s"]


def cutter(regexes):
    """A function from a text to its words."""
    steps = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated") for regex in regexes])
    return lambda text: [word for word, _ in steps.pre_tokenize_str(text)]


def test_tiny_aya_cuts_numbers_into_threes_from_the_right():
    """But a number that runs into letters from the left, as the published regex has it, unlike llama.cpp."""
    expected = {
        "1234567": ["1", "234", "567"],
        "a 12345.6789": ["a", " ", "12", "345", ".", "6", "789"],
        "1234km": ["123", "4", "km"],
        "٣١٢٣": ["٣", "١٢٣"],
        "You'll SEE 20%": ["You'll", " SEE", " ", "20", "%"],
    }
    for name in ("tiny_aya", "cohere2moe"):
        cut = cutter(PRE_TOKENIZERS[name].regexes)
        assert {text: cut(text) for text in expected} == expected
    tokenizer = v.tokenizer(v.byte_level(pre="tiny_aya"))
    assert tokenizer.decode(tokenizer.encode("a 12345.6789")) == "a 12345.6789"


def test_tiny_aya_cuts_as_the_published_regexes_do():
    generator, ours, published = random.Random(1), cutter(PRE_TOKENIZERS["tiny_aya"].regexes), cutter(TINY_AYA)
    for _ in range(3000):
        text = "".join(generator.choice(ALPHABET) for _ in range(generator.randrange(1, 16)))
        assert ours(text) == published(text), text


def test_tiny_aya_takes_about_linear_time():
    """Not timed: the published regex would take minutes."""
    cut = cutter(PRE_TOKENIZERS["tiny_aya"].regexes)
    assert [len(cut(text)) for text in ("1" * 100_000, "1" * 100_000 + "a")] == [33_334, 33_335]

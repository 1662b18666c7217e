"""How a byte-level BPE vocabulary cuts text into words before merging: `tokenizer.ggml.pre` to regular expressions.

The regexes are those of the models' published `tokenizer.json` files, in Oniguruma's spelling. They are applied one after
the other, each to the words that the one before it left; no merge crosses the edge of a word.
"""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.errors import TokenizerError

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_HEAD = r"[^\r\n\p{L}\p{N}]?"
_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_MARKS_SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"

_LLAMA3 = _CONTRACTION + "|" + _WORD + r"|\p{N}{1,3}" + _MARKS + _SPACES
_QWEN2 = _CONTRACTION + "|" + _WORD + r"|\p{N}" + _MARKS + _SPACES
_QWEN35 = _CONTRACTION + "|" + _HEAD + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4O = (
    f"{_HEAD}[{_UPPER}]*[{_LOWER}]+{_CONTRACTION}?|{_HEAD}[{_UPPER}]+[{_LOWER}]*{_CONTRACTION}?"
    + r"|\p{N}{1,3}"
    + _MARKS_SLASH
    + _SPACES
)
_TEKKEN = f"{_HEAD}[{_UPPER}]*[{_LOWER}]+|{_HEAD}[{_UPPER}]+[{_LOWER}]*" + r"|\p{N}" + _MARKS_SLASH + _SPACES
_KIMI_UPPER, _KIMI_LOWER = (rf"[[{case}]&&[^\p{{Han}}]]" for case in (_UPPER, _LOWER))
_KIMI = (
    rf"[\p{{Han}}]+|{_HEAD}{_KIMI_UPPER}*{_KIMI_LOWER}+{_CONTRACTION}?|{_HEAD}{_KIMI_UPPER}+{_KIMI_LOWER}*{_CONTRACTION}?"
    + r"|\p{N}{1,3}"
    + _MARKS
    + _SPACES
)
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_EXAONE_MOE = (
    _CONTRACTION + "|" + _HEAD + r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED_CODER = _CONTRACTION + "|" + _WORD + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + _SPACES
_LLAMA3_LONG_NUMBERS = _CONTRACTION + "|" + _WORD + r"|\p{N}+" + _MARKS + _SPACES
# r"\d{1,3}(?=(?:\d{3})*\b)" in the original, which looks to the end of a number from each of its digits: the numbers first that
# end at the edge of a word, then the one or two digits in front of their threes; the regex behind it cuts the threes
_THREES_FROM_THE_RIGHT = (r"(?<!\d)\d++\b", r"\A\d{1,2}(?=(?:\d{3})++\z)")
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"
_PUNCTUATION_FALCON = r"[\p{P}\$\+<=>\^~\|`]+"
_THREE_DIGITS = "[0-9][0-9][0-9]"

_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*""" + _SPACES,
)
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-"
    "\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18"
    "-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-"
    "\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-"
    "\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-"
    "\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-"
    "\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_PUNCTUATION = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"
_DEEPSEEK_CJK = "\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff"
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", f"[{_DEEPSEEK_CJK}]+", r"\p{N}")
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_DEEPSEEK_LETTERS}]+",
    rf"\s?[{_DEEPSEEK_PUNCTUATION}]+",
    r"(?<!\s)\s+$",  # `\s+$` in the original: the look-behind changes no match and makes long runs of spaces linear
    f"[{_DEEPSEEK_CJK}]+",
    r"\p{N}+",
)


@dataclass(frozen=True)
class PreTokenizer:
    """Regexes in the order of their use; `whole_words`: a word that is in the vocabulary is taken without merging."""

    regexes: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_KINDS: dict[str, PreTokenizer] = {
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": PreTokenizer(
        (_LLAMA3,), whole_words=True, add_bos=True
    ),
    "glm4 glm5": PreTokenizer((_LLAMA3,), whole_words=True),
    "dbrx smaug-bpe chatglm-bpe": PreTokenizer((_LLAMA3,)),
    "qwen2 deepseek-r1-qwen stablelm2 megrez kormo hunyuan solar-open grok-2": PreTokenizer((_QWEN2,)),
    "qwen35": PreTokenizer((_QWEN35,)),
    "gpt-4o llama4 kanana2 minimax-m2": PreTokenizer((_GPT4O,)),
    "tiny_aya cohere2moe": PreTokenizer((*_THREES_FROM_THE_RIGHT, _GPT4O)),
    "tekken": PreTokenizer((_TEKKEN,), whole_words=True, add_bos=True),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer(_DEEPSEEK3),
    "deepseek-llm": PreTokenizer(_DEEPSEEK_LLM),
    "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
    "kimi-k2": PreTokenizer((_KIMI,)),
    "gpt-2 phi-2 mpt olmo jais exaone4 a.x-4.0 mellum modern-bert granite-docling trillion gigachat": PreTokenizer((_GPT2,)),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": PreTokenizer((r"\p{N}", _GPT2)),
    "falcon": PreTokenizer((_PUNCTUATION_FALCON, _GPT2, _THREE_DIGITS)),
    "bailingmoe bailingmoe2 llada-moe": PreTokenizer((_BAILING,)),
    "seed-coder": PreTokenizer((_SEED_CODER,)),
    "exaone-moe": PreTokenizer((_EXAONE_MOE,)),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", _LLAMA3_LONG_NUMBERS), whole_words=True),
    "default": PreTokenizer((_PUNCTUATION, _GPT2, r"\p{N}+", _THREE_DIGITS)),
}
PRE_TOKENIZERS: dict[str, PreTokenizer] = {name: kind for names, kind in _KINDS.items() for name in names.split()}


def pre_tokenizer(name: str | None) -> PreTokenizer:
    """The pre-tokenizer of `tokenizer.ggml.pre`; files without that key use "default". TokenizerError if unknown."""
    found = PRE_TOKENIZERS.get(name or "default")
    if found is None:
        raise TokenizerError(
            f"pre-tokenizer {name!r} (tokenizer.ggml.pre) is not supported, and a guess would give wrong token ids; "
            f"known are {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    return found

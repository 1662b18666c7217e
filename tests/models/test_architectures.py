"""Every dense architecture, from both formats, against the golden values of transformers."""

import pytest

from tests import mixtures
from tests.checkpoints import GOLDEN, ONLY_HUGGINGFACE
from tests.models.golden import check_golden

DENSE = [
    (name, format)
    for name in GOLDEN
    for format in ("gguf", "huggingface")
    if name not in mixtures.CASES and (format == "huggingface" or name not in ONLY_HUGGINGFACE)
]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("name", "format"), DENSE)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, format, backend, tmp_path):
    check_golden(name, format, backend, tmp_path)

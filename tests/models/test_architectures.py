"""Every dense architecture, from both formats, against the golden values of transformers."""

import pytest

from tests import mixtures
from tests.checkpoints import GOLDEN
from tests.models.golden import check_golden


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("format", ["gguf", "huggingface"])
@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in mixtures.CASES])
def test_logits_and_greedy_tokens_are_those_of_transformers(name, format, backend, tmp_path):
    check_golden(name, format, backend, tmp_path)

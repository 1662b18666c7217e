"""Every mixture of experts and every variant of a router, from all stored forms, against the golden values of transformers."""

import pytest

from tests import mixtures
from tests.models.golden import check_golden

FORMATS = [(name, "huggingface") for name in mixtures.CASES]
FORMATS += [(name, "gguf") for name in mixtures.CASES if name not in mixtures.ONLY_HUGGINGFACE]
FORMATS += [(name, "gguf-naive") for name, form in FORMATS if form == "gguf" and "kv_lora_rank" in mixtures.CASES[name]]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("name", "format"), FORMATS)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, format, backend, tmp_path):
    check_golden(name, format, backend, tmp_path)

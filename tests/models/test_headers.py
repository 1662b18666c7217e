"""Every case opens from its headers alone, as before a model is fetched: the data behind them is cut off."""

from dataclasses import replace
from pathlib import Path

import pytest

from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests import mixtures
from tests.checkpoints import GOLDEN, ONLY_HUGGINGFACE, tiny


def cut(path: Path) -> Path:
    """The same checkpoint without the values of any tensor."""
    checkpoint = open_checkpoint(path)
    for file in checkpoint.files:
        starts = [part.offset for tensor in checkpoint.tensors.values() for part in tensor.ranges if part.path == file]
        data = file.read_bytes()
        file.write_bytes(data[: min(starts, default=len(data))])
    return path


@pytest.mark.parametrize("format", ["gguf", "huggingface"])
def test_every_case_opens_with_headers_only(format, tmp_path):
    for name in GOLDEN:
        if format == "gguf" and name in {*ONLY_HUGGINGFACE, *mixtures.ONLY_HUGGINGFACE}:
            continue
        path = tiny(name, format, tmp_path)
        whole = open_model(open_checkpoint(path))
        spec = open_model(open_checkpoint(cut(path), whole=False))
        assert spec.sizes == whole.sizes, name
        # numbers that stand as weights are unknown
        ropes = {"rope": whole.config.rope, "local_rope": whole.config.local_rope}
        assert replace(spec.config, xielu=whole.config.xielu, **ropes) == whole.config, name

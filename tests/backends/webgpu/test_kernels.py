"""The loader of kernels: a name stands for one file, wherever it is."""

from __future__ import annotations

import pytest

from lacewing.backends.webgpu.kernels import kernel_files


def test_kernels_are_found_by_name(tmp_path):
    for folder in ("gemv", "quants"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gemv" / "product.wgsl").write_text("// a kernel")
    (tmp_path / "quants" / "q4.wgsl").write_text("// another")
    assert kernel_files(tmp_path) == {
        "product.wgsl": tmp_path / "gemv" / "product.wgsl",
        "q4.wgsl": tmp_path / "quants" / "q4.wgsl",
    }


def test_two_kernels_of_one_name_are_refused(tmp_path):
    for folder in ("gemv", "gemm"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "product.wgsl").write_text("// a kernel")
    with pytest.raises(ValueError, match=r"two kernels are named product\.wgsl"):
        kernel_files(tmp_path)

"""What LLVM makes of the kernels: the instructions that their speed rests on."""

import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from lacewing.backends.cpu import isa

TOOL = Path(__file__).parents[4] / "tools" / "show_assembly.py"
SDOT = """
declare <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>, <16 x i8>, <16 x i8>)
define <4 x i32> @f(<4 x i32> %a, <16 x i8> %b, <16 x i8> %c) {
  %r = call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32> %a, <16 x i8> %b, <16 x i8> %c)
  ret <4 x i32> %r
}
"""


def assembly(kernel: str, name: str) -> str:
    command = [sys.executable, str(TOOL), kernel, "--isa", name]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(("name", "instruction"), [("avx512", "vpdpbusd"), ("avx2vnni", "vpdpbusd"), ("avx2", "vpmaddubsw")])
def test_dot_kernels_use_the_byte_products_of_their_instruction_set(name, instruction):
    if name not in [each.name for each in isa.supported()]:
        pytest.skip(f"this CPU has no {name}")
    assert assembly("gemm.dot.offset32", name).count(instruction) >= 8


@pytest.mark.parametrize(("name", "instruction"), [("avx512", "vpdpbusd"), ("avx2vnni", "vpdpbusd"), ("avx2", "vpmaddubsw")])
@pytest.mark.parametrize("kernel", ["gemv.gemv_k.gemv_q6_k", "gemv.gemv_32.gemv_q8_0"])
def test_kernels_for_one_token_use_them_too(name, instruction, kernel):
    if name not in [each.name for each in isa.supported()]:
        pytest.skip(f"this CPU has no {name}")
    assert assembly(kernel, name).count(instruction) >= 8


def test_transpositions_become_interleaves_on_arm():
    text = assembly("quants.unpack_32.unpack_q4_0", "neon")
    assert "zip1" in text and "fcvtl" in text


def test_the_arm_byte_product_is_one_instruction():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(isa.NEON.foreign_triple).create_target_machine(cpu=isa.NEON.foreign_cpu, opt=3)
    module = llvm.parse_assembly(SDOT)
    module.triple = machine.triple
    assert "sdot" in machine.emit_assembly(module)

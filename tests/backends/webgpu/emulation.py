"""Matrix units in plain WGSL, since no software adapter has them: a kernel's matrix types, loads, products and stores are replaced.

A matrix that a load makes is the place that it is loaded from, in a kernel whose workgroup memory does not change before it is
multiplied. A thread of 32 has eight of the 256 sums of a square. Everything else of the kernel runs as it is.
"""

from __future__ import annotations

import re
from typing import Any

from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.device.variant import Units
from tests.backends.webgpu.parser import parser

_NUMBERS = r"<f(?:16|32), 16, 16>"
_DECLARED = """
struct Operand { at: u32, pitch: u32, step: u32 }  // to the next row (on the right: column); to the next number
struct Sums { each: array<f32, 8> }
fn halves_of(word: u32) -> vec2<f16> { return vec2<f16>(unpack2x16float(word)); }  // naga has no such bitcast
fn multiplied(a: Operand, b: Operand, c: Sums, index: u32) -> Sums {
  var y = c;
  for (var e = 0u; e < 8u; e++) {
    let number = index % 32u * 8u + e;
    for (var k = 0u; k < 16u; k++) {
      y.each[e] += f32(tile[a.at + number / 16u * a.pitch + k]) * f32(tile[b.at + number % 16u * b.pitch + k * b.step]);
    }
  }
  return y;
}
fn keep_square(at: u32, c: Sums, index: u32) {
  for (var e = 0u; e < 8u; e++) { sums[at + index % 32u * 8u + e] = c.each[e]; }
}
"""
_AS_IT_IS = rf"subgroupMatrixLoad<subgroup_matrix_right{_NUMBERS}>\(&tile, (.*), false, (\d+u)\);"
_REPLACED = (
    (r"enable chromium_experimental_subgroup_matrix;", ""),
    (r", @builtin\(subgroup_id\) subgroup: u32", ""),
    (r"= subgroup;", "= index / 32u;"),
    (rf"subgroupMatrixLoad<subgroup_matrix_left{_NUMBERS}>\(&tile, (.*), false, (\d+u)\);", r"Operand(\1, \2, 1u);"),
    (rf"subgroupMatrixLoad<subgroup_matrix_right{_NUMBERS}>\(&tile, (.*), true, (\d+u)\);", r"Operand(\1, \2, 1u);"),
    (r"subgroupMatrixMultiplyAccumulate\((\w+), (\w+), (\w+)\)", r"multiplied(\1, \2, \3, index)"),
    (r"subgroupMatrixStore\(&sums, (.*), (\w+), false, 16u\);", r"keep_square(\1, \2, index);"),
    (rf"subgroup_matrix_result{_NUMBERS}", "Sums"),
    (r"bitcast<vec2<f16>>\(", "halves_of("),
    (r"@compute", _DECLARED + "@compute"),
)


def emulated(code: str) -> str:
    """The kernel without matrix units. Raises AssertionError where something of them is left."""
    if "subgroup_matrix" not in code:
        return code
    code = re.sub(_AS_IT_IS, r"Operand(\1, 1u, \2);", code)  # only products of attention have such
    for pattern, text in _REPLACED:
        code, count = re.subn(pattern, text, code)
        assert count, f"the kernel has no {pattern}"
    assert "subgroupMatrix" not in code and "subgroup_matrix" not in code
    return code


class EmulatedUnits(Device):
    """A device that is said to have matrix units. What its kernels are with them, Dawn's compiler takes."""

    def __init__(self, adapter: Any, units: Units):
        self._emulated = units
        super().__init__(adapter, checked=True)

    def _units(self, lanes: int) -> Units | None:
        return self._emulated

    def _compile(self, code: str, label: str) -> Any:
        if "subgroup_matrix" in code:
            parser().check(code, label)
        return super()._compile(emulated(code), label)

"""Matrix units in plain WGSL, since no software adapter has them: a kernel's matrix types, loads, products and stores are replaced.

A thread of 32 has eight of the 256 sums of a square, and of a matrix on the left the row that they need. A matrix on the right is
the place that it is loaded from: workgroup memory does not change before it is multiplied. Everything else runs as it is.
"""

from __future__ import annotations

import re
from typing import Any

from lacewing.backends.webgpu.device.device import Device
from lacewing.backends.webgpu.device.variant import Units
from tests.backends.webgpu.parser import parser

_NUMBERS = r"<f(?:16|32), 16, 16>"
_DECLARED = """
struct Left { each: array<f32, 16> }
struct Right { at: u32, pitch: u32, step: u32 }  // to the next column; to the next number
struct Sums { each: array<f32, 8> }
fn halves_of(word: u32) -> vec2<f16> { return vec2<f16>(unpack2x16float(word)); }  // naga has no such bitcast
fn left_at(at: u32, pitch: u32, index: u32) -> Left {
  var a: Left;
  for (var k = 0u; k < 16u; k++) { a.each[k] = f32(tile[at + index % 32u / 2u * pitch + k]); }
  return a;
}
fn multiplied(left: Left, b: Right, c: Sums, index: u32) -> Sums {
  var a = left;
  var y = c;
  for (var e = 0u; e < 8u; e++) {
    let number = index % 32u * 8u + e;
    for (var k = 0u; k < 16u; k++) {
      y.each[e] += a.each[k] * f32(tile[b.at + number % 16u * b.pitch + k * b.step]);
    }
  }
  return y;
}
fn square_place(at: u32, pitch: u32, index: u32) -> u32 { return at + index % 32u / 2u * pitch + index % 2u * 8u; }
fn keep_square(at: u32, pitch: u32, c: Sums, index: u32) {
  let first = square_place(at, pitch, index);
  for (var e = 0u; e < 8u; e++) { sums[first + e] = c.each[e]; }
}
fn square_at(at: u32, pitch: u32, index: u32) -> Sums {
  let first = square_place(at, pitch, index);
  var c: Sums;
  for (var e = 0u; e < 8u; e++) { c.each[e] = sums[first + e]; }
  return c;
}
"""
_EIGHT = " ".join(f"tile[at + {i}u] = halves_of(v.{'xyzw'[i // 2]}).{'xy'[i % 2]};" for i in range(8))
_OF_SOME = (
    (r"bitcast<vec2<f16>>\(", "halves_of("),
    (
        r"var<workgroup> memory: buffer<(\d+)>;",
        r"var<workgroup> tile: array<f16, \1 / 2>;\nvar<workgroup> sums: array<f32, \1 / 4>;",
    ),
    (r"let \w+ = bufferView<[^;]*;", ""),  # of memory that is never both at a time
    (r"\(\*sums\)", "sums"),
    (r"\(\*eights\)\[at >> 3u\] = v;", _EIGHT),
    (r"bitcast<u32>\(two\)", "pack2x16float(vec2<f32>(two))"),
    (r"\((tile|sums), ", r"(&\1, "),
    (rf"subgroupMatrixLoad<subgroup_matrix_right{_NUMBERS}>\(&tile, (.*), false, (\d+u)\);", r"Right(\1, 1u, \2);"),
    (rf"subgroupMatrixLoad<subgroup_matrix_result{_NUMBERS}>\(&sums, (.*), false, (\d+u)\);", r"square_at(\1, \2, index);"),
)
_REPLACED = (
    (r"enable chromium_experimental_subgroup_matrix;", ""),
    (r", @builtin\(subgroup_id\) subgroup: u32", ""),
    (r"= subgroup;", "= index / 32u;"),
    (rf"subgroupMatrixLoad<subgroup_matrix_left{_NUMBERS}>\(&tile, (.*), false, (\d+u)\);", r"left_at(\1, \2, index);"),
    (rf"subgroupMatrixLoad<subgroup_matrix_right{_NUMBERS}>\(&tile, (.*), true, (\d+u)\);", r"Right(\1, \2, 1u);"),
    (r"subgroupMatrixMultiplyAccumulate\((\w+), (\w+), (\w+)\)", r"multiplied(\1, \2, \3, index)"),
    (r"subgroupMatrixStore\(&sums, (.*), (\w+), false, (\d+u)\);", r"keep_square(\1, \3, \2, index);"),
    (rf"subgroup_matrix_result{_NUMBERS}", "Sums"),
    (r"@compute", _DECLARED + "@compute"),
)


_BYTES = {"f16": 2, "f32": 4, "u32": 4, "bool": 4}


def _bytes_of(kind: str, structs: dict[str, str]) -> int:
    """Of a WGSL type without gaps."""
    kind = kind.strip()
    if kind in _BYTES:
        return _BYTES[kind]
    if kind in structs:
        return sum(_bytes_of(field.split(":")[1], structs) for field in structs[kind].split(","))
    name, inside = kind.rstrip(">").split("<", 1)
    if name in ("atomic", "vec2", "vec4"):
        return _bytes_of(inside.rstrip(">"), structs) * {"atomic": 1, "vec2": 2, "vec4": 4}[name]
    if name == "buffer":
        return int(inside)
    assert name == "array", f"what size has {kind}?"
    each, count = kind[len("array<") : -1].rsplit(",", 1)
    return _bytes_of(each, structs) * int(count)


def check_places(code: str) -> None:
    """Raises AssertionError for a variable of workgroup memory behind which a matrix would begin at no multiple of 16 bytes.

    An H200 then reads or writes another place, and says nothing.
    """
    structs = dict(re.findall(r"struct (\w+) \{([^}]*)\}", code))
    for name, kind in re.findall(r"var<workgroup> (\w+): ([^;]*);", code):
        nbytes = _bytes_of(kind, structs)
        assert nbytes % 16 == 0, f"{name} has {nbytes} bytes, no multiple of 16"


def emulated(code: str) -> str:
    """The kernel without matrix units. Raises AssertionError where something of them is left."""
    if "subgroup_matrix" not in code:
        return code
    check_places(code)
    for pattern, text in _OF_SOME:
        code = re.sub(pattern, text, code)
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

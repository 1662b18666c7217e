// Cuts a checkpoint's blocks into the planes of `layouts.py`. One thread a run of 8 groups, 256 values.
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read> job: array<u32>;  // first run of this part, runs in it, groups of the whole matrix
{% for plane in layout.planes %}
@group(0) @binding({{ 2 + loop.index0 }}) var<storage, read_write> {{ plane.name }}: array<u32>;
{% endfor %}

// 8, 16 and 32 bits from byte `at` on; a word beyond the last byte may be loaded, `staging.py` has room for it
fn byte(at: u32) -> u32 { return (source[at >> 2u] >> ((at & 3u) * 8u)) & 0xFFu; }
fn word(at: u32) -> u32 {
  let shift = (at & 3u) * 8u;
  let low = source[at >> 2u];
  let high = source[(at >> 2u) + 1u];
  return select((low >> shift) | (high << (32u - max(shift, 1u))), low, shift == 0u);
}
fn half(at: u32) -> u32 { return word(at) & 0xFFFFu; }

// four bytes with the low nibbles of one word and the high ones of another
fn nibble_word(low: u32, low_shift: u32, high: u32, high_shift: u32) -> u32 {
  return ((low >> low_shift) & 0x0F0F0F0Fu) | (((high >> high_shift) & 0x0F0F0F0Fu) << 4u);
}

// the two bits at `shift` of each of 16 bytes, as `pairs` has them
fn pair_word(at: u32, shift: u32) -> u32 {
  var all = 0u;
  for (var w = 0u; w < 4u; w++) { all |= ((word(at + w * 4u) >> shift) & 0x03030303u) << (w * 2u); }
  return all;
}

// bit `shift` of each of 32 bytes, as `bits` has them
fn bit_word(at: u32, shift: u32) -> u32 {
  var all = 0u;
  for (var w = 0u; w < 8u; w++) { all |= ((word(at + w * 4u) >> shift) & 0x01010101u) << w; }
  return all;
}

// the same of a word whose bit i is of value i
fn spread_bits(ordered: u32) -> u32 {
  var all = 0u;
  for (var i = 0u; i < 32u; i++) { all |= ((ordered >> i) & 1u) << ((i & 3u) * 8u + (i >> 2u)); }
  return all;
}

// a word in which 16 or 8 bits, number i of them, are replaced
fn with_half(old: u32, i: u32, value: u32) -> u32 {
  let shift = (i & 1u) * 16u;
  return (old & ~(0xFFFFu << shift)) | (value << shift);
}

fn with_byte(old: u32, i: u32, value: u32) -> u32 {
  let shift = (i & 3u) * 8u;
  return (old & ~(0xFFu << shift)) | (value << shift);
}

{% set pack = true %}
{% include layout.kernel %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
  let run = id.x + id.y * grid.x * 64u;
  if (run >= job[1]) { return; }
  for (var i = 0u; i < 8u; i++) {
    let group = (job[0] + run) * 8u + i;
    if (group < job[2]) { pack_group(run, i, group); }
  }
}

// 32 four-bit floats in 17 bytes: a power of two, then nibbles as in Q4_0; value = 2^(e - 128) * doubled float.
// `fine` holds a byte a group, the exponent of that power as a float32 has it; 2^-127 and 2^-128 count as 0.
{% include "e2m1.wgsl" %}

{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 17u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = kept_floats(word(at + 1u + w * 4u)); }
  fine[group >> 2u] = with_byte(fine[group >> 2u], group, max(byte(at), 1u) - 1u);
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let sizes = sizes_of(q);
  let d = bitcast<f32>(byte_of(packed.fine, group) << 23u);
  return Group(low_floats(q, sizes), high_floats(q, sizes), vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}

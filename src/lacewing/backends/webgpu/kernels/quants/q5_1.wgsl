// 32 values in 24 bytes: float16 scale and minimum, 32 fifth bits, nibbles as in Q4_0; value = d * code + m
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 24u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 8u + w * 4u); }
  bits[group] = spread_bits(word(at + 4u));
  coarse[group] = word(at);
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let h = packed.bits;
  let dm = unpack2x16float(packed.coarse);
  return Group(low_nibbles(q) | fifth_a(h), high_nibbles(q) | fifth_b(h), vec2<f32>(dm.x), vec2<f32>(-dm.y));
}
{% endif %}

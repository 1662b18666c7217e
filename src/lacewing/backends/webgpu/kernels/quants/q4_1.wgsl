// 32 values in 20 bytes: float16 scale and minimum, then nibbles as in Q4_0; value = d * code + m
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 20u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 4u + w * 4u); }
  coarse[group] = word(at);
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let dm = unpack2x16float(packed.coarse);
  return Group(low_nibbles(q), high_nibbles(q), vec2<f32>(dm.x), vec2<f32>(-dm.y));
}
{% endif %}

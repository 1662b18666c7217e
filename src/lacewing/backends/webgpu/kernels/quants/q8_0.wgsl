// 32 values in 34 bytes: a float16 scale, then signed bytes; of a run first the first 16 values of each group, then the others
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let start = (run * 8u + i) * 34u;
  let at = (group & ~7u) * 8u + (group & 7u) * 4u;
  for (var w = 0u; w < 8u; w++) { bytes[at + (w >> 2u) * 32u + (w & 3u)] = word(start + 2u + w * 4u); }
  coarse[group >> 1u] = with_half(coarse[group >> 1u], group, half(start));
}
{% else %}
fn group_of(packed: Packed, group: u32) -> Group {
  let d = float_of(packed.coarse, group);
  return Group(packed.bytes[0], packed.bytes[1], vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}

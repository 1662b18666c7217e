// 32 values in 18 bytes: a float16 scale, then nibbles, value i and 16 + i in byte i; value = d * (code - 8)
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 18u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 2u + w * 4u); }
  let shift = (group & 1u) * 16u;
  coarse[group >> 1u] = (coarse[group >> 1u] & (0xFFFF0000u >> shift)) | (half(at) << shift);
}
{% else %}
fn load_group(group: u32) -> Group {
  let q = nibbles[group];
  let d = unpack2x16float(coarse[group >> 1u] >> ((group & 1u) * 16u)).x;
  return Group(q & vec4<u32>(0x0F0F0F0Fu), (q >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu), vec2<f32>(d), vec2<f32>(8.0 * d));
}
{% endif %}

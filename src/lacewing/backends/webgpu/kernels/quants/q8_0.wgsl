// 32 values in 34 bytes: a float16 scale, then signed bytes
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 34u;
  for (var w = 0u; w < 8u; w++) { bytes[group * 8u + w] = word(at + 2u + w * 4u); }
  let shift = (group & 1u) * 16u;
  coarse[group >> 1u] = (coarse[group >> 1u] & (0xFFFF0000u >> shift)) | (half(at) << shift);
}
{% else %}
fn load_group(group: u32) -> Group {
  let d = unpack2x16float(coarse[group >> 1u] >> ((group & 1u) * 16u)).x;
  return Group(bytes[group * 2u], bytes[group * 2u + 1u], vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}

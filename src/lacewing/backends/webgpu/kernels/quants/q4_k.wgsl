// 256 values in 144 bytes: float16 d and dmin, 12 bytes of 6-bit scales and minimums, nibbles 64 values at a time.
// value = d * scale * code - dmin * minimum. `fine` holds scale and minimum of a group as bytes, `coarse` d and dmin.
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 144u;
  let codes = at + 16u + (i >> 1u) * 32u;
  let shift = (i & 1u) * 4u;
  for (var w = 0u; w < 4u; w++) {
    nibbles[group * 4u + w] = nibble_word(word(codes + w * 4u), shift, word(codes + 16u + w * 4u), shift);
  }
  var scale: u32;
  var least: u32;
  if (i < 4u) {
    scale = byte(at + 4u + i) & 63u;
    least = byte(at + 8u + i) & 63u;
  } else {
    let last = byte(at + 8u + i);
    scale = (last & 15u) | ((byte(at + i) >> 6u) << 4u);
    least = (last >> 4u) | ((byte(at + 4u + i) >> 6u) << 4u);
  }
  let half_shift = (group & 1u) * 16u;
  fine[group >> 1u] = (fine[group >> 1u] & (0xFFFF0000u >> half_shift)) | ((scale | (least << 8u)) << half_shift);
  coarse[group >> 3u] = word(at);
}
{% else %}
fn load_group(group: u32) -> Group {
  let q = nibbles[group];
  let sm = fine[group >> 1u] >> ((group & 1u) * 16u);
  let d = unpack2x16float(coarse[group >> 3u]);
  return Group(q & vec4<u32>(0x0F0F0F0Fu), (q >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu),
    vec2<f32>(d.x * f32(sm & 0xFFu)), vec2<f32>(d.y * f32((sm >> 8u) & 0xFFu)));
}
{% endif %}

// 256 values in 210 bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed scales (one for 16 values), a float16 d.
// value = d * scale * (code - 32). `fine` holds the two scales of a group, `coarse` d.
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 210u;
  let low = at + (i >> 2u) * 64u + (i & 1u) * 32u;
  let high = at + 128u + (i >> 2u) * 32u;
  let low_shift = ((i >> 1u) & 1u) * 4u;
  let high_shift = (i & 3u) * 2u;
  for (var w = 0u; w < 4u; w++) {
    nibbles[group * 4u + w] = nibble_word(word(low + w * 4u), low_shift, word(low + 16u + w * 4u), low_shift);
  }
  for (var h = 0u; h < 2u; h++) {
    var all = 0u;
    for (var w = 0u; w < 4u; w++) {
      all |= ((word(high + h * 16u + w * 4u) >> high_shift) & 0x03030303u) << (w * 2u);
    }
    pairs[group * 2u + h] = all;
  }
  let shift = (group & 1u) * 16u;
  fine[group >> 1u] = (fine[group >> 1u] & (0xFFFF0000u >> shift)) | (half(at + 192u + i * 2u) << shift);
  coarse[group >> 3u] = half(at + 208u);
}
{% else %}
fn load_group(group: u32) -> Group {
  let q = nibbles[group];
  let p = pairs[group];
  let steps = vec4<u32>(0u, 2u, 4u, 6u);
  let scales = bitcast<i32>(fine[group >> 1u] << ((1u - (group & 1u)) * 16u));
  let d = unpack2x16float(coarse[group >> 3u]).x;
  let scale = d * vec2<f32>(f32((scales << 8u) >> 24u), f32(scales >> 24u));
  return Group(
    (q & vec4<u32>(0x0F0F0F0Fu)) | (((vec4<u32>(p.x) >> steps) & vec4<u32>(0x03030303u)) << vec4<u32>(4u)),
    ((q >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu)) | (((vec4<u32>(p.y) >> steps) & vec4<u32>(0x03030303u)) << vec4<u32>(4u)),
    scale, 32.0 * scale);
}
{% endif %}

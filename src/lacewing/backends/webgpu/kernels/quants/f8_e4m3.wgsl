// 32 floats of eight bits and the factor that they share, a float32, put together on the host (`conversion.py`): 36 bytes.
// `bytes` as in Q8_0. Sign, exponent and fraction at their places in a float16 give 2^-8 of the value; the factor makes up for it.
// A byte that is no number (0x7F, 0xFF) makes the factor of its group none.
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let start = (run * 8u + i) * 9u;
  let at = (group & ~7u) * 8u + (group & 7u) * 4u;
  var factor = bitcast<u32>(bitcast<f32>(source[start]) * 256.0);
  for (var w = 0u; w < 8u; w++) {
    let four = source[start + 1u + w];
    bytes[at + (w >> 2u) * 32u + (w & 3u)] = four;
    if ((((four & 0x7F7F7F7Fu) + 0x01010101u) & 0x80808080u) != 0u) { factor = 0x7FC00000u; }
  }
  coarse[group] = factor;
}
{% else %}
fn two_floats(w: u32) -> vec2<f32> {  // of bytes 0 and 2
  return unpack2x16float(((w & 0x00800080u) << 8u) | ((w & 0x007F007Fu) << 7u));
}

fn four_floats(w: u32, factor: f32) -> vec4<f32> {
  let even = two_floats(w);
  let odd = two_floats(w >> 8u);
  return vec4<f32>(even.x, odd.x, even.y, odd.y) * factor;
}

fn load_floats(group: u32) -> array<vec4<f32>, 8> {
  let at = group + (group & ~7u);
  let a = bytes[at];
  let b = bytes[at + 8u];
  let f = bitcast<f32>(coarse[group]);
  return array<vec4<f32>, 8>(
    four_floats(a.x, f), four_floats(a.y, f), four_floats(a.z, f), four_floats(a.w, f),
    four_floats(b.x, f), four_floats(b.y, f), four_floats(b.z, f), four_floats(b.w, f));
}
{% endif %}

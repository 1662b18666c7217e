// 32 floats of eight bits and the factor that they share, a float32, put together on the host (`conversion.py`): 36 bytes.
// `bytes` holds them value after value. Sign, exponent and fraction at their places in a float16 give 2^-8 of the value; the factor makes up for it.
// A byte that is no number (0x7F, 0xFF) makes the factor of its group none.
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let start = (run * 8u + i) * 9u;
  var factor = bitcast<u32>(bitcast<f32>(source[start]) * 256.0);
  for (var w = 0u; w < 8u; w++) {
    let four = source[start + 1u + w];
    bytes[group * 8u + w] = four;
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

fn load_eight(at: u32) -> Eight {
  let q = bytes[at];
  let factor = bitcast<f32>(coarse[at >> 2u]);
  return Eight(four_floats(q.x, factor), four_floats(q.y, factor));
}
{% endif %}

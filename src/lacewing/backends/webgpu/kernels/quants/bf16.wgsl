// floats as they stand in the checkpoint, two values a word: the upper halves of float32
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  for (var w = 0u; w < 16u; w++) { floats[group * 16u + w] = source[(run * 8u + i) * 16u + w]; }
}
{% else %}
fn four_floats(a: u32, b: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xFFFF0000u, b << 16u, b & 0xFFFF0000u));
}

fn load_eight(at: u32) -> Eight {
  let q = floats[at];
  return Eight(four_floats(q.x, q.y), four_floats(q.z, q.w));
}
{% endif %}

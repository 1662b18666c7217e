// floats as they stand in the checkpoint; of a run first the first eight values of each group, then the next eight, and so on
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (group & ~7u) * 16u + (group & 7u) * 4u;
  for (var w = 0u; w < 16u; w++) { floats[at + (w >> 2u) * 32u + (w & 3u)] = source[(run * 8u + i) * 16u + w]; }
}
{% else %}
// bfloat16 is the upper half of a float32
fn two(a: u32, b: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xFFFF0000u, b << 16u, b & 0xFFFF0000u));
}

fn load_floats(group: u32) -> array<vec4<f32>, 8> {
  let at = (group & ~7u) * 4u + (group & 7u);
  let q = array<vec4<u32>, 4>(floats[at], floats[at + 8u], floats[at + 16u], floats[at + 24u]);
  return array<vec4<f32>, 8>(
    two(q[0].x, q[0].y), two(q[0].z, q[0].w), two(q[1].x, q[1].y), two(q[1].z, q[1].w),
    two(q[2].x, q[2].y), two(q[2].z, q[2].w), two(q[3].x, q[3].y), two(q[3].z, q[3].w));
}
{% endif %}

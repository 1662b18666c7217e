// floats as they stand in the checkpoint; of a run first the first four values of each group, then the next four, and so on
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (group & ~7u) * 32u + (group & 7u) * 4u;
  for (var w = 0u; w < 32u; w++) { floats[at + (w >> 2u) * 32u + (w & 3u)] = source[(run * 8u + i) * 32u + w]; }
}
{% else %}
fn load_floats(group: u32) -> array<vec4<f32>, 8> {
  let at = (group & ~7u) * 8u + (group & 7u);
  return array<vec4<f32>, 8>(
    bitcast<vec4<f32>>(floats[at]), bitcast<vec4<f32>>(floats[at + 8u]),
    bitcast<vec4<f32>>(floats[at + 16u]), bitcast<vec4<f32>>(floats[at + 24u]),
    bitcast<vec4<f32>>(floats[at + 32u]), bitcast<vec4<f32>>(floats[at + 40u]),
    bitcast<vec4<f32>>(floats[at + 48u]), bitcast<vec4<f32>>(floats[at + 56u]));
}
{% endif %}

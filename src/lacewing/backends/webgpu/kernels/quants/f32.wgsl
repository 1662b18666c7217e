// floats as they stand in the checkpoint, 32 words a group
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  for (var w = 0u; w < 32u; w++) { floats[group * 32u + w] = source[(run * 8u + i) * 32u + w]; }
}
{% else %}
fn load_floats(group: u32) -> array<vec4<f32>, 8> {
  let at = group * 8u;
  return array<vec4<f32>, 8>(
    bitcast<vec4<f32>>(floats[at]), bitcast<vec4<f32>>(floats[at + 1u]), bitcast<vec4<f32>>(floats[at + 2u]), bitcast<vec4<f32>>(floats[at + 3u]),
    bitcast<vec4<f32>>(floats[at + 4u]), bitcast<vec4<f32>>(floats[at + 5u]), bitcast<vec4<f32>>(floats[at + 6u]), bitcast<vec4<f32>>(floats[at + 7u]));
}
{% endif %}

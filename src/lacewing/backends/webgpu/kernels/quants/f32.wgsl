// floats as they stand in the checkpoint
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  for (var w = 0u; w < 32u; w++) { floats[group * 32u + w] = source[(run * 8u + i) * 32u + w]; }
}
{% else %}
fn load_eight(at: u32) -> Eight {
  return Eight(bitcast<vec4<f32>>(floats[at * 2u]), bitcast<vec4<f32>>(floats[at * 2u + 1u]));
}
{% endif %}

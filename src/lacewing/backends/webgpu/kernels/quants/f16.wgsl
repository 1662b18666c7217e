// floats as they stand in the checkpoint, two values a word
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  for (var w = 0u; w < 16u; w++) { floats[group * 16u + w] = source[(run * 8u + i) * 16u + w]; }
}
{% else %}
fn load_eight(at: u32) -> Eight {
  let q = floats[at];
  return Eight(vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)), vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w)));
}
{% endif %}

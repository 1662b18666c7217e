// Each stream plus a sum of all of them; a thread a column. Grid: width / 64, tokens.
{% include "altup.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  let values = routed(id.y);
  let x = {{ x.base }}u + id.y * {{ x.stride }}u + id.x;
  var old: array<f32, {{ count }}>;
  for (var i = 0u; i < {{ count }}u; i++) { old[i] = arena[x + i * {{ width }}u]; }
  for (var i = 0u; i < {{ count }}u; i++) {
    var v = old[i];
    for (var j = 0u; j < {{ count }}u; j++) { v += coefficient(i * {{ count }}u + j, values) * old[j]; }
    arena[x + i * {{ width }}u] = v;
  }
}

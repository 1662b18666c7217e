// Each stream moves with the active one; a thread a column. Grid: width / 64, tokens.
{% include "altup.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ width }}u) { return; }
  let values = routed(id.y);
  let x = {{ x.base }}u + id.y * {{ x.stride }}u + id.x;
  let change = arena[{{ new.base }}u + id.y * {{ new.stride }}u + id.x] - arena[x + {{ active * width }}u];
  for (var i = 0u; i < {{ count }}u; i++) { arena[x + i * {{ width }}u] += (1.0 + coefficient(i, values)) * change; }
}

// Copies what lies behind the inputs of each head, for many tokens. Grid: values / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let head = id.x / {{ rest }}u;
  if (head >= {{ heads }}u) { return; }
  let c = id.x % {{ rest }}u;
  arena[{{ out.base }}u + (id.y * {{ out.stride }}u) + (head * {{ outputs + rest }}u) + {{ outputs }}u + c] =
    arena[{{ x.base }}u + (id.y * {{ x.stride }}u) + (head * {{ columns + rest }}u) + {{ columns }}u + c];
}

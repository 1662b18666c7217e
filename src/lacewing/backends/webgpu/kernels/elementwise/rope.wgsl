// Turns pairs of each head by position * frequency, in place; one thread a pair. Grid: heads * pairs / 64, tokens.
{% set words = "f32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, read> frequencies: array<vec2<u32>>;

{% include "turn.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= {{ heads * pairs }}u) { return; }
  let pair = id.x % {{ pairs }}u;
  let head = {{ x.base }}u + id.y * {{ x.stride }}u + (id.x / {{ pairs }}u) * {{ width }}u + {{ start }}u;
  {% if adjacent %}
  let first = head + pair * 2u;
  let second = first + 1u;
  {% else %}
  let first = head + pair;
  let second = first + {{ pairs }}u;
  {% endif %}
  let turn = turned(position_of(id.y), frequencies[pair]) * {{ number(magnitude) }};
  let a = arena[first];
  let b = arena[second];
  arena[first] = a * turn.x - b * turn.y;
  arena[second] = a * turn.y + b * turn.x;
}

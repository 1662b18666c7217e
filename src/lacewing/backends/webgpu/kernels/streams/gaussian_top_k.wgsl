// What is above a quantile of the normal distribution of a row, less that. Grid: 1, tokens; a workgroup a token.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "workgroup_sum.wgsl" %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let x = {{ x.base }}u + group.y * {{ x.stride }}u;
  var sum = 0.0;
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) { sum += arena[x + i]; }
  let mean = workgroup_sum(lane, sum) / {{ number(width) }};
  var squares = 0.0;
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) { squares += (arena[x + i] - mean) * (arena[x + i] - mean); }
  workgroupBarrier();
  let least = mean + {{ number(cutoff) }} * sqrt(workgroup_sum(lane, squares) / {{ number(width) }});
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) {
    let v = arena[x + i] - least;
    arena[x + i] = select(v, 0.0, v < 0.0);  // unlike a maximum, a choice keeps NaN
  }
}

// x at the magnitude of another row. Grid: 1, tokens; a workgroup a token.
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "workgroup_sum.wgsl" %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let x = {{ x.base }}u + group.y * {{ x.stride }}u;
  let like = {{ like.base }}u + group.y * {{ like.stride }}u;
  var mine = 0.0;
  var theirs = 0.0;
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) {
    mine += arena[x + i] * arena[x + i];
    theirs += arena[like + i] * arena[like + i];
  }
  mine = workgroup_sum(lane, mine) / {{ number(width) }};
  workgroupBarrier();
  theirs = workgroup_sum(lane, theirs) / {{ number(width) }};
  let factor = sqrt(theirs / max(mine, {{ number(least) }}));
  for (var i = lane; i < {{ width }}u; i += {{ threads }}u) { arena[x + i] *= factor; }
}

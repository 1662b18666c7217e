// The largest of the parts becomes the next token of its row. Grid: tokens.
@group(0) @binding(0) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> step: array<u32>;

{% include "larger.wgsl" %}
{% include "next_token.wgsl" %}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let t = group.x;
  var mine = vec2<u32>(0xFF7FFFFFu, 0xFFFFFFFEu);
  for (var i = lane; i < {{ parts }}u; i += 256u) { mine = larger(mine, best[t * {{ parts }}u + i]); }
  let found = largest_of_all(mine, lane);
  if (lane == 0u) { feed_back(t, found.y); }
}

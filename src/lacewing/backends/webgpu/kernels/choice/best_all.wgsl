// The largest of the parts' largest, in their order. Grid: 1. `each` values a thread.
@group(0) @binding(0) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> chosen: array<vec2<u32>>;

var<private> lane_id: u32;

fn held(j: u32) -> vec2<u32> {
  let i = j * 256u + lane_id;
  if (i < {{ count }}u) { return best[i]; }
  return vec2<u32>(bitcast<u32>(-3.4028235e38), 0xFFFFFFFEu);
}
fn keep(place: u32, found: vec2<u32>) { chosen[place] = found; }

{% include "best_rounds.wgsl" %}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
  lane_id = lane;
  keep_largest(lane);
}

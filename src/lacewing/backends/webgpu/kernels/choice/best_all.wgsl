// The largest of every so many of a row's values, in their order: `count` values a row. Grid: runs of 256 * `each` values, rows.
@group(0) @binding(0) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> chosen: array<vec2<u32>>;

var<private> lane_id: u32;
var<private> run_of: vec2<u32>;  // which run of which row
var<private> runs: u32;

fn held(j: u32) -> vec2<u32> {
  let i = run_of.x * {{ each * 256 }}u + j * 256u + lane_id;
  if (i < {{ count }}u) { return best[run_of.y * {{ count }}u + i]; }
  return vec2<u32>(0xFF7FFFFFu, 0xFFFFFFFEu);
}
fn keep(place: u32, found: vec2<u32>) { chosen[(run_of.y * runs + run_of.x) * {{ wanted }}u + place] = found; }

{% include "best_rounds.wgsl" %}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  lane_id = lane;
  run_of = group.xy;
  runs = grid.x;
  keep_largest(lane);
}

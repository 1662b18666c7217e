// Draws one of the largest logits of each row, largest first, which becomes the row's next token. In float32: who draws in float64
// may find another one, and looks. Grid: tokens; a thread a candidate.
@group(0) @binding(0) var<storage, read> largest: array<vec2<u32>>;  // (row, wanted): value, id
@group(0) @binding(1) var<storage, read> draws: array<vec4<f32>>;    // (row, 2): count, top_p, log(min_p), 1 / temperature; number
@group(0) @binding(2) var<storage, read_write> step: array<u32>;

{% include "next_token.wgsl" %}

var<workgroup> sums: array<f32, {{ wanted }}>;
var<workgroup> counts: array<atomic<u32>, 4>;

// of this value and all before it
fn running_sum(i: u32, value: f32) -> f32 {
  workgroupBarrier();
  sums[i] = value;
  for (var n = 1u; n < {{ wanted }}u; n <<= 1u) {
    workgroupBarrier();
    let before = select(0.0, sums[max(i, n) - n], i >= n);
    workgroupBarrier();
    sums[i] += before;
  }
  workgroupBarrier();
  return sums[i];
}

// how many threads say so; each `which` once
fn count_of(which: u32, yes: bool) -> u32 {
  if (yes) { atomicAdd(&counts[which], 1u); }
  workgroupBarrier();
  return atomicLoad(&counts[which]);
}

@compute @workgroup_size({{ wanted }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
  let t = group.x;
  if (i < 4u) { atomicStore(&counts[i], 0u); }
  workgroupBarrier();
  let how = draws[t * 2u];
  let number = draws[t * 2u + 1u].x;
  let mine = largest[t * {{ wanted }}u + i];
  let value = bitcast<f32>(mine.x);
  let top = bitcast<f32>(largest[t * {{ wanted }}u].x);
  let there = f32(i) < how.x && mine.y < 0xFFFFFFFEu;
  let size = max(count_of(0u, there), 1u);
  let reached = running_sum(i, select(0.0, exp(value - top), there));
  let target_sum = how.y * sums[{{ wanted - 1 }}u];
  let likeliest = select(count_of(1u, there && reached < target_sum) + 1u, size, how.y >= 1.0);
  let likely = count_of(2u, there && value >= top + how.z);
  let kept = clamp(min(likeliest, likely), 1u, size);
  let weights = running_sum(i, select(0.0, exp((value - top) * how.w), there));
  let limit = number * sums[kept - 1u];
  let place = min(count_of(3u, there && weights <= limit), kept - 1u);
  if (i == 0u) { feed_back(t, largest[t * {{ wanted }}u + place].y); }
}

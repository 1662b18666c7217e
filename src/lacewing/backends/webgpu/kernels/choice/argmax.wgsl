// The largest logit of parts of each row: (value, id) a workgroup; the lowest id of equals. Grid: parts, rows.
// A NaN or an infinity makes the id of its part 0xFFFFFFFF.
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> best: array<vec2<u32>>;

{% include "larger.wgsl" %}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var mine = vec2<u32>(0xFF7FFFFFu, 0xFFFFFFFEu);
  let end = min((group.x + 1u) * {{ part }}u, {{ vocabulary }}u);
  for (var i = group.x * {{ part }}u + lane; i < end; i += 256u) {
    // by its bits: compilers may take comparisons with NaN away
    let bits = bitcast<u32>(logits[group.y * {{ vocabulary }}u + i]);
    mine = larger(mine, vec2<u32>(bits, select(i, 0xFFFFFFFFu, (bits & 0x7F800000u) == 0x7F800000u && bits != 0xFF800000u)));
  }
  let found = largest_of_all(mine, lane);
  if (lane == 0u) { best[group.y * {{ parts }}u + group.x] = found; }
}

// The largest of the parts becomes the step's next token, one position on. Grid: 1.
@group(0) @binding(0) var<storage, read> best: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> step: array<u32>;

{% include "larger.wgsl" %}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane: u32) {
  var mine = vec2<u32>(bitcast<u32>(-3.4028235e38), 0xFFFFFFFEu);
  for (var i = lane; i < {{ parts }}u; i += 256u) { mine = larger(mine, best[i]); }
  let found = largest_of_all(mine, lane);
  if (lane == 0u) {
    step[{{ chosen }}] = found.y;
    step[{{ header }}] = min(found.y, {{ vocabulary - 1 }}u);
    step[{{ header + 2 * chunk }}] += 1u;
  }
}

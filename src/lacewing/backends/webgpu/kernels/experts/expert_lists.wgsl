// Sorts the (token, active expert) pairs of a run by expert, for kernels that take some of one expert at a time. One workgroup.
// The list: the number of tiles, the expert, first pair and number of pairs of each tile, then the pairs t * active + a.
{% set words = "u32" %}
{% include "step.wgsl" %}
{% set each = (experts + threads - 1) // threads %}

var<workgroup> counts: array<atomic<u32>, {{ each * threads }}>;
var<workgroup> before: array<vec2<u32>, {{ threads }}>;  // pairs and tiles of the experts of a thread and all threads before it

fn expert_of(pair: u32) -> u32 {
  return arena[{{ ids.base }}u + (pair / {{ active }}u) * {{ ids.stride }}u + pair % {{ active }}u];
}

@compute @workgroup_size({{ threads }})
fn main(@builtin(local_invocation_index) index: u32) {
  let pairs = token_count() * {{ active }}u;
  for (var e = index; e < {{ each * threads }}u; e += {{ threads }}u) { atomicStore(&counts[e], 0u); }
  workgroupBarrier();
  for (var pair = index; pair < pairs; pair += {{ threads }}u) {
    let e = expert_of(pair);
    if (e < {{ experts }}u) { atomicAdd(&counts[e], 1u); }  // beyond: another device has it
  }
  workgroupBarrier();
  var mine = vec2<u32>(0u);
  for (var e = index * {{ each }}u; e < (index + 1u) * {{ each }}u; e++) {
    let count = atomicLoad(&counts[e]);
    mine += vec2<u32>(count, (count + {{ tile - 1 }}u) / {{ tile }}u);
  }
  before[index] = mine;
  workgroupBarrier();
  for (var n = 1u; n < {{ threads }}u; n <<= 1u) {
    var lower = vec2<u32>(0u);
    if (index >= n) { lower = before[index - n]; }
    workgroupBarrier();
    before[index] += lower;
    workgroupBarrier();
  }
  var at = before[index] - mine;
  for (var e = index * {{ each }}u; e < (index + 1u) * {{ each }}u; e++) {
    let count = atomicLoad(&counts[e]);
    for (var done = 0u; done < count; done += {{ tile }}u) {
      let entry = {{ lists.base + 1 }}u + at.y * 3u;
      arena[entry] = e;
      arena[entry + 1u] = at.x + done;
      arena[entry + 2u] = min({{ tile }}u, count - done);
      at.y++;
    }
    atomicStore(&counts[e], at.x);  // from now on, where the expert's next pair goes
    at.x += count;
  }
  if (index == {{ threads - 1 }}u) { arena[{{ lists.base }}u] = at.y; }
  workgroupBarrier();
  for (var pair = index; pair < pairs; pair += {{ threads }}u) {
    let e = expert_of(pair);
    if (e >= {{ experts }}u) { continue; }
    let place = atomicAdd(&counts[e], 1u);
    arena[{{ lists.base + 1 + 3 * tiles }}u + place] = pair;
  }
}

{# The largest values of what 256 threads hold, one a round. The kernel gives `held(j)`, a thread's j-th (value bits, id) of
   `each`, and `keep(place, found)`, which stores the place-th largest. An id of 0xFFFFFFFE means that there is none. #}
{% include "larger.wgsl" %}

fn best_of_mine(taken: u32) -> vec3<u32> {
  var best = vec3<u32>(0xFF7FFFFFu, 0xFFFFFFFEu, 32u);
  for (var j = 0u; j < {{ each }}u; j++) {
    if ((taken & (1u << j)) == 0u) {
      let one = held(j);
      let won = larger(best.xy, one);
      if (won.y == one.y && one.y != 0xFFFFFFFEu && best.y != one.y) { best = vec3<u32>(one, j); }
    }
  }
  return best;
}

fn keep_largest(lane: u32) {
  var taken = 0u;
  var mine = best_of_mine(taken);
  for (var place = 0u; place < {{ wanted }}u; place++) {
    workgroupBarrier();
    let found = largest_of_all(mine.xy, lane);
    if (lane == 0u) { keep(place, found); }
    if (mine.z < 32u && mine.y == found.y) {
      taken |= 1u << mine.z;
      mine = best_of_mine(taken);
    }
  }
}

{# The larger of two (value bits, id); an id of 0xFFFFFFFF, a broken value, wins always; the lower id among equals. #}
var<workgroup> contest: array<vec2<u32>, 256>;

fn larger(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  if (a.y == 0xFFFFFFFFu) { return a; }
  if (b.y == 0xFFFFFFFFu) { return b; }
  let x = bitcast<f32>(a.x);
  let y = bitcast<f32>(b.x);
  if (x > y || (x == y && a.y < b.y)) { return a; }
  return b;
}

fn largest_of_all(mine: vec2<u32>, lane: u32) -> vec2<u32> {
  contest[lane] = mine;
  workgroupBarrier();
  for (var n = 128u; n > 0u; n >>= 1u) {
    if (lane < n) { contest[lane] = larger(contest[lane], contest[lane + n]); }
    workgroupBarrier();
  }
  return contest[0];
}

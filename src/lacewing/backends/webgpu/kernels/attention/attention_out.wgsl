{# Four neighbouring values of a token's output, and their bytes where `q8` is wanted: eight threads then hold 32 values. #}
fn put_out(t: u32, column: u32, v: vec4<f32>, width_left: u32) {
  let at = {{ out.base }}u + (t * {{ out.stride }}u) + column;
  if (width_left > 0u) { arena[at] = bitcast<u32>(v.x); }
  if (width_left > 1u) { arena[at + 1u] = bitcast<u32>(v.y); }
  if (width_left > 2u) { arena[at + 2u] = bitcast<u32>(v.z); }
  if (width_left > 3u) { arena[at + 3u] = bitcast<u32>(v.w); }
}

{% if q8 and variant.subgroups and variant.lanes >= 8 %}
// as `store_q8`, by eight threads with four values each; all threads of the subgroup must come here
fn put_q8(t: u32, column: u32, v: vec4<f32>, lane: u32, on: bool) {
  let sizes = bitcast<vec4<u32>>(v) & vec4<u32>(0x7FFFFFFFu);  // compared as integers, a NaN is the largest, and shows
  var size = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
  {% for step in (1, 2, 4) %}
  size = max(size, subgroupShuffleXor(size, {{ step }}u));
  {% endfor %}
  let largest = bitcast<f32>(size);
  let scale = largest / 127.0;
  let inverse = select(0.0, 127.0 / largest, largest > 0.0);
  let four = vec4<i32>(round(v * inverse));
  var sum = four.x + four.y + four.z + four.w;
  {% for step in (1, 2) %}
  sum += subgroupShuffleXor(sum, {{ step }}u);
  {% endfor %}
  let other = subgroupShuffleXor(sum, 4u);
  if (on) {
    let group = column >> 5u;
    arena[{{ q8.values.base }}u + (t * {{ q8.values.stride }}u) + (group * 8u) + (lane & 7u)] = pack4xI8(four);
    if ((lane & 7u) == 0u) {
      let fact = {{ q8.scales.base }}u + (t * {{ q8.scales.stride }}u) + (group * 2u);
      arena[fact] = bitcast<u32>(scale);
      arena[fact + 1u] = (bitcast<u32>(sum) & 0xFFFFu) | (bitcast<u32>(other) << 16u);
    }
  }
}
{% elif q8 %}
{% include "q8.wgsl" %}
// bytes of `groups` groups of a token's output from `column` on, which the workgroup has written before
fn put_q8_after(t: u32, column: u32, groups: u32, index: u32, threads: u32) {
  storageBarrier();
  for (var g = index; g < groups; g += threads) {
    var values: array<f32, 32>;
    let at = {{ out.base }}u + (t * {{ out.stride }}u) + column + (g * 32u);
    for (var i = 0u; i < 32u; i++) { values[i] = bitcast<f32>(arena[at + i]); }
    store_q8(t, (column >> 5u) + g, &values);
  }
}
{% endif %}

// 32 values in 18 bytes: a float16 scale, then nibbles as in Q4_0; value = d * one of 16 uneven steps
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = (run * 8u + i) * 18u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 2u + w * 4u); }
  coarse[group >> 1u] = with_half(coarse[group >> 1u], group, half(at));
}
{% else %}
{% include "uneven.wgsl" %}

fn group_of(packed: Packed, group: u32) -> Group {
  let n = uneven(packed.nibbles);
  let d = float_of(packed.coarse, group);
  return Group(low_uneven(n), high_uneven(n), vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}

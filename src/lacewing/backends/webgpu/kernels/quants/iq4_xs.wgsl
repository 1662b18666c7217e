// 256 values in 136 bytes: a float16 d, upper pairs and lower nibbles of 8 scales, then nibbles, 32 values at a time.
// value = d * (scale - 32) * one of 16 uneven steps. `fine` holds the scale of a group, signed, `coarse` d.
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 136u;
  for (var w = 0u; w < 4u; w++) { nibbles[group * 4u + w] = word(at + 8u + i * 16u + w * 4u); }
  let low = (byte(at + 4u + (i >> 1u)) >> ((i & 1u) * 4u)) & 15u;
  let high = (half(at + 2u) >> (i * 2u)) & 3u;
  fine[group >> 2u] = with_byte(fine[group >> 2u], group, ((low | (high << 4u)) - 32u) & 0xFFu);
  coarse[group >> 3u] = half(at);
}
{% else %}
{% include "uneven.wgsl" %}

fn group_of(packed: Packed, group: u32) -> Group {
  let n = uneven(packed.nibbles);
  let d = unpack2x16float(packed.coarse).x * signed_byte(packed.fine, group);
  return Group(low_uneven(n), high_uneven(n), vec2<f32>(d), vec2<f32>(0.0));
}
{% endif %}

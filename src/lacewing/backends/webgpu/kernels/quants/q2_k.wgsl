// 256 values in 84 bytes: 16 bytes, low nibble the scale and high one the minimum of 16 values; codes of two bits, four runs of
// 32 to a byte; float16 d and dmin. value = d * scale * code - dmin * minimum. `fine` holds the two bytes of a group.
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 84u;
  let codes = at + 16u + (i >> 2u) * 32u;
  for (var h = 0u; h < 2u; h++) { pairs[group * 2u + h] = pair_word(codes + h * 16u, (i & 3u) * 2u); }
  fine[group >> 1u] = with_half(fine[group >> 1u], group, half(at + i * 2u));
  coarse[group >> 3u] = word(at + 80u);
}
{% else %}
fn two_bits(p: u32) -> vec4<u32> { return vec4<u32>(p, p >> 2u, p >> 4u, p >> 6u) & vec4<u32>(0x03030303u); }

fn group_of(packed: Packed, group: u32) -> Group {
  let p = packed.pairs;
  let sm = half_of(packed.fine, group);
  let d = unpack2x16float(packed.coarse);
  return Group(two_bits(p.x), two_bits(p.y),
    d.x * vec2<f32>(f32(sm & 15u), f32((sm >> 8u) & 15u)), d.y * vec2<f32>(f32((sm >> 4u) & 15u), f32((sm >> 12u) & 15u)));
}
{% endif %}

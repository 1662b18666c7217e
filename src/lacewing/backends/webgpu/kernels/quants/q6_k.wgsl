// 256 values in 210 bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed scales (one for 16 values), a float16 d.
// value = d * scale * (code - 32). `fine` holds the two scales of a group, `coarse` d. The top bit of a code is kept turned,
// which makes it signed; as the upper six bits of bytes codes are 4 * (code - 32).
{% if pack %}
fn pack_group(run: u32, i: u32, group: u32) {
  let at = run * 210u;
  let low = at + (i >> 2u) * 64u + (i & 1u) * 32u;
  let high = at + 128u + (i >> 2u) * 32u;
  let shift = ((i >> 1u) & 1u) * 4u;
  for (var w = 0u; w < 4u; w++) {
    nibbles[group * 4u + w] = nibble_word(word(low + w * 4u), shift, word(low + 16u + w * 4u), shift);
  }
  for (var h = 0u; h < 2u; h++) { pairs[group * 2u + h] = pair_word(high + h * 16u, (i & 3u) * 2u) ^ 0xAAAAAAAAu; }
  fine[group >> 1u] = with_half(fine[group >> 1u], group, half(at + 192u + i * 2u));
  coarse[group >> 3u] = half(at + 208u);
}
{% else %}
fn upper(p: u32) -> vec4<u32> { return vec4<u32>(p << 6u, p << 4u, p << 2u, p) & vec4<u32>(0xC0C0C0C0u); }

fn group_of(packed: Packed, group: u32) -> Group {
  let q = packed.nibbles;
  let p = packed.pairs;
  let s = packed.fine;
  let d = unpack2x16float(packed.coarse).x * 0.25;
  return Group(
    ((q << vec4<u32>(2u)) & vec4<u32>(0x3C3C3C3Cu)) | upper(p.x), ((q >> vec4<u32>(2u)) & vec4<u32>(0x3C3C3C3Cu)) | upper(p.y),
    d * vec2<f32>(signed_byte(s, group * 2u), signed_byte(s, group * 2u + 1u)), vec2<f32>(0.0));
}
{% endif %}

{# Four-bit floats, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, for four low nibbles at a time. Minus zero must not
   occur: `plus_zero` makes it zero when a matrix is cut. #}
{% if pack %}
fn plus_zero(q: u32) -> u32 {
  let nonzero = (q | (q >> 1u) | (q >> 2u)) & 0x11111111u;
  return q & (0x77777777u | (nonzero << 3u));
}
{% else %}
fn small_floats(q: vec4<u32>) -> vec4<u32> {
  let one = vec4<u32>(0x01010101u);
  let second = ((q >> vec4<u32>(1u)) & one) * 255u;
  let third = ((q >> vec4<u32>(2u)) & one) * 255u;
  let sign = (q >> vec4<u32>(3u)) & one;
  let four = (q & one) * 2u + vec4<u32>(0x04040404u);  // 4 or 6, and twice that
  let below = q & vec4<u32>(0x03030303u);
  let size = below ^ ((below ^ (four + (four & second))) & third);
  return (size ^ (sign * 255u)) + sign;  // no carry leaves a byte, for zeros are not negative
}
{% endif %}

{# Four-bit floats, doubled: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, eight to a word. The codes of 6 and 8 change places when a
   matrix is cut: then the lower three bits c b a are the size, but for 3 more where a and c are set, and 2 more where all are, and
   eight sizes come out at once. Minus zero becomes zero, so that no carry of a negation leaves its byte. #}
{% if pack %}
fn kept_floats(q: u32) -> u32 {
  let nonzero = (q | (q >> 1u) | (q >> 2u)) & 0x11111111u;
  let exchanged = (q >> 2u) & (q ^ (q >> 1u)) & 0x11111111u;
  return (q & (0x77777777u | (nonzero << 3u))) ^ (exchanged * 3u);
}
{% else %}
fn sizes_of(q: vec4<u32>) -> vec4<u32> {
  let outer = q & (q >> vec4<u32>(2u)) & vec4<u32>(0x11111111u);
  let all = outer & (q >> vec4<u32>(1u));
  return (q & vec4<u32>(0x77777777u)) + outer * 3u + all * 2u;
}

fn negated(sizes: vec4<u32>, signs: vec4<u32>) -> vec4<u32> { return (sizes ^ (signs * 255u)) + signs; }

// the codes of the low and of the high nibbles
fn low_floats(q: vec4<u32>, sizes: vec4<u32>) -> vec4<u32> {
  return negated(sizes & vec4<u32>(0x0F0F0F0Fu), (q >> vec4<u32>(3u)) & vec4<u32>(0x01010101u));
}
fn high_floats(q: vec4<u32>, sizes: vec4<u32>) -> vec4<u32> {
  return negated((sizes >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu), (q >> vec4<u32>(7u)) & vec4<u32>(0x01010101u));
}
{% endif %}

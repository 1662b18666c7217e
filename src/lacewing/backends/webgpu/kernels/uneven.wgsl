{# The 16 values of IQ4_NL and IQ4_XS for four low nibbles at a time: the lowest bit adds a step, the others choose (a tree of
   bitwise selections, one instruction each on most GPUs). #}
fn choose(a: vec4<u32>, b: vec4<u32>, mask: vec4<u32>) -> vec4<u32> { return a ^ ((a ^ b) & mask); }

fn uneven(q: vec4<u32>) -> vec4<u32> {
  let one = vec4<u32>(0x01010101u);
  let n = q & one;
  let m1 = ((q >> vec4<u32>(1u)) & one) * 255u;
  let m2 = ((q >> vec4<u32>(2u)) & one) * 255u;
  let m3 = ((q >> vec4<u32>(3u)) & one) * 255u;
  {% for first, second in ((-127, -104), (-83, -65), (-49, -35), (-22, -10), (1, 13), (25, 38), (53, 69), (89, 113)) %}
  let r{{ loop.index0 }} = n * {{ second - first }}u + vec4<u32>({{ first % 256 * 0x01010101 }}u);
  {% endfor %}
  let low = choose(choose(r0, r1, m1), choose(r2, r3, m1), m2);
  let high = choose(choose(r4, r5, m1), choose(r6, r7, m1), m2);
  return choose(low, high, m3);
}

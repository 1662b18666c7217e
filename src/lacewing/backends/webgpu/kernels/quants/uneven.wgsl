{# The 16 values of IQ4_NL and IQ4_XS, eight codes of a word at a time. A value plus 128 is a byte: its upper nibble is the code, less
   one for the codes 9 to 14; each bit of the lower one is a function of the code's bits, found by a search for the shortest. #}
struct Nibbles { low: vec4<u32>, high: vec4<u32> }

fn uneven(q: vec4<u32>) -> Nibbles {
  let one = vec4<u32>(0x11111111u);
  let b = q >> vec4<u32>(1u);
  let c = q >> vec4<u32>(2u);
  let d = q >> vec4<u32>(3u);
  let bit0 = (c ^ ((b ^ (d & ~(c & ~b))) | ~(q | c))) & one;
  let bit1 = (q ^ ((q & ~b) | (c & ~(q ^ d)))) & one;
  let bit2 = ((q & (c ^ d)) | (b ^ (c | (b & d)))) & one;
  let bit3 = (((b ^ c) & ~d) | (q ^ (b | (q & c)))) & one;
  let less = d & ((q ^ b) | (q ^ c)) & one;
  return Nibbles(bit0 + bit1 * 2u + bit2 * 4u + bit3 * 8u, (q - less) ^ vec4<u32>(0x88888888u));  // 128 less again
}

// the values of the low and of the high nibbles, as signed bytes
fn low_uneven(n: Nibbles) -> vec4<u32> {
  return (n.low & vec4<u32>(0x0F0F0F0Fu)) | ((n.high << vec4<u32>(4u)) & vec4<u32>(0xF0F0F0F0u));
}
fn high_uneven(n: Nibbles) -> vec4<u32> {
  return ((n.low >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu)) | (n.high & vec4<u32>(0xF0F0F0F0u));
}

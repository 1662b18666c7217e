{# Scale and minimum of the groups of Q4_K and Q5_K, 6 bits each in 12 bytes from byte `at` on, as two bytes. #}
fn k_scales(at: u32, i: u32) -> u32 {
  if (i < 4u) { return (byte(at + i) & 63u) | ((byte(at + 4u + i) & 63u) << 8u); }
  let last = byte(at + 4u + i);
  let scale = (last & 15u) | ((byte(at + i - 4u) >> 6u) << 4u);
  return scale | (((last >> 4u) | ((byte(at + i) >> 6u) << 4u)) << 8u);
}

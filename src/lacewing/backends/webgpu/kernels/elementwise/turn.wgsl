{# Cosine and sine of position * frequency. A frequency is a share of a turn in fixed point, 32 bits and 8 more, so that the
   product wraps at whole turns without loss: the angle is right to 3e-6 at position 1,000,000. #}
fn turned(position: u32, frequency: vec2<u32>) -> vec2<f32> {
  let turns = position * frequency.x + ((position * frequency.y) >> 8u);
  let angle = f32(bitcast<i32>(turns)) * 1.4629180792671596e-9;  // 2 pi / 2^32
  return vec2<f32>(cos(angle), sin(angle));
}

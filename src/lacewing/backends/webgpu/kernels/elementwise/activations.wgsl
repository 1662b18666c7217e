fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

fn silu(x: f32) -> f32 { return x * sigmoid(x); }

fn none(x: f32) -> f32 { return x; }  // of a gate without an activation

// tanh through exp of a negative number, which cannot overflow
fn steady_tanh(x: f32) -> f32 {
  let e = exp(-2.0 * abs(x));
  return sign(x) * (1.0 - e) / (1.0 + e);
}

fn gelu_tanh(x: f32) -> f32 {
  return 0.5 * x * (1.0 + steady_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// by its bits: drivers may take it that floats are numbers
fn not_a_number(x: f32) -> bool { return (bitcast<u32>(x) & 0x7FFFFFFFu) > 0x7F800000u; }

// limits lose a NaN
fn clamped(gate: f32, up: f32, alpha: f32, limit: f32) -> f32 {
  let g = min(gate, limit);
  let y = g * sigmoid(alpha * g) * (clamp(up, -limit, limit) + 1.0);
  return select(y, gate + up, not_a_number(gate) || not_a_number(up));
}

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

fn silu(x: f32) -> f32 { return x * sigmoid(x); }

// tanh through exp of a negative number, which cannot overflow
fn steady_tanh(x: f32) -> f32 {
  let e = exp(-2.0 * abs(x));
  return sign(x) * (1.0 - e) / (1.0 + e);
}

fn gelu_tanh(x: f32) -> f32 {
  return 0.5 * x * (1.0 + steady_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// limits that let a NaN through
fn clamped(gate: f32, up: f32, alpha: f32, limit: f32) -> f32 {
  let g = select(gate, limit, gate > limit);
  let u = select(select(up, limit, up > limit), -limit, up < -limit);
  return g * sigmoid(alpha * g) * (u + 1.0);
}

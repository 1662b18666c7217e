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

fn gelu(x: f32) -> f32 {  // erf by Abramowitz and Stegun 7.1.26; half: the tail beyond |x|
  let size = abs(x) * 0.7071067811865476;
  let t = 1.0 / (1.0 + 0.3275911 * size);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  let half = 0.5 * p * exp(-size * size);
  return x * select(1.0 - half, half, x < 0.0);
}

fn relu2(x: f32) -> f32 { return select(x * x, 0.0, x < 0.0); }  // max would lose a NaN

// ln(1 + y) of y = e^-|x|, by the series of artanh: the logarithm of what is hardly more than 1 would lose digits
fn softplus(x: f32) -> f32 {
  let y = exp(-abs(x));
  let s = y / (2.0 + y);
  let z = s * s;
  let p = 1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z / 13.0)))));
  return select(x, 0.0, x < 0.0) + 2.0 * s * p;
}

// by its bits: drivers may take it that floats are numbers
fn not_a_number(x: f32) -> bool { return (bitcast<u32>(x) & 0x7FFFFFFFu) > 0x7F800000u; }

// limits lose a NaN
fn clamped(gate: f32, up: f32, alpha: f32, limit: f32) -> f32 {
  let g = min(gate, limit);
  let y = g * sigmoid(alpha * g) * (clamp(up, -limit, limit) + 1.0);
  return select(y, gate + up, not_a_number(gate) || not_a_number(up));
}

fn limited(y: f32, up: f32, limit: f32) -> f32 {
  let value = min(y, limit) * clamp(up, -limit, limit);
  return select(value, y + up, not_a_number(y) || not_a_number(up));
}

{% if numbers is defined and numbers %}
fn xielu(x: f32) -> f32 {
  let below = {{ number(numbers[1]) }} * (exp(min(x, {{ number(numbers[3]) }})) - 1.0 - x);
  return select(below, {{ number(numbers[0]) }} * x * x, x > 0.0) + {{ number(numbers[2]) }} * x;
}
{% endif %}

{# The coefficients of a token: rows of `weight` times tanh of the router. #}
{% set words = "f32" %}
{% include "step.wgsl" %}
{% include "activations.wgsl" %}
@group(0) @binding(2) var<storage, read> weight: array<f32>;

fn routed(t: u32) -> array<f32, {{ count }}> {
  var found: array<f32, {{ count }}>;
  for (var j = 0u; j < {{ count }}u; j++) {
    found[j] = steady_tanh(arena[{{ router.base }}u + t * {{ router.stride }}u + j] * {{ number(scale) }});
  }
  return found;
}

fn coefficient(row: u32, values: array<f32, {{ count }}>) -> f32 {
  var parts = values;
  var sum = 0.0;
  for (var j = 0u; j < {{ count }}u; j++) { sum += weight[row * {{ count }}u + j] * parts[j]; }
  return sum;
}

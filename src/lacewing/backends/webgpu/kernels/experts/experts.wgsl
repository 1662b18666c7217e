{# What kernels with stacked experts share: ids, and the product of a group of weights with a group of a token's activations.
   `part`: words (of floats) from the input of an active expert to the next, 0 where they share one. #}
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% if biased %}
@group(0) @binding({{ first + layout.planes | length }}) var<storage, read> bias: array<f32>;  // (experts, rows)
{% endif %}

fn word(at: u32) -> u32 { return arena[at >> 2u][at & 3u]; }
fn put_word(at: u32, value: u32) { arena[at >> 2u][at & 3u] = value; }
fn expert_of(t: u32, a: u32) -> u32 { return word({{ ids.base }}u + t * {{ ids.stride }}u + a); }

{% if dotted %}
{% include "dot.wgsl" %}
struct Input { a: vec4<u32>, b: vec4<u32>, q8_scales: vec2<u32> }

fn load_input(t: u32, a: u32, g: u32) -> Input {
  let at = ({{ x.values.base }}u + t * {{ x.values.stride }}u) / 4u + (a * {{ part // 32 }}u + g) * 2u;
  let fact = {{ x.scales.base }}u + t * {{ x.scales.stride }}u + (a * {{ part // 32 }}u + g) * 2u;
  let q8_scales = arena[fact >> 2u];
  return Input(arena[at], arena[at + 1u], select(q8_scales.xy, q8_scales.zw, (fact & 2u) != 0u));
}

fn times(weights: u32, x: Input) -> f32 { return dot_group(load_group(weights), x.a, x.b, x.q8_scales); }
{% else %}
struct Input { values: array<vec4<f32>, 8> }

fn load_input(t: u32, a: u32, g: u32) -> Input {
  let at = {{ x.base }}u + t * {{ x.stride }}u + a * {{ part }}u + g * 32u;
  {% if columns % 32 or x.base % 4 or part % 4 %}
  var found: Input;
  {% for i in range(8) %}
  {% for j in range(4) %}
  if (g * 32u + {{ i * 4 + j }}u < {{ columns }}u) { found.values[{{ i }}][{{ j }}] = bitcast<f32>(word(at + {{ i * 4 + j }}u)); }
  {% endfor %}
  {% endfor %}
  return found;
  {% else %}
  let four = at >> 2u;
  return Input(array<vec4<f32>, 8>(
    {% for i in range(8) %}
    bitcast<vec4<f32>>(arena[four + {{ i }}u]){{ "," if not loop.last }}
    {% endfor %}
  ));
  {% endif %}
}

fn times(weights: u32, x: Input) -> f32 {
  let w = load_floats(weights);
  var y = 0.0;
  {% for i in range(8) %}
  y += dot(w[{{ i }}], x.values[{{ i }}]);
  {% endfor %}
  return y;
}
{% endif %}

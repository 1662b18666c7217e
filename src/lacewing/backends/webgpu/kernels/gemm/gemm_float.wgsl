{% set half = half | default(false) %}
{{ "enable f16;" if half }}
// y = x @ W.T for many tokens in float32. A workgroup makes a tile of 64 x 64, a thread 4 x 4 of it, 16 apart.
// With `half` four products and their sum are float16, of numbers that were divided by the largest of their 16 or 32 neighbours, so
// that none overflows; all other sums are float32. Grid: rows / 64 (in x and z), tokens / 64.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% block outputs %}
{% include "outputs.wgsl" %}
{% endblock %}

{% set number_type = "f16" if half else "f32" %}
var<workgroup> tile_w: array<vec4<{{ number_type }}>, 512>;  // (four columns, row)
var<workgroup> tile_x: array<vec4<{{ number_type }}>, 512>;  // (four columns, token)
{% if half %}
var<workgroup> scale_w: array<f32, 64>;   // of a row's 32 columns
var<workgroup> scale_x: array<f32, 128>;  // (half of the columns, token)

fn largest_of(v: vec4<f32>) -> f32 { return max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w))); }

// What to divide by: the largest magnitude; 1 for zeros. NaN and infinity stay in what is divided.
fn divisor(largest: f32) -> f32 { return select(1.0, largest, largest > 0.0 && largest < 3.4e38); }
{% endif %}

{% block columns %}
{% include "float_columns.wgsl" %}
{% endblock %}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  {% block tile %}
  let row_start = (group.x + group.z * 65535u) * 64u;
  let token_start = group.y * 64u;
  if (row_start >= {{ rows }}u) { return; }
  {% endblock %}
  let m = index % 16u;
  let n = index / 16u;
  var y: array<vec4<f32>, 4>;
  {% block sources %}
  let row = min(row_start + index % 64u, {{ rows - 1 }}u) * {{ groups }}u;
  let output = min(token_start + index % 64u, {{ "row_count()" if by_rows else "token_count()" }} - 1u);
  let t = {{ "output_of(first_row() + output)" if by_rows else "output" }};
  {% endblock %}
  for (var g = 0u; g < {{ groups }}u; g++) {
    if (index < 64u) {
      let w = load_floats(row + g);
      {% if half %}
      var largest = 0.0;
      {% for i in range(8) %}
      largest = max(largest, largest_of(w[{{ i }}]));
      {% endfor %}
      let scale = divisor(largest);
      scale_w[index] = scale;
      {% for i in range(8) %}
      tile_w[{{ i * 64 }}u + index] = vec4<f16>(w[{{ i }}] / scale);
      {% endfor %}
      {% else %}
      {% for i in range(8) %}
      tile_w[{{ i * 64 }}u + index] = w[{{ i }}];
      {% endfor %}
      {% endif %}
    } else if (index >= 128u) {
      let from_column = (index - 128u) / 64u * 4u;
      {% if half %}
      {% for i in range(4) %}
      let x_{{ i }} = columns_at(t, g * 32u + (from_column + {{ i }}u) * 4u);
      {% endfor %}
      let scale = divisor(max(max(largest_of(x_0), largest_of(x_1)), max(largest_of(x_2), largest_of(x_3))));
      scale_x[index - 128u] = scale;
      {% for i in range(4) %}
      tile_x[(from_column + {{ i }}u) * 64u + index % 64u] = vec4<f16>(x_{{ i }} / scale);
      {% endfor %}
      {% else %}
      for (var i = from_column; i < from_column + 4u; i++) {
        tile_x[i * 64u + index % 64u] = columns_at(t, g * 32u + i * 4u);
      }
      {% endif %}
    }
    workgroupBarrier();
    {% if half %}
    for (var h = 0u; h < 2u; h++) {
      // naga makes a variable without a value zero once, not each time round
      var part = array<vec4<f32>, 4>(vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0), vec4<f32>(0.0));
      for (var i = h * 4u; i < h * 4u + 4u; i++) {
        {% for j in range(4) %}
        let x_{{ j }} = tile_x[i * 64u + n + {{ j * 16 }}u];
        {% endfor %}
        {% for r in range(4) %}
        let w_{{ r }} = tile_w[i * 64u + m + {{ r * 16 }}u];
        part[{{ r }}] += vec4<f32>(vec4<f16>(dot(w_{{ r }}, x_0), dot(w_{{ r }}, x_1), dot(w_{{ r }}, x_2), dot(w_{{ r }}, x_3)));
        {% endfor %}
      }
      let at = h * 64u + n;
      let scales = vec4<f32>(scale_x[at], scale_x[at + 16u], scale_x[at + 32u], scale_x[at + 48u]);
      {% for r in range(4) %}
      y[{{ r }}] += part[{{ r }}] * scales * scale_w[m + {{ r * 16 }}u];
      {% endfor %}
    }
    {% else %}
    for (var i = 0u; i < 8u; i++) {
      {% for j in range(4) %}
      let x_{{ j }} = tile_x[i * 64u + n + {{ j * 16 }}u];
      {% endfor %}
      {% for r in range(4) %}
      let w_{{ r }} = tile_w[i * 64u + m + {{ r * 16 }}u];
      y[{{ r }}] += vec4<f32>(dot(w_{{ r }}, x_0), dot(w_{{ r }}, x_1), dot(w_{{ r }}, x_2), dot(w_{{ r }}, x_3));
      {% endfor %}
    }
    {% endif %}
    workgroupBarrier();
  }
  {% block results %}
  {% for j in range(4) %}
  if (token_start + n + {{ j * 16 }}u < {{ "row_count()" if by_rows else "token_count()" }}) {
    {% for r in range(4) %}
    if (row_start + m + {{ r * 16 }}u < {{ rows }}u) {
      store_output(token_start + n + {{ j * 16 }}u, row_start + m + {{ r * 16 }}u, y[{{ r }}][{{ j }}]);
    }
    {% endfor %}
  }
  {% endfor %}
  {% endblock %}
}

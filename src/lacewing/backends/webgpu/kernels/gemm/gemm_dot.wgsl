// y = x @ W.T for many tokens, activations as bytes. A workgroup makes a tile of tile_rows x tile_tokens, a thread
// row_parts x token_parts of it, 16 apart; groups of 32 pass through workgroup memory, the next one on its way meanwhile.
// Grid: rows / tile_rows (in x and z), tokens / tile_tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% block outputs %}
{% include "outputs.wgsl" %}
{% endblock %}
{% set row_parts = tile_rows // 16 %}
{% set token_parts = tile_tokens // 16 %}
{% set scales = 2 if layout.halves else 1 %}

var<workgroup> codes_w: array<vec4<u32>, {{ tile_rows * 2 }}>;    // (half, row)
var<workgroup> codes_x: array<vec4<u32>, {{ tile_tokens * 2 }}>;  // (half, token)
var<workgroup> scale_w: array<f32, {{ tile_rows * scales }}>;
var<workgroup> scale_x: array<f32, {{ tile_tokens }}>;
{% if layout.has_min %}
var<workgroup> min_w: array<f32, {{ tile_rows * scales }}>;
var<workgroup> sum_x: array<f32, {{ tile_tokens * scales }}>;
{% endif %}

struct Columns { a: vec4<u32>, b: vec4<u32>, q8_scales: vec2<u32> }

{% block columns %}
fn load_columns(t: u32, g: u32) -> Columns {
  let at = ({{ x.values.base }}u + t * {{ x.values.stride }}u) / 4u + g * 2u;
  let fact = {{ x.scales.base }}u + t * {{ x.scales.stride }}u + g * 2u;
  let q8_scales = arena[fact >> 2u];
  return Columns(arena[at], arena[at + 1u], select(q8_scales.xy, q8_scales.zw, (fact & 2u) != 0u));
}
{% endblock %}

// An integer sum that began at MAGIC is, read as a float32, 12582912 + sum: no conversion is needed.
const MAGIC: i32 = 0x4B400000;
fn as_float(sum: i32) -> f32 { return bitcast<f32>(sum) - 12582912.0; }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  {% block tile %}
  let row_start = (group.x + group.z * 65535u) * {{ tile_rows }}u;
  let token_start = group.y * {{ tile_tokens }}u;
  if (row_start >= {{ rows }}u) { return; }
  {% endblock %}
  let m = index % 16u;
  let n = index / 16u;
  {% for i in range(row_parts) %}
  {% for j in range(token_parts) %}
  var y_{{ i }}_{{ j }} = 0.0;
  {% endfor %}
  {% endfor %}
  let loads_row = index < {{ tile_rows }}u;
  let loads_token = index >= {{ 256 - tile_tokens }}u;
  let load_token = index - {{ 256 - tile_tokens }}u;
  {% block sources %}
  let row = min(row_start + index, {{ rows - 1 }}u) * {{ groups }}u;
  let output = min(token_start + load_token, {{ "row_count()" if by_rows else "token_count()" }} - 1u);
  let t = {{ "output_of(first_row() + output)" if by_rows else "output" }};
  {% endblock %}
  var w: Group;
  var x: Columns;
  if (loads_row) { w = load_group(row); }
  if (loads_token) { x = load_columns(t, 0u); }
  for (var g = 0u; g < {{ groups }}u; g++) {
    if (loads_row) {
      codes_w[index] = w.a;
      codes_w[{{ tile_rows }}u + index] = w.b;
      scale_w[index] = w.scale.x;
      {% if layout.halves %}
      scale_w[{{ tile_rows }}u + index] = w.scale.y;
      {% endif %}
      {% if layout.has_min %}
      min_w[index] = w.min.x;
      {% if layout.halves %}
      min_w[{{ tile_rows }}u + index] = w.min.y;
      {% endif %}
      {% endif %}
    }
    if (loads_token) {
      codes_x[load_token] = x.a;
      codes_x[{{ tile_tokens }}u + load_token] = x.b;
      let scale = bitcast<f32>(x.q8_scales.x);
      scale_x[load_token] = scale;
      {% if layout.has_min %}
      let sums = vec2<i32>(bitcast<i32>(x.q8_scales.y << 16u) >> 16u, bitcast<i32>(x.q8_scales.y) >> 16u);
      {% if layout.halves %}
      sum_x[load_token] = f32(sums.x);
      sum_x[{{ tile_tokens }}u + load_token] = f32(sums.y);
      {% else %}
      sum_x[load_token] = f32(sums.x + sums.y);
      {% endif %}
      {% endif %}
    }
    workgroupBarrier();
    let next = min(g + 1u, {{ groups - 1 }}u);
    if (loads_row) { w = load_group(row + next); }
    if (loads_token) { x = load_columns(t, next); }
    {% for j in range(token_parts) %}
    let xa_{{ j }} = codes_x[n + {{ j * 16 }}u];
    let xb_{{ j }} = codes_x[n + {{ tile_tokens + j * 16 }}u];
    let xs_{{ j }} = scale_x[n + {{ j * 16 }}u];
    {% if layout.has_min %}
    let xl_{{ j }} = sum_x[n + {{ j * 16 }}u];
    {% if layout.halves %}
    let xm_{{ j }} = sum_x[n + {{ tile_tokens + j * 16 }}u];
    {% endif %}
    {% endif %}
    {% endfor %}
    {% for i in range(row_parts) %}
    {
      let wa = codes_w[m + {{ i * 16 }}u];
      let wb = codes_w[m + {{ tile_rows + i * 16 }}u];
      let ws = scale_w[m + {{ i * 16 }}u];
      {% if layout.halves %}
      let wt = scale_w[m + {{ tile_rows + i * 16 }}u];
      {% endif %}
      {% if layout.has_min %}
      let wl = min_w[m + {{ i * 16 }}u];
      {% if layout.halves %}
      let wm = min_w[m + {{ tile_rows + i * 16 }}u];
      {% endif %}
      {% endif %}
      {% for j in range(token_parts) %}
      {
        let a = MAGIC + dot4I8Packed(wa.x, xa_{{ j }}.x) + dot4I8Packed(wa.y, xa_{{ j }}.y)
          + dot4I8Packed(wa.z, xa_{{ j }}.z) + dot4I8Packed(wa.w, xa_{{ j }}.w);
        let b = {{ "MAGIC" if layout.halves else "a" }} + dot4I8Packed(wb.x, xb_{{ j }}.x) + dot4I8Packed(wb.y, xb_{{ j }}.y)
          + dot4I8Packed(wb.z, xb_{{ j }}.z) + dot4I8Packed(wb.w, xb_{{ j }}.w);
        {% if layout.halves %}
        var part = ws * as_float(a) + wt * as_float(b);
        {% else %}
        var part = ws * as_float(b);
        {% endif %}
        {% if layout.has_min %}
        part -= wl * xl_{{ j }}{{ " + wm * xm_%d" % j if layout.halves }};
        {% endif %}
        y_{{ i }}_{{ j }} += part * xs_{{ j }};
      }
      {% endfor %}
    }
    {% endfor %}
    workgroupBarrier();
  }
  {% block results %}
  {% for j in range(token_parts) %}
  if (token_start + n + {{ j * 16 }}u < {{ "row_count()" if by_rows else "token_count()" }}) {
    {% for i in range(row_parts) %}
    if (row_start + m + {{ i * 16 }}u < {{ rows }}u) {
      store_output(token_start + n + {{ j * 16 }}u, row_start + m + {{ i * 16 }}u, y_{{ i }}_{{ j }});
    }
    {% endfor %}
  }
  {% endfor %}
  {% endblock %}
}

enable f16;
enable chromium_experimental_subgroup_matrix;
// y = x @ W.T for many tokens on matrix units: weights become float16 in workgroup memory, activations are (halve.wgsl), sums are
// float32. A workgroup of units.down x units.across subgroups makes a tile of units.tokens x units.rows, a subgroup units.high x
// units.wide squares of 16 of it; units.depth columns pass through workgroup memory at a time, the next ones on their way meanwhile.
// Grid: rows / units.rows (in x and z), tokens / units.tokens.
{% set words = "vec4<u32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% block outputs %}
{% include "outputs.wgsl" %}
{% endblock %}
{% set each_x = units.tokens * units.depth // 8 // units.threads %}
{% set each_w = units.rows * units.depth // 32 // units.threads %}
{% set step_groups = units.depth // 32 %}
{% set all_rows = rows * parts | default(1) %}

// tokens, then rows; units.pitch apart, so that their columns are in different banks
var<workgroup> tile: array<f16, {{ (units.tokens + units.rows) * units.pitch }}>;
var<workgroup> sums: array<f32, {{ units.down * units.across * 256 }}>;  // a square of each subgroup
var<workgroup> scale_x: array<f32, {{ units.tokens }}>;

fn keep_pair(at: u32, two: vec2<f16>) {
  tile[at] = two.x;
  tile[at + 1u] = two.y;
}

{% if layout.quant == "F16" %}
alias Loaded = array<vec4<u32>, 4>;

fn load_weights(group: u32) -> Loaded {
  return Loaded(floats[group * 4u], floats[group * 4u + 1u], floats[group * 4u + 2u], floats[group * 4u + 3u]);
}

fn keep_weights(at: u32, w: Loaded) {
  {% for i in range(4) %}
  {% for c in "xyzw" %}
  keep_pair(at + {{ i * 8 + loop.index0 * 2 }}u, bitcast<vec2<f16>>(w[{{ i }}].{{ c }}));
  {% endfor %}
  {% endfor %}
}
{% elif layout.floats %}
alias Loaded = array<vec4<f32>, 8>;

fn load_weights(group: u32) -> Loaded { return load_floats(group); }

fn keep_weights(at: u32, w: Loaded) {
  {% for i in range(8) %}
  keep_pair(at + {{ i * 4 }}u, vec2<f16>(w[{{ i }}].xy));
  keep_pair(at + {{ i * 4 + 2 }}u, vec2<f16>(w[{{ i }}].zw));
  {% endfor %}
}
{% else %}
alias Loaded = Group;

fn load_weights(group: u32) -> Loaded { return load_group(group); }

// Four codes. A byte below 0x64 is, as float16, 1024 + the byte: no conversion of integers is needed.
fn keep_four(at: u32, codes: u32, scale: f32, least: f32) {
  let u = codes ^ 0x80808080u;  // 128 more, without a sign
  let low = bitcast<vec2<f16>>((u & 0xFFu) | ((u & 0xFF00u) << 8u) | 0x64006400u) - vec2<f16>(1152.0h);
  let high = bitcast<vec2<f16>>(((u >> 16u) & 0xFFu) | ((u >> 8u) & 0xFF0000u) | 0x64006400u) - vec2<f16>(1152.0h);
  keep_pair(at, vec2<f16>(vec2<f32>(low) * scale - least));
  keep_pair(at + 2u, vec2<f16>(vec2<f32>(high) * scale - least));
}

fn keep_weights(at: u32, w: Loaded) {
  {% for half in "ab" %}
  {% for c in "xyzw" %}
  keep_four(at + {{ (16 if half == "b" else 0) + loop.index0 * 4 }}u, w.{{ half }}.{{ c }}, w.scale.{{ "xy"[half == "b"] }}, w.min.{{ "xy"[half == "b"] }});
  {% endfor %}
  {% endfor %}
}
{% endif %}
{% block columns %}
fn store_at(place: u32, row: u32, sum: f32) { store_output(place, row, sum); }
// What the workgroup's tokens are called: `token_start` to `count` are places, and a place's source has columns and a scale.
fn source_of(place: u32) -> u32 { return {{ "output_of(first_row() + place)" if by_rows else "place" }}; }
fn columns_of(t: u32) -> u32 { return ({{ halves.values.base }}u + t * {{ halves.values.stride }}u) / 4u; }
fn scale_of(t: u32) -> f32 {
  let at = {{ halves.scales.base }}u + t * {{ halves.scales.stride }}u;
  return bitcast<f32>(arena[at >> 2u][at & 3u]);
}
{% endblock %}

@compute @workgroup_size({{ units.threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(subgroup_id) subgroup: u32) {
  {% block tile %}
  let row_start = (group.x + group.z * 65535u) * {{ units.rows }}u;
  let token_start = group.y * {{ units.tokens }}u;
  let count = {{ "row_count()" if by_rows else "token_count()" }};
  let first_group = 0u;  // of the tile's matrix
  if (row_start >= {{ all_rows }}u) { return; }
  {% endblock %}
  {% for q in range(each_x) %}
  let token_{{ q }} = ({{ q * units.threads }}u + index) / {{ units.depth // 8 }}u;
  let place_{{ q }} = min(token_start + token_{{ q }}, count - 1u);
  let eight_{{ q }} = ({{ q * units.threads }}u + index) % {{ units.depth // 8 }}u;
  let from_{{ q }} = columns_of(source_of(place_{{ q }})) + eight_{{ q }};
  var x_{{ q }} = arena[from_{{ q }}];
  {% endfor %}
  {% for q in range(each_w) %}
  let row_{{ q }} = ({{ q * units.threads }}u + index) / {{ step_groups }}u;
  let part_{{ q }} = ({{ q * units.threads }}u + index) % {{ step_groups }}u;
  let groups_{{ q }} = first_group + min(row_start + row_{{ q }}, {{ all_rows - 1 }}u) * {{ groups }}u;
  var w_{{ q }} = load_weights(groups_{{ q }} + min(part_{{ q }}, {{ groups - 1 }}u));
  {% endfor %}
  if (index < {{ units.tokens }}u) {
    let place = min(token_start + index, count - 1u);
    scale_x[index] = scale_of(source_of(place));
  }
  let mine = subgroup;
  let my_tokens = mine / {{ units.across }}u * {{ units.high * 16 }}u;
  let my_rows = {{ units.tokens }}u + mine % {{ units.across }}u * {{ units.wide * 16 }}u;
  {% for i in range(units.high) %}
  {% for j in range(units.wide) %}
  var y_{{ i }}_{{ j }}: subgroup_matrix_result<f32, 16, 16>;
  {% endfor %}
  {% endfor %}
  for (var g = 0u; g < {{ groups }}u; g += {{ step_groups }}u) {
    {% for q in range(each_x) %}
    {% for c in "xyzw" %}
    keep_pair(token_{{ q }} * {{ units.pitch }}u + eight_{{ q }} * 8u + {{ loop.index0 * 2 }}u, bitcast<vec2<f16>>(x_{{ q }}.{{ c }}));
    {% endfor %}
    {% endfor %}
    {% for q in range(each_w) %}
    keep_weights(({{ units.tokens }}u + row_{{ q }}) * {{ units.pitch }}u + part_{{ q }} * 32u, w_{{ q }});
    {% endfor %}
    workgroupBarrier();
    let next = g + {{ step_groups }}u;
    if (next < {{ groups }}u) {
      {% for q in range(each_x) %}
      x_{{ q }} = arena[from_{{ q }} + next * 4u];
      {% endfor %}
      {% for q in range(each_w) %}
      w_{{ q }} = load_weights(groups_{{ q }} + min(next + part_{{ q }}, {{ groups - 1 }}u));
      {% endfor %}
    }
    for (var k = 0u; k < {{ units.depth }}u; k += 16u) {
      {% for j in range(units.wide) %}
      let b_{{ j }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&tile, (my_rows + {{ j * 16 }}u) * {{ units.pitch }}u + k, true, {{ units.pitch }}u);
      {% endfor %}
      {% for i in range(units.high) %}
      let a_{{ i }} = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&tile, (my_tokens + {{ i * 16 }}u) * {{ units.pitch }}u + k, false, {{ units.pitch }}u);
      {% for j in range(units.wide) %}
      y_{{ i }}_{{ j }} = subgroupMatrixMultiplyAccumulate(a_{{ i }}, b_{{ j }}, y_{{ i }}_{{ j }});
      {% endfor %}
      {% endfor %}
    }
    workgroupBarrier();
  }
  // squares reach their places through workgroup memory: edges, biases and scales are of single numbers
  let slot = index / {{ units.lanes }}u;
  let slot_token = slot / {{ units.across }}u * {{ units.high * 16 }}u;
  let slot_row = slot % {{ units.across }}u * {{ units.wide * 16 }}u;
  {% for i in range(units.high) %}
  {% for j in range(units.wide) %}
  subgroupMatrixStore(&sums, mine * 256u, y_{{ i }}_{{ j }}, false, 16u);
  workgroupBarrier();
  for (var e = index % {{ units.lanes }}u; e < 256u; e += {{ units.lanes }}u) {
    let token = slot_token + {{ i * 16 }}u + e / 16u;
    let row = row_start + slot_row + {{ j * 16 }}u + e % 16u;
    if (token_start + token < count && row < {{ all_rows }}u) { store_at(token_start + token, row, sums[slot * 256u + e] * scale_x[token]); }
  }
  workgroupBarrier();
  {% endfor %}
  {% endfor %}
}

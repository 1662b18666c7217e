// y = x @ W.T for many tokens and few rows, such as a router's, in float32. A workgroup makes a tile of only 16 x 16, so that there
// are many: a thread 4 x 4 of it, 4 apart, of a sixteenth of the columns, 128 of which pass through workgroup memory at a time, the
// next ones on their way meanwhile. Grid: rows / 16 (in x and z), tokens / 16.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% set first = 2 %}
{% include "planes.wgsl" %}
{% include "outputs.wgsl" %}
{% include "float_columns.wgsl" %}

var<workgroup> tile: array<vec4<f32>, 1024>;  // (row, four columns), then (token, four columns); at last (sixteenth, token, row)

// Rows that are read together stand in different banks.
fn place_of(row: u32, four: u32) -> u32 { return row * 32u + (four ^ (row & 7u)); }

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let row_start = (group.x + group.z * 65535u) * 16u;
  let token_start = group.y * 16u;
  let count = {{ "row_count()" if by_rows else "token_count()" }};
  if (row_start >= {{ rows }}u) { return; }
  let line = index / 16u;  // that this thread loads: of a row and of a token
  let eight = index % 16u;
  let weights = min(row_start + line, {{ rows - 1 }}u) * {{ groups * 4 }}u;
  let output = min(token_start + line, count - 1u);
  let t = {{ "output_of(first_row() + output)" if by_rows else "output" }};
  let m = index % 4u;
  let n = index / 4u % 4u;
  let part = index / 16u;
  var w = Eight();
  var x = Eight();
  if (eight < {{ groups * 4 }}u) {
    w = load_eight(weights + eight);
    x = Eight(columns_at(t, eight * 8u), columns_at(t, eight * 8u + 4u));
  }
  {% for r in range(4) %}
  var y_{{ r }} = vec4<f32>(0.0);
  {% endfor %}
  for (var e = 0u; e < {{ groups * 4 }}u; e += 16u) {
    tile[place_of(line, 2u * eight)] = w.a;
    tile[place_of(line, 2u * eight + 1u)] = w.b;
    tile[512u + place_of(line, 2u * eight)] = x.a;
    tile[512u + place_of(line, 2u * eight + 1u)] = x.b;
    workgroupBarrier();
    let next = e + 16u + eight;
    w = Eight();
    x = Eight();
    if (next < {{ groups * 4 }}u) {
      w = load_eight(weights + next);
      x = Eight(columns_at(t, next * 8u), columns_at(t, next * 8u + 4u));
    }
    {% for c in range(2) %}
    {
      {% for j in range(4) %}
      let x_{{ j }} = tile[512u + place_of(n + {{ j * 4 }}u, part + {{ c * 16 }}u)];
      {% endfor %}
      {% for r in range(4) %}
      let w_{{ r }} = tile[place_of(m + {{ r * 4 }}u, part + {{ c * 16 }}u)];
      y_{{ r }} += vec4<f32>(dot(w_{{ r }}, x_0), dot(w_{{ r }}, x_1), dot(w_{{ r }}, x_2), dot(w_{{ r }}, x_3));
      {% endfor %}
    }
    {% endfor %}
    workgroupBarrier();
  }
  // a thread's 16 sums are four vectors; the sixteenths are added in their order
  {% for r in range(4) %}
  tile[part * 64u + {{ r * 16 }}u + index % 16u] = y_{{ r }};
  {% endfor %}
  workgroupBarrier();
  let row = row_start + index % 4u + index / 64u * 4u;
  let place = token_start + index / 4u % 4u + index / 16u % 4u * 4u;
  var sum = 0.0;
  for (var p = 0u; p < 16u; p++) { sum += tile[p * 64u + index / 64u * 16u + index % 16u][index / 16u % 4u]; }
  if (row < {{ rows }}u && place < count) { store_output(place, row, sum); }
}

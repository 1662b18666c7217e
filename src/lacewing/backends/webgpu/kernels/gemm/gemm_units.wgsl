enable f16;
enable chromium_experimental_subgroup_matrix;
// y = x @ W.T for many tokens on matrix units: weights become float16 in workgroup memory, activations are (halve.wgsl), sums are
// float32. A workgroup of units.down x units.across subgroups makes a tile of units.tokens x units.rows, a subgroup units.high x
// units.wide squares of 16 of it; units.depth columns pass through workgroup memory at a time, the next ones on their way meanwhile.
// Grid: tokens / units.tokens, which share what is read of the weights, rows / units.rows.
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
{% set lift = 1 if layout.floats and layout.quant != "BF16" else 16 %}{# by which weights are larger in the tile: float16 has few bits for small ones #}
{% set all_rows = rows * parts | default(1) %}
{# of gemm_units_split.wgsl: the groups of the workgroup's part #}
{% set begin, end = ("begin", "end") if split is defined else ("0u", "%du" % groups) %}
{% set from = "begin + " if split is defined else "" %}

{# tokens, then rows of weights; units.pitch apart, so that their columns are in different banks; at last sums, a strip of 16 tokens of
   each subgroup #}
var<workgroup> memory: buffer<{{ units.memory }}>;
var<workgroup> scale_x: array<f32, {{ units.tokens }}>;

fn keep_eight(at: u32, v: vec4<u32>) {
  let eights = bufferView<array<vec4<u32>, {{ units.memory // 16 }}>>(&memory, 0u);
  (*eights)[at >> 3u] = v;
}

fn word_of(two: vec2<f16>) -> u32 { return bitcast<u32>(two); }

{% if layout.quant in ("F16", "BF16") %}
alias Loaded = array<vec4<u32>, 4>;

fn load_weights(group: u32) -> Loaded {
  return Loaded(floats[group * 4u], floats[group * 4u + 1u], floats[group * 4u + 2u], floats[group * 4u + 3u]);
}

// four in the order of halved.wgsl
{% if layout.quant == "F16" %}
fn four_of(w: vec2<u32>) -> vec2<u32> { return vec2<u32>((w.x & 0xFFFFu) | (w.y << 16u), (w.x >> 16u) | (w.y & 0xFFFF0000u)); }
{% else %}
fn lifted(two: vec2<u32>) -> u32 { return word_of(vec2<f16>(bitcast<vec2<f32>>(two) * {{ number(lift) }})); }

fn four_of(w: vec2<u32>) -> vec2<u32> { return vec2<u32>(lifted(w << vec2<u32>(16u)), lifted(w & vec2<u32>(0xFFFF0000u))); }
{% endif %}

fn keep_weights(at: u32, w: Loaded, group: u32) {
  {% for i in range(4) %}
  keep_eight(at + {{ i * 8 }}u, vec4<u32>(four_of(w[{{ i }}].xy), four_of(w[{{ i }}].zw)));
  {% endfor %}
}
{% elif layout.floats %}
alias Loaded = array<vec4<f32>, 8>;

fn load_weights(group: u32) -> Loaded { return load_floats(group); }

fn four_of(w: vec4<f32>) -> vec2<u32> { return vec2<u32>(word_of(vec2<f16>(w.xz)), word_of(vec2<f16>(w.yw))); }

fn keep_weights(at: u32, w: Loaded, group: u32) {
  {% for i in range(4) %}
  keep_eight(at + {{ i * 8 }}u, vec4<u32>(four_of(w[{{ i * 2 }}]), four_of(w[{{ i * 2 + 1 }}])));
  {% endfor %}
}
{% else %}
alias Loaded = Packed;  // to be unpacked when it is needed: until then nothing waits for the loads

fn load_weights(group: u32) -> Loaded { return packed_of(group); }

// Four codes, in the order of halved.wgsl. A byte below 0x64 is, as float16, 1024 + the byte: no conversion of integers is needed.
// Bit 7 turned is 128 more, without a sign.
fn four_of(codes: u32, scale: vec2<f16>, least: vec2<f16>) -> vec2<u32> {
  let even = bitcast<vec2<f16>>((codes & 0x00FF00FFu) ^ 0x64806480u) - vec2<f16>(1152.0h);
  let odd = bitcast<vec2<f16>>(((codes >> 8u) & 0x00FF00FFu) ^ 0x64806480u) - vec2<f16>(1152.0h);
  return vec2<u32>(word_of(fma(even, scale, least)), word_of(fma(odd, scale, least)));
}

fn keep_weights(at: u32, w: Loaded, group: u32) {
  let values = group_of(w, group);
  {% for half in "ab" %}
  let scale_{{ half }} = vec2<f16>(f16(values.scale.{{ "xy"[loop.index0] }} * {{ number(lift) }}));
  let least_{{ half }} = vec2<f16>(f16(values.min.{{ "xy"[loop.index0] }} * {{ number(-lift) }}));
  {% for c in ("xy", "zw") %}
  keep_eight(at + {{ (16 if half == "b" else 0) + loop.index0 * 8 }}u, vec4<u32>(
    four_of(values.{{ half }}.{{ c[0] }}, scale_{{ half }}, least_{{ half }}), four_of(values.{{ half }}.{{ c[1] }}, scale_{{ half }}, least_{{ half }})));
  {% endfor %}
  {% endfor %}
}
{% endif %}
{% block columns %}
{% block stores %}
{% include "stores.wgsl" %}
{% endblock %}
// What the workgroup's tokens are called: `token_start` to `count` are places, and a place's source has columns and a scale.
fn source_of(place: u32) -> u32 { return {{ "output_of(first_row() + place)" if by_rows else "place" }}; }
fn columns_of(t: u32) -> u32 { return ({{ halves.values.base }}u + t * {{ halves.values.stride }}u) / 4u; }
fn scale_of(t: u32) -> f32 {
  let at = {{ halves.scales.base }}u + t * {{ halves.scales.stride }}u;
  return bitcast<f32>(arena[at >> 2u][at & 3u]);
}
{% endblock %}

{% block fours %}
{% include "fours.wgsl" %}
{% endblock %}

@compute @workgroup_size({{ units.threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(subgroup_id) subgroup: u32) {
  {% block tile %}
  let row_start = group.y * {{ units.rows }}u;
  let token_start = group.x * {{ units.tokens }}u;
  let count = {{ "row_count()" if by_rows else "token_count()" }};
  let first_group = 0u;  // of the tile's matrix
  if (row_start >= {{ all_rows }}u) { return; }
  {% endblock %}
  {% for q in range(each_x) %}
  let token_{{ q }} = ({{ q * units.threads }}u + index) / {{ units.depth // 8 }}u;
  let place_{{ q }} = min(token_start + token_{{ q }}, count - 1u);
  let eight_{{ q }} = ({{ q * units.threads }}u + index) % {{ units.depth // 8 }}u;
  let from_{{ q }} = columns_of(source_of(place_{{ q }})) + eight_{{ q }};
  var x_{{ q }} = arena[from_{{ q }}{{ " + begin * 4u" if split is defined }}];
  {% endfor %}
  {% for q in range(each_w) %}
  let row_{{ q }} = ({{ q * units.threads }}u + index) / {{ step_groups }}u;
  let part_{{ q }} = ({{ q * units.threads }}u + index) % {{ step_groups }}u;
  let groups_{{ q }} = first_group + min(row_start + row_{{ q }}, {{ all_rows - 1 }}u) * {{ groups }}u;
  var w_{{ q }} = load_weights(groups_{{ q }} + min({{ from }}part_{{ q }}, {{ groups - 1 }}u));
  {% endfor %}
  if (index < {{ units.tokens }}u) {
    let place = min(token_start + index, count - 1u);
    scale_x[index] = scale_of(source_of(place)){{ " * %s" % number(1 / lift) if lift > 1 }};
  }
  let tile = bufferView<array<f16, {{ units.memory // 2 }}>>(&memory, 0u);
  let sums = bufferView<array<f32, {{ units.memory // 4 }}>>(&memory, 0u);
  let mine = subgroup;
  let my_tokens = mine / {{ units.across }}u * {{ units.high * 16 }}u;
  let my_rows = {{ units.tokens }}u + mine % {{ units.across }}u * {{ units.wide * 16 }}u;
  {% for i in range(units.high) %}
  {% for j in range(units.wide) %}
  var y_{{ i }}_{{ j }}: subgroup_matrix_result<f32, 16, 16>;
  {% endfor %}
  {% endfor %}
  for (var g = {{ begin }}; g < {{ end }}; g += {{ step_groups }}u) {
    {% for q in range(each_x) %}
    keep_eight(token_{{ q }} * {{ units.pitch }}u + eight_{{ q }} * 8u, x_{{ q }});
    {% endfor %}
    {% for q in range(each_w) %}
    keep_weights(({{ units.tokens }}u + row_{{ q }}) * {{ units.pitch }}u + part_{{ q }} * 32u, w_{{ q }}, groups_{{ q }} + min(g + part_{{ q }}, {{ groups - 1 }}u));
    {% endfor %}
    workgroupBarrier();
    let next = g + {{ step_groups }}u;
    if (next < {{ end }}) {
      {% for q in range(each_x) %}
      x_{{ q }} = arena[from_{{ q }} + next * 4u];
      {% endfor %}
      {% for q in range(each_w) %}
      w_{{ q }} = load_weights(groups_{{ q }} + min(next + part_{{ q }}, {{ groups - 1 }}u));
      {% endfor %}
    }
    {% block busy %}{% endblock %}
    {
    {% for k in range(0, units.depth, 16) %}
      {
      {% for j in range(units.wide) %}
      let b_{{ j }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(tile, (my_rows + {{ j * 16 }}u) * {{ units.pitch }}u + {{ k }}u, true, {{ units.pitch }}u);
      {% endfor %}
      {% for i in range(units.high) %}
      let a_{{ i }} = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(tile, (my_tokens + {{ i * 16 }}u) * {{ units.pitch }}u + {{ k }}u, false, {{ units.pitch }}u);
      {% for j in range(units.wide) %}
      y_{{ i }}_{{ j }} = subgroupMatrixMultiplyAccumulate(a_{{ i }}, b_{{ j }}, y_{{ i }}_{{ j }});
      {% endfor %}
      {% endfor %}
      }
    {% endfor %}
    }
    workgroupBarrier();
  }
  // squares reach their places through workgroup memory: edges, biases and scales are of single numbers
  let slot = index / {{ units.lanes }}u;
  let slot_token = slot / {{ units.across }}u * {{ units.high * 16 }}u;
  let slot_row = row_start + slot % {{ units.across }}u * {{ units.wide * 16 }}u;
  {% set strip = units.strip %}
  {% for i in range(units.high) %}
  {% for j in range(units.wide) %}
  subgroupMatrixStore(sums, mine * {{ 16 * strip }}u + {{ j * 16 }}u, y_{{ i }}_{{ j }}, false, {{ strip }}u);
  {% endfor %}
  workgroupBarrier();
  for (var e = index % {{ units.lanes }}u; e < {{ 64 * units.wide }}u; e += {{ units.lanes }}u) {
    let token = slot_token + {{ i * 16 }}u + e / {{ 4 * units.wide }}u;
    let row = slot_row + e % {{ 4 * units.wide }}u * 4u;
    let at = (slot * 16u + e / {{ 4 * units.wide }}u) * {{ strip }}u + e % {{ 4 * units.wide }}u * 4u;
    let four = vec4<f32>((*sums)[at], (*sums)[at + 1u], (*sums)[at + 2u], (*sums)[at + 3u]);
    if (token_start + token < count && row < {{ all_rows }}u) { store_four(token_start + token, row, four * scale_x[token]); }
  }
  {{ "workgroupBarrier();" if not loop.last }}
  {% endfor %}
}

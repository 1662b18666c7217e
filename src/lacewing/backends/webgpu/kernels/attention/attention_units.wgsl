enable f16;
enable chromium_experimental_subgroup_matrix;
// As attention_prefill, on matrix units: keys and values are float16 pages, queries are converted to float16, one scale a token (see
// halve.wgsl), sums are float32. The keys pass twice: first for the maximum and the sum of each token's scores, then for the values,
// so that no sum of values is ever scaled again. A subgroup has 16 tokens.
// Grid: tiles of tokens of all such rows, heads.
{% set words = "vec4<f32>" %}
{% include "step.wgsl" %}
{% if sinks %}
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
{% endif %}
{% include "kv.wgsl" %}
{% include "kv_load.wgsl" %}
{% include "activations.wgsl" %}
{% include "attention_range.wgsl" %}
{% set C = kv.key_chunks %}
{% set V = kv.value_chunks %}
{% set K16 = kv.key_width // 16 %}
{% set V16 = kv.value_width // 16 %}
{% set threads = 32 * down %}
{% set each_k = (keys * C + threads - 1) // threads %}
{% set each_v = (keys * V + threads - 1) // threads %}
{% set squares = keys // 16 %}
{% set share_pitch = keys + 8 %}
{% set area = queries * pitch %}
{% set shares = area + keys * pitch %}
{% set half_keys = keys // 2 %}

// queries, then keys or values, then shares
var<workgroup> tile: array<f16, {{ shares + queries * share_pitch }}>;
var<workgroup> sums: array<f32, {{ queries * keys }}>;  // squares of scores, then of what leaves
var<workgroup> most_of: array<f32, {{ threads }}>;
var<workgroup> total_of: array<f32, {{ threads }}>;

fn keep_pair(at: u32, two: vec2<f16>) {
  tile[at] = two.x;
  tile[at + 1u] = two.y;
}

fn keep_eight(at: u32, v: vec4<u32>) {
  {% for c in "xyzw" %}
  keep_pair(at + {{ loop.index0 * 2 }}u, bitcast<vec2<f16>>(v.{{ c }}));
  {% endfor %}
}

fn capped(x: f32) -> f32 {
  {% if softcap %}
  return {{ number(softcap) }} * steady_tanh(x / {{ number(softcap) }});
  {% else %}
  return x;
  {% endif %}
}

{# the next tile of keys or values on its way, and into its place #}
{% macro load(name, each, chunks, row_words, at, first) %}
    {% for q in range(each) %}
    {
      let key = ({{ q * threads }}u + index) / {{ chunks }}u;
      {{ name }}_{{ q }} = vec4<u32>(0u);
      if (key < {{ keys }}u && {{ first }} + key < end) { {{ name }}_{{ q }} = stored[(({{ at }} + key * {{ row_words }}u) >> 2u) + ({{ q * threads }}u + index) % {{ chunks }}u]; }
    }
    {% endfor %}
{% endmacro %}
{% macro keep(name, each, chunks) %}
    {% for q in range(each) %}
    {{ "if (%du + index < %du) { " % (q * threads, keys * chunks) if (q + 1) * threads > keys * chunks }}keep_eight({{ area }}u + ({{ q * threads }}u + index) / {{ chunks }}u * {{ pitch }}u + ({{ q * threads }}u + index) % {{ chunks }}u * 8u, {{ name }}_{{ q }});{{ " }" if (q + 1) * threads > keys * chunks }}
    {% endfor %}
{% endmacro %}
{% macro scores() %}
    {% for j in range(squares) %}
    var s_{{ j }} = subgroup_matrix_result<f32, 16, 16>();
    {% endfor %}
    for (var k = 0u; k < {{ kv.key_width }}u; k += 16u) {
      let a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&tile, mine * {{ 16 * pitch }}u + k, false, {{ pitch }}u);
      {% for j in range(squares) %}
      let b_{{ j }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&tile, {{ area + j * 16 * pitch }}u + k, true, {{ pitch }}u);
      s_{{ j }} = subgroupMatrixMultiplyAccumulate(a, b_{{ j }}, s_{{ j }});
      {% endfor %}
    }
    {% for j in range(squares) %}
    subgroupMatrixStore(&sums, mine * {{ squares * 256 }}u + {{ j * 256 }}u, s_{{ j }}, false, 16u);
    {% endfor %}
    workgroupBarrier();
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) index: u32, @builtin(subgroup_id) subgroup: u32) {
  var place = grid.x - 1u - group.x;  // the longest first
  var part = 0u;
  for (; place >= (part_tokens(part) + {{ queries - 1 }}u) / {{ queries }}u; part++) { place -= (part_tokens(part) + {{ queries - 1 }}u) / {{ queries }}u; }
  let first_token = part_first(part);
  let tokens = part_tokens(part);
  let t0 = place * {{ queries }}u;  // of the part
  let head = group.y;
  let row = row_of(first_token);
  let position = position_of(first_token) + t0;
  let end = position_of(first_token) + min(tokens, t0 + {{ queries }}u);
  let key_head = head / {{ heads // kv.key_heads }}u;
  let mine = subgroup;
  // a token's scores are of two threads, each has every second square or half of one
  let own = index / 2u;
  let side = index % 2u;
  let p = position + own;
  let from_key = first_seen(p);
  let last_key = min(p, end - 1u);
  let own_word = ({{ q.base }}u + (first_token + min(t0 + own, tokens - 1u)) * {{ q.stride }}u + head * {{ kv.key_width }}u) >> 2u;
  var size = 0u;  // compared as integers, a NaN is the largest, and stays in what is divided
  for (var c = 0u; c < {{ kv.key_width // 4 }}u; c++) {
    let bits = bitcast<vec4<u32>>(arena[own_word + c]) & vec4<u32>(0x7FFFFFFFu);
    size = max(size, max(max(bits.x, bits.y), max(bits.z, bits.w)));
  }
  let exponent = clamp(size >> 23u, 14u, 253u);
  let inverse = bitcast<f32>((267u - exponent) << 23u);
  let factor = bitcast<f32>((exponent - 13u) << 23u) * {{ number(scale) }};
  for (var c = side; c < {{ kv.key_width // 4 }}u; c += 2u) {
    let x = arena[own_word + c] * inverse;
    keep_pair(own * {{ pitch }}u + c * 4u, vec2<f16>(x.xy));
    keep_pair(own * {{ pitch }}u + c * 4u + 2u, vec2<f16>(x.zw));
  }
  {% for n in range(V16) %}
  var o_{{ n }}: subgroup_matrix_result<f32, 16, 16>;
  {% endfor %}
  {% for q in range(each_k) %}
  var k_{{ q }}: vec4<u32>;
  {% endfor %}
  {% for q in range(each_v) %}
  var v_{{ q }}: vec4<u32>;
  {% endfor %}
  let begin = first_seen(position) / {{ keys }}u * {{ keys }}u;
  let scores_at = own / 16u * {{ squares * 256 }}u + own % 16u * 16u;
  var most = -3.4e38;
  var total = 0.0;
  var key_at = key_word(row, key_head, begin);
{{ load("k", each_k, C, kv.keys.words, "key_at", "begin") }}
  for (var start = begin; start < end; start += {{ keys }}u) {
{{ keep("k", each_k, C) }}
    workgroupBarrier();
    let next = select(begin, start + {{ keys }}u, start + {{ keys }}u < end);  // at last the first again, for the second pass
    key_at = key_word(row, key_head, next);
{{ load("k", each_k, C, kv.keys.words, "key_at", "next") }}
{{ scores() }}
    var highest = most;
    for (var i = 0u; i < {{ half_keys }}u; i++) {
      let n = side * {{ half_keys }}u + i;
      let s = capped(sums[scores_at + n / 16u * 256u + n % 16u] * factor);
      if (start + n >= from_key && start + n <= last_key) { highest = max(highest, s); }
    }
    total *= exp(most - highest);
    most = highest;
    for (var i = 0u; i < {{ half_keys }}u; i++) {
      let n = side * {{ half_keys }}u + i;
      let s = capped(sums[scores_at + n / 16u * 256u + n % 16u] * factor);
      if (start + n >= from_key && start + n <= last_key) { total += exp(s - most); }
    }
  }
  most_of[index] = most;
  total_of[index] = total;
  workgroupBarrier();
  let other_most = most_of[index ^ 1u];
  var whole = max(most, other_most);
  {% if sinks %}
  whole = max(whole, sinks[head]);
  {% endif %}
  total = total * exp(most - whole) + total_of[index ^ 1u] * exp(other_most - whole);
  {% if sinks %}
  total += exp(sinks[head] - whole);
  {% endif %}
  workgroupBarrier();
  total_of[index] = total;
  for (var start = begin; start < end; start += {{ keys }}u) {
{{ keep("k", each_k, C) }}
    workgroupBarrier();
    let value_at = value_word(row, key_head, start);
{{ load("v", each_v, V, kv.value_rows.words, "value_at", "start") }}
    let next = min(start + {{ keys }}u, end - 1u) / {{ keys }}u * {{ keys }}u;
    key_at = key_word(row, key_head, next);
{{ load("k", each_k, C, kv.keys.words, "key_at", "next") }}
{{ scores() }}
    for (var i = 0u; i < {{ half_keys }}u; i += 2u) {
      let n = side * {{ half_keys }}u + i;
      let at = scores_at + n / 16u * 256u + n % 16u;
      let key = vec2<u32>(start + n, start + n + 1u);
      let on = (key >= vec2<u32>(from_key)) & (key <= vec2<u32>(last_key));
      let s = vec2<f32>(capped(sums[at] * factor), capped(sums[at + 1u] * factor));
      keep_pair({{ shares }}u + own * {{ share_pitch }}u + n, vec2<f16>(select(vec2<f32>(0.0), exp(s - vec2<f32>(whole)), on)));
    }
{{ keep("v", each_v, V) }}
    workgroupBarrier();
    for (var k = 0u; k < {{ keys }}u; k += 16u) {
      let a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&tile, {{ shares }}u + mine * {{ 16 * share_pitch }}u + k, false, {{ share_pitch }}u);
      {% for n in range(V16) %}
      let b_{{ n }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&tile, {{ area + n * 16 }}u + k * {{ pitch }}u, false, {{ pitch }}u);
      o_{{ n }} = subgroupMatrixMultiplyAccumulate(a, b_{{ n }}, o_{{ n }});
      {% endfor %}
    }
    workgroupBarrier();
  }
  let slot = index / 32u;
  {% for n in range(V16) %}
  subgroupMatrixStore(&sums, mine * 256u, o_{{ n }}, false, 16u);
  workgroupBarrier();
  for (var e = index % 32u; e < 64u; e += 32u) {
    let token = slot * 16u + e / 4u;
    if (t0 + token < tokens) {
      let from_sum = slot * 256u + e * 4u;
      let at = {{ out.base }}u + (first_token + t0 + token) * {{ out.stride }}u + head * {{ kv.value_width }}u + {{ n * 16 }}u + e % 4u * 4u;
      arena[at >> 2u] = vec4<f32>(sums[from_sum], sums[from_sum + 1u], sums[from_sum + 2u], sums[from_sum + 3u]) / total_of[2u * token];
    }
  }
  workgroupBarrier();
  {% endfor %}
}

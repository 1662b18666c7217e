enable f16;
enable chromium_experimental_subgroup_matrix;
// As attention_prefill, on matrix units: keys and values are float16 pages, queries are converted to float16, one scale a token (see
// halve.wgsl), sums are float32. Shares of a token are powers of two below a reference, an integer, that moves only when a score is
// far above it: to multiply the sums by a power of two is exact, and seldom needed. A subgroup has 16 tokens.
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
{% set area = 0 if held else queries * pitch %}

// queries, where they are not held in registers; keys or values; shares
var<workgroup> tile: array<f16, {{ shares + queries * share_pitch }}>;
var<workgroup> sums: array<f32, {{ queries * sum_pitch }}>;  // a token's scores, or what leaves
var<workgroup> inverse_of: array<f32, {{ queries }}>;
// the first: whether a reference has; four, since matrices must begin at a multiple of 16 bytes
var<workgroup> moved: array<atomic<u32>, 4>;

fn keep_pair(at: u32, two: vec2<f16>) {
  tile[at] = two.x;
  tile[at + 1u] = two.y;
}

fn keep_eight(at: u32, v: vec4<u32>) {
  {% for c in "xyzw" %}
  keep_pair(at + {{ loop.index0 * 2 }}u, bitcast<vec2<f16>>(v.{{ c }}));
  {% endfor %}
}

{% if softcap %}
fn capped(x: f32) -> f32 { return {{ number(softcap * log2e) }} * steady_tanh(x / {{ number(softcap * log2e) }}); }
{% endif %}

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
{% macro query(k) %}subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&tile, mine * {{ 16 * pitch }}u + {{ k * 16 }}u, false, {{ pitch }}u);{% endmacro %}
{# squares `n` and on of what leaves, to `sums` #}
{% macro leave(n) %}
      {% for j in range(n, [n + squares, V16] | min) %}
      subgroupMatrixStore(&sums, mine * {{ 16 * sum_pitch }}u + {{ (j - n) * 16 }}u, o_{{ j }}, false, {{ sum_pitch }}u);
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
  // a token's scores are of two neighbouring threads, each has every second pair; half of the tokens begin with a pair's second,
  // so that the threads of a subgroup read from different banks
  let own = index / 2u;
  let side = index % 2u;
  let flip = (own >> 3u) & 1u;
  let p = position + own;
  let from_key = first_seen(p);
  let last_key = min(p, end - 1u);
  let own_word = ({{ q.base }}u + (first_token + min(t0 + own, tokens - 1u)) * {{ q.stride }}u + head * {{ kv.key_width }}u) >> 2u;
  var size = 0u;  // compared as integers, a NaN is the largest, and stays in what is divided
  for (var c = side; c < {{ kv.key_width // 4 }}u; c += 2u) {
    let bits = bitcast<vec4<u32>>(arena[own_word + c]) & vec4<u32>(0x7FFFFFFFu);
    size = max(size, max(max(bits.x, bits.y), max(bits.z, bits.w)));
  }
  size = max(size, subgroupShuffleXor(size, 1u));
  let exponent = clamp(size >> 23u, 14u, 253u);
  let inverse = bitcast<f32>((267u - exponent) << 23u);
  let factor = bitcast<f32>((exponent - 13u) << 23u) * {{ number(scale * log2e) }};  // of scores by which 2 is raised
  for (var c = side; c < {{ kv.key_width // 4 }}u; c += 2u) {
    let x = arena[own_word + c] * inverse;
    keep_pair(own * {{ pitch }}u + c * 4u, vec2<f16>(x.xy));
    keep_pair(own * {{ pitch }}u + c * 4u + 2u, vec2<f16>(x.zw));
  }
  {% if held %}
  workgroupBarrier();
  {% for k in range(K16) %}
  let a_{{ k }} = {{ query(k) }}
  {% endfor %}
  workgroupBarrier();
  {% endif %}
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
  let scores_at = own * {{ sum_pitch }}u + side * 2u;
  let shares_at = {{ shares }}u + own * {{ share_pitch }}u + side * 2u;
  let seen_by_all = first_seen(position + {{ queries - 1 }}u);  // the first key that is, or one behind it
  var reference = -3.0e38;
  var total = 0.0;
  if (index == 0u) { atomicStore(&moved[0], 0u); }
  var key_at = key_word(row, key_head, begin);
{{ load("k", each_k, C, kv.keys.words, "key_at", "begin") }}
  for (var start = begin; start < end; start += {{ keys }}u) {
{{ keep("k", each_k, C) }}
    workgroupBarrier();
    let value_at = value_word(row, key_head, start);
{{ load("v", each_v, V, kv.value_rows.words, "value_at", "start") }}
    {% for j in range(squares) %}
    var s_{{ j }} = subgroup_matrix_result<f32, 16, 16>();
    {% endfor %}
    {% for k in range(K16) %}
    {
      {% if not held %}
      let a_{{ k }} = {{ query(k) }}
      {% endif %}
      {% for j in range(squares) %}
      let b_{{ j }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&tile, {{ area + j * 16 * pitch + k * 16 }}u, true, {{ pitch }}u);
      s_{{ j }} = subgroupMatrixMultiplyAccumulate(a_{{ k }}, b_{{ j }}, s_{{ j }});
      {% endfor %}
    }
    {% endfor %}
    {% for j in range(squares) %}
    subgroupMatrixStore(&sums, mine * {{ 16 * sum_pitch }}u + {{ j * 16 }}u, s_{{ j }}, false, {{ sum_pitch }}u);
    {% endfor %}
    workgroupBarrier();
    {% for n in range(0, keys, 4) %}
    var p_{{ n }} = vec2<f32>(sums[scores_at + {{ n }}u + flip], sums[scores_at + {{ n + 1 }}u - flip]) * factor;
    {% if softcap %}
    p_{{ n }} = vec2<f32>(capped(p_{{ n }}.x), capped(p_{{ n }}.y));
    {% endif %}
    {% endfor %}
    if (start < seen_by_all || start + {{ keys - 1 }}u > position) {  // some of them are not for all tokens
      {% for n in range(0, keys, 4) %}
      {
        let key = vec2<u32>(start + side * 2u + {{ n }}u) + vec2<u32>(flip, 1u - flip);
        p_{{ n }} = select(vec2<f32>(-3.4e38), p_{{ n }}, (key >= vec2<u32>(from_key)) & (key <= vec2<u32>(last_key)));
      }
      {% endfor %}
    }
    var most = -3.4e38;
    {% for n in range(0, keys, 4) %}
    most = max(most, max(p_{{ n }}.x, p_{{ n }}.y));
    {% endfor %}
    most = max(most, subgroupShuffleXor(most, 1u));
    var shift = 1.0;
    if (most > reference + 8.0) {
      shift = exp2(reference - ceil(most));
      reference = ceil(most);
      total *= shift;
      if (start > begin) { atomicStore(&moved[0], 1u); }
    }
    {% for n in range(0, keys, 4) %}
    p_{{ n }} = exp2(p_{{ n }} - vec2<f32>(reference));
    total += p_{{ n }}.x + p_{{ n }}.y;
    keep_pair(shares_at + {{ n }}u, vec2<f16>(select(p_{{ n }}, p_{{ n }}.yx, flip == 1u)));
    {% endfor %}
{{ keep("v", each_v, V) }}
    let moves = workgroupUniformLoad(&moved[0]);
    if (moves == 1u) {
      if (index == 0u) { atomicStore(&moved[0], 0u); }
      {% for n in range(0, V16, squares) %}
{{ leave(n) }}
      for (var c = side; c < {{ 16 * ([squares, V16 - n] | min) }}u; c += 2u) { sums[own * {{ sum_pitch }}u + c] *= shift; }
      workgroupBarrier();
      {% for j in range(n, [n + squares, V16] | min) %}
      o_{{ j }} = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>>(&sums, mine * {{ 16 * sum_pitch }}u + {{ (j - n) * 16 }}u, false, {{ sum_pitch }}u);
      {% endfor %}
      workgroupBarrier();
      {% endfor %}
    }
    let next = min(start + {{ keys }}u, end - 1u) / {{ keys }}u * {{ keys }}u;
    key_at = key_word(row, key_head, next);
{{ load("k", each_k, C, kv.keys.words, "key_at", "next") }}
    for (var k = 0u; k < {{ keys }}u; k += 16u) {
      let a = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>>(&tile, {{ shares }}u + mine * {{ 16 * share_pitch }}u + k, false, {{ share_pitch }}u);
      {% for n in range(V16) %}
      let b_{{ n }} = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>>(&tile, {{ area + n * 16 }}u + k * {{ pitch }}u, false, {{ pitch }}u);
      o_{{ n }} = subgroupMatrixMultiplyAccumulate(a, b_{{ n }}, o_{{ n }});
      {% endfor %}
    }
    workgroupBarrier();
  }
  total += subgroupShuffleXor(total, 1u);
  {% if sinks %}
  let sink = sinks[head] * {{ number(log2e) }};
  let top = max(reference, ceil(sink));
  let below = exp2(reference - top);
  let whole = below / (total * below + exp2(sink - top));
  {% else %}
  let whole = 1.0 / total;
  {% endif %}
  if (side == 0u) { inverse_of[own] = whole; }
  {% for n in range(0, V16, squares) %}
  {% set fours = 4 * ([squares, V16 - n] | min) %}
{{ leave(n) }}
  for (var e = index; e < {{ queries * fours }}u; e += {{ threads }}u) {
    let token = e / {{ fours }}u;
    if (t0 + token < tokens) {
      let from_sum = token * {{ sum_pitch }}u + e % {{ fours }}u * 4u;
      let at = {{ out.base }}u + (first_token + t0 + token) * {{ out.stride }}u + head * {{ kv.value_width }}u + {{ n * 16 }}u + e % {{ fours }}u * 4u;
      arena[at >> 2u] = vec4<f32>(sums[from_sum], sums[from_sum + 1u], sums[from_sum + 2u], sums[from_sum + 3u]) * inverse_of[token];
    }
  }
  {{ "workgroupBarrier();" if not loop.last }}
  {% endfor %}
}

// Scores of an index: of one token and 64 positions a workgroup, whose threads keep a position's key in registers and go through the
// heads of the query. Grid: positions / 64, tokens of the pass.
{% set words = "f32" %}
{% include "step.wgsl" %}
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;  // (tokens of the pass, row_words)
@group(0) @binding(4) var<storage, read> first_token: array<u32>;   // of the pass
{% include "kv.wgsl" %}
{% include "kv_load.wgsl" %}
{% set parts = 2 * kv.index.chunks %}

var<workgroup> queries: array<vec4<f32>, {{ together * parts }}>;  // of so many heads at a time

fn index_eight(word: u32, chunk: u32) -> Eight {
  return {{ "scaled(word, chunk, %du)" % kv.index.value_words if kv.dtype == "q8_0" else "key_eight(word, chunk)" }};
}

fn query(at: u32, c: u32) -> f32 {
  return {{ "select(0.0, arena[at + min(c, %du)], c < %du)" % (width - 1, width) if width % 8 else "arena[at + c]" }};
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let t = first_token[0] + group.y;
  let seen = position_of(t) + 1u;
  if (seen <= {{ most }}u || group.x * 64u >= seen) { return; }
  let position = group.x * 64u + index;
  let word = index_word(row_of(t), 0u, min(position, seen - 1u));
  {% for chunk in range(kv.index.chunks) %}
  let e_{{ chunk }} = index_eight(word, {{ chunk }}u);
  {% endfor %}
  var total = 0.0;
  for (var first = 0u; first < {{ heads }}u; first += {{ together }}u) {
    for (var item = index; item < {{ together * parts }}u; item += 64u) {
      let c = (item % {{ parts }}u) * 4u;
      let at = {{ q.base }}u + (t * {{ q.stride }}u) + (min(first + (item / {{ parts }}u), {{ heads - 1 }}u) * {{ width }}u);
      queries[item] = vec4<f32>(query(at, c), query(at, c + 1u), query(at, c + 2u), query(at, c + 3u));
    }
    workgroupBarrier();
    for (var h = 0u; h < min({{ together }}u, {{ heads }}u - first); h++) {
      let own = h * {{ parts }}u;
      var sum = 0.0;
      {% for chunk in range(kv.index.chunks) %}
      sum += dot(e_{{ chunk }}.a, queries[own + {{ 2 * chunk }}u]) + dot(e_{{ chunk }}.b, queries[own + {{ 2 * chunk + 1 }}u]);
      {% endfor %}
      total += arena[{{ weights.base }}u + (t * {{ weights.stride }}u) + first + h] * max(sum, 0.0);
    }
    workgroupBarrier();
  }
  if (position < seen) { scores[(group.y * {{ row_words }}u) + position] = total; }
}

// Attention of few tokens: a workgroup takes `block` query heads of a key head, so that keys and values are read once for all.
// A tile of keys at a time: scores, softmax with sums kept as they come, values. With `split` a workgroup has a part of the keys
// and leaves sums for `attention_merge`. With `before`, of one token only, it also does what `heads` does: norms and rotations of
// its queries and of the new key, and stores the token's key and value. Grid: heads / block, splits, tokens.
{% set words = "u32" %}
{% include "step.wgsl" %}
@group(0) @binding(2) var<storage, {{ "read_write" if before else "read" }}> stored: array<vec4<u32>>;
{% set more = 4 if split or sinks else 3 %}
{% if split %}
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;
{% elif sinks %}
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
{% endif %}
{% if before %}
{% for weight in range(before.weights) %}
@group(0) @binding({{ more + weight }}) var<storage, read> weight{{ weight }}: array<f32>;
{% endfor %}
{% for table in range(before.tables) %}
@group(0) @binding({{ more + before.weights + table }}) var<storage, read> frequencies{{ table }}: array<vec2<u32>>;
{% endfor %}
{% include "turn.wgsl" %}
{% endif %}
{% include "kv.wgsl" %}
{% include "kv_load.wgsl" %}
{% include "activations.wgsl" %}
{% include "attention_range.wgsl" %}
{% if not split %}
{% include "attention_out.wgsl" %}
{% endif %}
{% set C = kv.key_chunks %}
{% set V = kv.value_chunks %}
{% set V4 = 2 * V %}

var<workgroup> pool: array<vec4<f32>, {{ pool }}>;  // queries; in the end sums of values
var<workgroup> shares: array<f32, {{ block * tile }}>;
var<workgroup> largest: array<f32, {{ block }}>;
var<workgroup> totals: array<f32, {{ block }}>;
var<workgroup> shrinks: array<f32, {{ block }}>;
{% if not variant.subgroups %}
var<workgroup> folded: array<f32, {{ threads }}>;
{% endif %}

fn place_of(g: u32, c: u32) -> u32 { return (g * {{ C * 8 }}u) + (((c >> 2u) & 1u) * {{ C * 4 }}u) + ((c >> 3u) * 4u) + (c & 3u); }

fn value_of(g: u32, c: u32) -> f32 {
  let place = place_of(g, c);
  return pool[place >> 2u][place & 3u];
}

fn set_value(g: u32, c: u32, value: f32) {
  let place = place_of(g, c);
  pool[place >> 2u][place & 3u] = value;
}

{% if before %}
fn store_eight(word: u32, chunk: u32, e: Eight) {
  {% if kv.half %}
  stored[(word >> 2u) + chunk] = vec4<u32>(pack2x16float(e.a.xy), pack2x16float(e.a.zw), pack2x16float(e.b.xy), pack2x16float(e.b.zw));
  {% else %}
  stored[(word >> 2u) + (chunk * 2u)] = bitcast<vec4<u32>>(e.a);
  stored[(word >> 2u) + (chunk * 2u) + 1u] = bitcast<vec4<u32>>(e.b);
  {% endif %}
}
{% endif %}

{% macro new_value(c) %}
{% if kv.value_width % 8 %}
select(0.0, bitcast<f32>(arena[at + {{ c }}u]), (i * 8u) + {{ c }}u < {{ kv.value_width }}u)
{%- else %}
bitcast<f32>(arena[at + {{ c }}u])
{%- endif %}
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  {% if variant.fixed %}
  @builtin(subgroup_id) team: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  {% endif %}
) {
  {% if not variant.fixed %}
  let team = index / {{ team }}u;
  let lane = index % {{ team }}u;
  {% endif %}
  let t = group.z;
  let slot = slot_of(t);
  let position = position_of(t);
  let head = group.x * {{ block }}u;
  let key_head = head / {{ heads // kv.key_heads }}u;
  var first = first_seen(position);
  var end = position + 1u;
  {% if split %}
  let length = split_length(end - first);
  first += group.y * length;
  if (first >= end) { return; }
  end = min(end, first + length);
  {% endif %}
  // queries, and the new key: of each head the first four values of every eight, then the others
  for (var i = index; i < {{ (block + (1 if before else 0)) * C * 8 }}u; i += {{ threads }}u) {
    let g = i / {{ C * 8 }}u;
    let c = i % {{ C * 8 }}u;
    var value = 0.0;
    {% if kv.key_width % 8 %}
    if (c < {{ kv.key_width }}u) {
    {% endif %}
    var at = {{ q.base }}u + (t * {{ q.stride }}u) + ((head + g) * {{ kv.key_width }}u) + c;
    {% if before %}
    if (g == {{ block }}u) { at = {{ before.k.base }}u + (t * {{ before.k.stride }}u) + (key_head * {{ kv.key_width }}u) + c; }
    {% endif %}
    value = bitcast<f32>(arena[at]);
    {% if kv.key_width % 8 %}
    }
    {% endif %}
    set_value(g, c, value);
  }
  {% if before %}
  workgroupBarrier();
  {% for q_step, k_step in before.steps %}
  for (var g = team; g < {{ block + 1 }}u; g += {{ threads // variant.lanes }}u) {
    {% for step in (q_step, k_step) %}
    {% if step %}
    if (g {{ "<" if loop.first else "==" }} {{ block }}u) {
      {% if step.kind == "norm" %}
      var sum = 0.0;
      for (var c = lane; c < {{ kv.key_width }}u; c += {{ variant.lanes }}u) { sum += value_of(g, c) * value_of(g, c); }
      let factor = 1.0 / sqrt(({{ variant.add }}(sum) / {{ number(kv.key_width) }}) + {{ number(step.eps) }});
      for (var c = lane; c < {{ kv.key_width }}u; c += {{ variant.lanes }}u) {
        set_value(g, c, value_of(g, c) * factor{% if step.weight is not none %} * (weight{{ step.weight }}[c] + {{ number(step.offset) }}){% endif %});
      }
      {% elif step.kind == "rope" %}
      for (var pair = lane; pair < {{ step.pairs }}u; pair += {{ variant.lanes }}u) {
        let first_of = {{ step.start }}u + {{ "(pair * 2u)" if step.adjacent else "pair" }};
        let second_of = first_of + {{ 1 if step.adjacent else step.pairs }}u;
        let turn = turned(position, frequencies{{ step.table }}[pair]) * {{ number(step.magnitude) }};
        let x = value_of(g, first_of);
        let y = value_of(g, second_of);
        set_value(g, first_of, x * turn.x - y * turn.y);
        set_value(g, second_of, x * turn.y + y * turn.x);
      }
      {% else %}
      let factor = 1.0 + {{ number(step.beta) }} * log(f32(1u + (position + {{ step.offset }}u) / {{ step.length }}u));
      for (var c = lane; c < {{ kv.key_width }}u; c += {{ variant.lanes }}u) { set_value(g, c, value_of(g, c) * factor); }
      {% endif %}
    }
    {% endif %}
    {% endfor %}
  }
  workgroupBarrier();
  {% endfor %}
  if (end == position + 1u) {
    if (index < {{ C }}u) {
      let row_of = key_word(slot, key_head, position);
      store_eight(row_of, index, Eight(pool[{{ 2 * C * block }}u + index], pool[{{ 2 * C * block + C }}u + index]));
    }
    for (var i = index; i < {{ V }}u; i += {{ threads }}u) {
      let at = {{ before.v.base }}u + (t * {{ before.v.stride }}u) + (key_head * {{ kv.value_width }}u) + (i * 8u);
      let row_of = value_word(slot, key_head, position);
      store_eight(row_of, i, Eight(vec4<f32>({% for c in range(4) %}{{ new_value(c) }}{{ ", " if not loop.last }}{% endfor %}), vec4<f32>({% for c in range(4, 8) %}{{ new_value(c) }}{{ ", " if not loop.last }}{% endfor %})));
    }
    storageBarrier();
  }
  {% endif %}
  if (index < {{ block }}u) {
    largest[index] = -3.4e38;
    totals[index] = 0.0;
  }
  let row = index / {{ row_lanes }}u;  // of the keys that the workgroup scores at a time
  let sub = index % {{ row_lanes }}u;
  let chunk = index % {{ V }}u;
  let strand = index / {{ V }}u;  // of the values
  {% for g in range(block) %}
  var a{{ g }} = vec4<f32>(0.0);
  var b{{ g }} = vec4<f32>(0.0);
  {% endfor %}
  workgroupBarrier();
  for (var start = first; start < end; start += {{ tile }}u) {
    let count = min({{ tile }}u, end - start);
    let keys = key_word(slot, key_head, start);
    let values = value_word(slot, key_head, start);
    {% if kv.half %}
    // the first values are on their way while the keys are looked at
    {% for u in range(4) %}
    let ahead{{ u }} = stored[((values + (min(strand + {{ u * strands }}u, count - 1u) * {{ kv.value_words }}u)) >> 2u) + chunk];
    {% endfor %}
    {% endif %}
    for (var base = 0u; base < count; base += {{ rows * unroll }}u) {
      {% for u in range(unroll) %}
      let i{{ u }} = base + {{ u * rows }}u + row;
      let k{{ u }} = keys + (min(i{{ u }}, count - 1u) * {{ kv.key_words }}u);
      {% for g in range(block) %}
      var s{{ u }}_{{ g }} = 0.0;
      {% endfor %}
      {% endfor %}
      {% macro score(r) %}
      {
        let c = {{ r }} * {{ row_lanes }}u + sub;
        {% for u in range(unroll) %}
        let e{{ u }} = eight(k{{ u }}, c);
        {% endfor %}
        {% for g in range(block) %}
        {
          let qa = pool[{{ g * 2 * C }}u + c];
          let qb = pool[{{ g * 2 * C + C }}u + c];
          {% for u in range(unroll) %}
          s{{ u }}_{{ g }} += dot(e{{ u }}.a, qa) + dot(e{{ u }}.b, qb);
          {% endfor %}
        }
        {% endfor %}
      }
      {% endmacro %}
      {% if C // row_lanes <= 12 %}
      {% for r in range(C // row_lanes) %}
      {{ score("%du" % r) }}
      {% endfor %}
      {% else %}
      for (var r = 0u; r < {{ C // row_lanes }}u; r++) {
        {{ score("r") }}
      }
      {% endif %}
      {# sums over the lanes of a row; while there is an even number of heads, each half of the lanes goes on with half of them #}
      {% set state = namespace(names=[], left=block, lanes=row_lanes, round=0) %}
      var mine = 0u;  // the first of the heads that this thread has in the end
      var owner = true;
      {% for u in range(unroll) %}
      {% for g in range(block) %}
      let f{{ u }}_0_{{ g }} = s{{ u }}_{{ g }};
      {% endfor %}
      {% endfor %}
      {% for round in range(8) %}
      {% if state.lanes > 1 %}
      {% set half = state.lanes // 2 %}
      {% if state.left % 2 == 0 %}
      {% set state.left = state.left // 2 %}
      let up{{ round }} = (sub & {{ half }}u) != 0u;
      mine += select(0u, {{ state.left }}u, up{{ round }});
      {% for u in range(unroll) %}
      {% for g in range(state.left) %}
      {% set low = "f%d_%d_%d" % (u, state.round, g) %}
      {% set high = "f%d_%d_%d" % (u, state.round, g + state.left) %}
      let f{{ u }}_{{ state.round + 1 }}_{{ g }} = select({{ low }}, {{ high }}, up{{ round }}) + subgroupShuffleXor(select({{ high }}, {{ low }}, up{{ round }}), {{ half }}u);
      {% endfor %}
      {% endfor %}
      {% else %}
      owner = owner && (sub & {{ half }}u) == 0u;
      {% for u in range(unroll) %}
      {% for g in range(state.left) %}
      let f{{ u }}_{{ state.round + 1 }}_{{ g }} = f{{ u }}_{{ state.round }}_{{ g }} + subgroupShuffleXor(f{{ u }}_{{ state.round }}_{{ g }}, {{ half }}u);
      {% endfor %}
      {% endfor %}
      {% endif %}
      {% set state.lanes = half %}
      {% set state.round = state.round + 1 %}
      {% endif %}
      {% endfor %}
      {% for u in range(unroll) %}
      if (owner && i{{ u }} < count) {
        {% for g in range(state.left) %}
        shares[((mine + {{ g }}u) * {{ tile }}u) + i{{ u }}] = capped(f{{ u }}_{{ state.round }}_{{ g }} * {{ number(scale) }});
        {% endfor %}
      }
      {% endfor %}
    }
    workgroupBarrier();
    {% if variant.subgroups %}
    for (var g = team; g < {{ block }}u; g += {{ threads // variant.lanes }}u) {
      var most = -3.4e38;
      for (var i = lane; i < count; i += {{ variant.lanes }}u) { most = max(most, shares[(g * {{ tile }}u) + i]); }
      let before = largest[g];
      let now = max(before, {{ variant.max }}(most));
      var sum = 0.0;
      for (var i = lane; i < count; i += {{ variant.lanes }}u) {
        let share = exp(shares[(g * {{ tile }}u) + i] - now);
        shares[(g * {{ tile }}u) + i] = share;
        sum += share;
      }
      sum = {{ variant.add }}(sum);
      if (lane == 0u) {
        let shrink = exp(before - now);
        largest[g] = now;
        shrinks[g] = shrink;
        totals[g] = (totals[g] * shrink) + sum;
      }
    }
    {% else %}
    for (var round = 0u; round < {{ (block * team + threads - 1) // threads }}u; round++) {
      let g = (round * {{ threads // team }}u) + team;
      let on = g < {{ block }}u;
      var most = -3.4e38;
      for (var i = lane; on && i < count; i += {{ team }}u) { most = max(most, shares[(g * {{ tile }}u) + i]); }
      folded[index] = most;
      workgroupBarrier();
      for (var n = {{ team // 2 }}u; n > 0u; n >>= 1u) {
        if (lane < n) { folded[index] = max(folded[index], folded[index + n]); }
        workgroupBarrier();
      }
      let before = largest[min(g, {{ block - 1 }}u)];
      let now = max(before, folded[index - lane]);
      workgroupBarrier();
      var sum = 0.0;
      for (var i = lane; on && i < count; i += {{ team }}u) {
        let share = exp(shares[(g * {{ tile }}u) + i] - now);
        shares[(g * {{ tile }}u) + i] = share;
        sum += share;
      }
      folded[index] = sum;
      workgroupBarrier();
      for (var n = {{ team // 2 }}u; n > 0u; n >>= 1u) {
        if (lane < n) { folded[index] += folded[index + n]; }
        workgroupBarrier();
      }
      if (on && lane == 0u) {
        let shrink = exp(before - now);
        largest[g] = now;
        shrinks[g] = shrink;
        totals[g] = (totals[g] * shrink) + folded[index];
      }
      workgroupBarrier();
    }
    {% endif %}
    workgroupBarrier();
    {% for g in range(block) %}
    a{{ g }} *= shrinks[{{ g }}];
    b{{ g }} *= shrinks[{{ g }}];
    {% endfor %}
    {% if threads % V %}
    if (strand < {{ strands }}u) {
    {% endif %}
    {% macro weigh(e) %}
      {% for u in range(4) %}
      let i{{ u }} = base + {{ u * strands }}u;
      let e{{ u }} = {{ e | replace("#", u) }};
      {% endfor %}
      {% for u in range(4) %}
      {% for g in range(block) %}
      {
        let share = select(0.0, shares[{{ g * tile }}u + min(i{{ u }}, count - 1u)], i{{ u }} < count);
        a{{ g }} += share * e{{ u }}.a;
        b{{ g }} += share * e{{ u }}.b;
      }
      {% endfor %}
      {% endfor %}
    {% endmacro %}
    {% if kv.half %}
    {
      let base = strand;
{{ weigh("halves(ahead#)") }}
    }
    {% endif %}
    for (var base = strand{{ " + %du" % (4 * strands) if kv.half }}; base < count; base += {{ 4 * strands }}u) {
{{ weigh("eight(values + (min(i#, count - 1u) * %du), chunk)" % kv.value_words) }}
    }
    {% if threads % V %}
    }
    {% endif %}
    workgroupBarrier();
  }
  // sums of the strands, `together` heads at a time
  {% for start in range(0, block, together) %}
  {% set members = range(start, (start + together, block) | min) %}
  {% for g in members %}
  {
    var a = a{{ g }};
    var b = b{{ g }};
    {% for step in folds %}
    a += subgroupShuffleXor(a, {{ step }}u);
    b += subgroupShuffleXor(b, {{ step }}u);
    {% endfor %}
    if ({{ "strand < %du && " % strands if threads % V }}(strand & {{ fold - 1 }}u) == 0u) {
      let at = {{ (g - start) * V4 * (strands // fold) }}u + ((strand / {{ fold }}u) * {{ V4 }}u) + (chunk * 2u);
      pool[at] = a;
      pool[at + 1u] = b;
    }
  }
  {% endfor %}
  workgroupBarrier();
  for (var base = 0u; base < {{ members | length * V4 }}u; base += {{ threads }}u) {
    let item = min(base + index, {{ members | length * V4 - 1 }}u);
    let on = base + index < {{ members | length * V4 }}u;
    let h = item / {{ V4 }}u;
    let column = item % {{ V4 }}u;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < {{ strands // fold }}u; i++) { sum += pool[(h * {{ V4 * (strands // fold) }}u) + (i * {{ V4 }}u) + column]; }
    let g = {{ start }}u + h;
    {% if split %}
    if (on) {
      let at = ((((t * {{ heads }}u) + head + g) * {{ split_most }}u) + group.y) * {{ V4 + 1 }}u;
      parts[at + column] = sum;
      if (column == 0u) { parts[at + {{ V4 }}u] = vec4<f32>(largest[g], totals[g], 0.0, 0.0); }
    }
    {% else %}
    {% if sinks %}
    let most = max(largest[g], sinks[head + g]);
    let shrink = exp(largest[g] - most);
    let v = (sum * shrink) / ((totals[g] * shrink) + exp(sinks[head + g] - most));
    {% else %}
    let v = sum / totals[g];
    {% endif %}
    let at = ((head + g) * {{ kv.value_width }}u) + (column * 4u);
    if (on && column * 4u < {{ kv.value_width }}u) { put_out(t, at, v, {{ kv.value_width }}u - (column * 4u)); }
    {% if codes and variant.subgroups and variant.lanes >= 8 %}
    put_codes(t, at, v, lane, on);
    {% endif %}
    {% endif %}
  }
  {% if not loop.last %}
  workgroupBarrier();
  {% endif %}
  {% endfor %}
  {% if codes and not (variant.subgroups and variant.lanes >= 8) and not split %}
  put_codes_after(t, head * {{ kv.value_width }}u, {{ block * kv.value_width // 32 }}u, index, {{ threads }}u);
  {% endif %}
}

fn capped(x: f32) -> f32 {
  {% if softcap %}
  return {{ number(softcap) }} * steady_tanh(x / {{ number(softcap) }});
  {% else %}
  return x;
  {% endif %}
}

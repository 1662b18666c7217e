// Attention of rows that have many tokens in the run: a tile of `queries` tokens of one head against a tile of `keys`
// at a time, softmax with sums kept as they come. Thread (tx, ty) has `own` rows and every `across`-th key, then column.
// Tiles of keys begin at whole multiples, so that a token's result does not depend on its neighbours.
// Grid: tiles of tokens of all such rows, heads.
{% set words = "vec4<f32>" if aligned else "f32" %}
{% include "step.wgsl" %}
{% if sinks %}
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
{% endif %}
{% include "kv.wgsl" %}
{% include "kv_load.wgsl" %}
{% include "activations.wgsl" %}
{% include "attention_range.wgsl" %}
{% set C = kv.key_chunks %}
{% set V4 = 2 * kv.value_chunks %}
{% set threads = across * 8 %}
{% set few = "vec%d<f32>" % own %}
{% set depth = 2 * parts %}

var<workgroup> area: array<vec4<f32>, {{ area }}>;  // a slice of queries and keys, then of values
var<workgroup> shares: array<{{ few }}, {{ keys * 9 }}>;  // of each key those of a thread's rows; 9: no two threads on one bank

fn query(at: u32, c: u32) -> vec4<f32> {
  {% if aligned %}
  return arena[(at + c) >> 2u];
  {% else %}
  return vec4<f32>({% for i in range(4) %}{% if kv.key_width % 8 %}select(0.0, arena[min(at + c + {{ i }}u, at + {{ kv.key_width - 1 }}u)], c + {{ i }}u < {{ kv.key_width }}u){% else %}arena[at + c + {{ i }}u]{% endif %}{{ ", " if not loop.last }}{% endfor %});
  {% endif %}
}

fn capped(x: vec4<f32>) -> vec4<f32> {
  {% if softcap %}
  let y = x / {{ number(softcap) }};
  return {{ number(softcap) }} * vec4<f32>(steady_tanh(y.x), steady_tanh(y.y), steady_tanh(y.z), steady_tanh(y.w));
  {% else %}
  return x;
  {% endif %}
}

{# the value of `name` of all threads of a row joined by `op`, plus or max #}
{% macro joined(name, op) %}
  {% if shuffles %}
  {% for step in (1, 2, 4, 8) if step < across %}
  {% for r in range(own) %}
  {{ name }}{{ r }} = {{ op }}({{ name }}{{ r }}, subgroupShuffleXor({{ name }}{{ r }}, {{ step }}u));
  {% endfor %}
  {% endfor %}
  {% else %}
  area[index] = vec4<f32>({% for r in range(4) %}{{ name }}{{ [r, own - 1] | min }}{{ ", " if not loop.last }}{% endfor %});
  workgroupBarrier();
  {% if op == "plus" %}
  {% for r in range(own) %}
  {{ name }}{{ r }} = 0.0;
  {% endfor %}
  {% endif %}
  for (var i = 0u; i < {{ across }}u; i++) {
    let other = area[(ty * {{ across }}u) + i];
    {% for r in range(own) %}
    {{ name }}{{ r }} = {{ op }}({{ name }}{{ r }}, other[{{ r }}]);
    {% endfor %}
  }
  workgroupBarrier();
  {% endif %}
{% endmacro %}

fn plus(a: f32, b: f32) -> f32 { return a + b; }

@compute @workgroup_size({{ threads }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let tx = index % {{ across }}u;
  let ty = index / {{ across }}u;
  var tile = grid.x - 1u - group.x;  // the longest first
  var part = 0u;
  for (; tile >= (part_tokens(part) + {{ queries - 1 }}u) / {{ queries }}u; part++) { tile -= (part_tokens(part) + {{ queries - 1 }}u) / {{ queries }}u; }
  let first_token = part_first(part);
  let tokens = part_tokens(part);
  let t0 = tile * {{ queries }}u;  // of the part
  let head = group.y;
  let row = row_of(first_token);
  let position = position_of(first_token) + t0;
  let end = position_of(first_token) + min(tokens, t0 + {{ queries }}u);
  let key_head = head / {{ heads // kv.key_heads }}u;
  {% for r in range(own) %}
  let p{{ r }} = position + (ty * {{ own }}u) + {{ r }}u;
  let from{{ r }} = first_seen(p{{ r }});
  {% if sinks %}
  var most{{ r }} = sinks[head];
  var total{{ r }} = select(0.0, 1.0, tx == 0u);
  {% else %}
  var most{{ r }} = -3.4e38;
  var total{{ r }} = 0.0;
  {% endif %}
  {% for n in range(columns) %}
  var o{{ r }}_{{ n }} = vec4<f32>(0.0);
  {% endfor %}
  {% endfor %}
  for (var start = (first_seen(position) / {{ keys }}u) * {{ keys }}u; start < end; start += {{ keys }}u) {
    let count = min({{ keys }}u, end - start);
    let key_row = key_word(row, key_head, start);
    {% for r in range(own) %}
    var s{{ r }} = vec4<f32>(0.0);
    {% endfor %}
    for (var c0 = 0u; c0 < {{ C }}u; c0 += {{ parts }}u) {
      for (var item = index; item < {{ (queries + keys) * parts }}u; item += {{ threads }}u) {
        let item_row = item / {{ parts }}u;
        let piece = item % {{ parts }}u;
        var e = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
        if (item_row < {{ queries }}u) {
          {% if C % parts %}
          if (c0 + piece < {{ C }}u) {
          {% endif %}
          let at = {{ q.base }}u + ((first_token + min(t0 + item_row, tokens - 1u)) * {{ q.stride }}u) + (head * {{ kv.key_width }}u);
          e = Eight(query(at, (c0 + piece) * 8u), query(at, ((c0 + piece) * 8u) + 4u));
          {% if C % parts %}
          }
          {% endif %}
          let to = (piece * {{ 2 * queries }}u) + item_row;
          area[to] = e.a;
          area[to + {{ queries }}u] = e.b;
        } else {
          let key = item_row - {{ queries }}u;
          if (key < count{{ " && c0 + piece < %du" % C if C % parts }}) { e = key_eight(key_row + (key * {{ kv.keys.words }}u), c0 + piece); }
          let to = {{ queries * depth }}u + (piece * {{ 2 * keys }}u) + key;
          area[to] = e.a;
          area[to + {{ keys }}u] = e.b;
        }
      }
      workgroupBarrier();
      {% for d in range(depth) %}
      {
        {% for i in range(4) %}
        let k{{ i }} = area[{{ queries * depth + d * keys + i * across }}u + tx];
        {% endfor %}
        {% for r in range(own) %}
        let q{{ r }} = area[{{ d * queries + r }}u + (ty * {{ own }}u)];
        s{{ r }} += vec4<f32>(dot(q{{ r }}, k0), dot(q{{ r }}, k1), dot(q{{ r }}, k2), dot(q{{ r }}, k3));
        {% endfor %}
      }
      {% endfor %}
      workgroupBarrier();
    }
    let mine = vec4<u32>(start + tx) + vec4<u32>(0u, {{ across }}u, {{ 2 * across }}u, {{ 3 * across }}u);
    {% for r in range(own) %}
    let on{{ r }} = (mine <= vec4<u32>(min(p{{ r }}, end - 1u))) & (mine >= vec4<u32>(from{{ r }}));
    s{{ r }} = select(vec4<f32>(-3.4e38), capped(s{{ r }} * {{ number(scale) }}), on{{ r }});
    var now{{ r }} = max(max(s{{ r }}.x, s{{ r }}.y), max(s{{ r }}.z, s{{ r }}.w));
    {% endfor %}
{{ joined("now", "max") }}
    {% for r in range(own) %}
    now{{ r }} = max(now{{ r }}, most{{ r }});
    let shrink{{ r }} = exp(most{{ r }} - now{{ r }});
    most{{ r }} = now{{ r }};
    s{{ r }} = select(vec4<f32>(0.0), exp(s{{ r }} - now{{ r }}), on{{ r }});
    total{{ r }} = (total{{ r }} * shrink{{ r }}) + ((s{{ r }}.x + s{{ r }}.y) + (s{{ r }}.z + s{{ r }}.w));
    {% for n in range(columns) %}
    o{{ r }}_{{ n }} *= shrink{{ r }};
    {% endfor %}
    {% endfor %}
    {% for i in range(4) %}
    shares[((tx + {{ i * across }}u) * 9u) + ty] = {{ few }}({% for r in range(own) %}s{{ r }}[{{ i }}]{{ ", " if not loop.last }}{% endfor %});
    {% endfor %}
    workgroupBarrier();
    let value_row = value_word(row, key_head, start);
    for (var base = 0u; base < count; base += {{ slice }}u) {
      for (var item = index; item < {{ slice * kv.value_chunks }}u; item += {{ threads }}u) {
        let key = item / {{ kv.value_chunks }}u;
        let chunk = item % {{ kv.value_chunks }}u;
        var e = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
        if (base + key < count) { e = value_eight(value_row + ((base + key) * {{ kv.value_rows.words }}u), chunk); }
        let to = (key * {{ V4 }}u) + (chunk * 2u);
        area[to] = e.a;
        area[to + 1u] = e.b;
      }
      workgroupBarrier();
      {% for j in range(slice) %}
      {
        let share = shares[((base + {{ j }}u) * 9u) + ty];
        {% for n in range(columns) %}
        let v{{ n }} = area[{{ j * V4 + n * across }}u + {{ "tx" if V4 >= (n + 1) * across else "min(tx, %du)" % (V4 - 1 - n * across) }}];
        {% for r in range(own) %}
        o{{ r }}_{{ n }} += share[{{ r }}] * v{{ n }};
        {% endfor %}
        {% endfor %}
      }
      {% endfor %}
      workgroupBarrier();
    }
  }
{{ joined("total", "plus") }}
  {% for r in range(own) %}
  if (t0 + (ty * {{ own }}u) + {{ r }}u < tokens) {
    let at = {{ out.base }}u + ((first_token + t0 + (ty * {{ own }}u) + {{ r }}u) * {{ out.stride }}u) + (head * {{ kv.value_width }}u);
    {% for n in range(columns) %}
    {
      let c = (tx + {{ n * across }}u) * 4u;
      let v = o{{ r }}_{{ n }} / total{{ r }};
      {% if aligned %}
      if (c < {{ kv.value_width }}u) { arena[(at + c) >> 2u] = v; }
      {% else %}
      {% for i in range(4) %}
      if (c + {{ i }}u < {{ kv.value_width }}u) { arena[at + c + {{ i }}u] = v[{{ i }}]; }
      {% endfor %}
      {% endif %}
    }
    {% endfor %}
  }
  {% endfor %}
}

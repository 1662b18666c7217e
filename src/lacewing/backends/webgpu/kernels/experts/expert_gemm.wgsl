{# What the tiles of experts share: where a tile's expert and pairs stand in the list, and where results go. #}
fn word(at: u32) -> u32 { return {{ "bitcast<u32>(arena[at >> 2u][at & 3u])" if words == "vec4<f32>" else "arena[at >> 2u][at & 3u]" }}; }

// Of 16 bytes: matrices of units are in workgroup memory besides, and must begin at a multiple of 16.
struct Tile { expert: u32, start: u32, count: u32, unused: u32 }

var<workgroup> shared_tile: Tile;

// The same in every thread, and for compilers to see: barriers follow. Behind the end of the list: of no expert.
fn tile_at(place: u32, index: u32) -> Tile {
  if (index == 0u) {
    let at = {{ lists.base + 1 }}u + place * 3u;
    shared_tile = Tile(0xFFFFFFFFu, 0u, 0u, 0u);
    if (place < word({{ lists.base }}u)) { shared_tile = Tile(word(at), word(at + 1u), word(at + 2u), 0u); }
  }
  return workgroupUniformLoad(&shared_tile);
}

// t * active + a
fn pair_at(place: u32) -> u32 { return word({{ lists.base + 1 + 3 * tiles }}u + place); }

{% if biased %}
@group(0) @binding({{ first + layout.planes | length }}) var<storage, read> bias: array<f32>;  // (experts, rows)
{% endif %}

fn store_row(expert: u32, pair: u32, row: u32, sum: f32) {
  let t = pair / {{ active }}u;
  let a = pair % {{ active }}u;
  let y = sum{% if factor %} * bitcast<f32>(word({{ factor.base }}u + t * {{ factor.stride }}u + a)){% endif %}{{ " + bias[expert * %du + row]" % (rows * parts) if biased }};
  let part = {{ ("row % " ~ parts ~ "u") if interleaved else ("row / " ~ rows ~ "u") }};
  let column = a * {{ rows }}u + {{ ("row / " ~ parts ~ "u") if interleaved else ("row % " ~ rows ~ "u") }};
  {% for out in outs %}
  {{ "if (part == %du) " % loop.index0 if not loop.last }}{ put({{ out.base }}u + t * {{ out.stride }}u + column, y); }{{ " else" if not loop.last }}
  {% endfor %}
}

fn put(at: u32, value: f32) { arena[at >> 2u][at & 3u] = {{ "value" if words == "vec4<f32>" else "bitcast<u32>(value)" }}; }

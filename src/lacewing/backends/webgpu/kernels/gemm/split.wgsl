{# Partial sums of a product whose columns are divided: part, token, row. `split`: up to how many tiles of tokens there are how many
   parts; `split_binding`: the number of the buffer. #}
@group(0) @binding({{ split_binding }}) var<storage, read_write> parts: array<vec4<f32>>;

fn parts_of(blocks: u32) -> u32 {
  {% for upto, count in split %}
  if (blocks <= {{ upto }}u) { return {{ count }}u; }
  {% endfor %}
  return 1u;
}

fn blocks_of(count: u32) -> u32 { return (count + {{ units.tokens - 1 }}u) / {{ units.tokens }}u; }

fn part_at(part: u32, blocks: u32, place: u32, row: u32) -> u32 {
  return (part * blocks * {{ units.tokens }}u + place) * {{ pitch }}u + (row >> 2u);
}

{# The planes of a matrix as bindings from number `first` on, and `load_group` or `load_floats` of its quant. #}
{% for plane in layout.planes %}
@group(0) @binding({{ first + loop.index0 }}) var<storage, read> {{ plane.name }}: array<{{ plane.type }}>;
{% endfor %}

{% if layout.floats %}
struct Eight { a: vec4<f32>, b: vec4<f32> }  // values 8 `at` and on of the matrix, as `load_eight(at)` gives them
{% else %}
// 32 values of a row: value i is scale * code[i] - min, codes are four signed bytes a word
struct Group {
  a: vec4<u32>,      // codes of values 0 to 15
  b: vec4<u32>,      // codes of values 16 to 31
  scale: vec2<f32>,  // of a and of b; both alike unless the quant has scales for 16 values
  min: vec2<f32>,
}

// a group as its planes store it; a word of several groups holds the values of the others too
struct Packed {
  {% for plane in layout.planes %}
  {{ plane.name }}: {{ "array<%s, 2>" % plane.type if plane.name == "bytes" else plane.type }},
  {% endfor %}
}

fn packed_of(group: u32) -> Packed {
  return Packed(
    {% for plane in layout.planes %}
    {% if plane.name == "bytes" %}
    array<{{ plane.type }}, 2>(bytes[group + (group & ~7u)], bytes[group + (group & ~7u) + 8u]),
    {% else %}
    {{ plane.name }}[{{ "group" if plane.groups == 1 else "group / %du" % plane.groups }}],
    {% endif %}
    {% endfor %}
  );
}

{% include "pieces.wgsl" %}
{% endif %}

{% set pack = false %}
{% include layout.kernel %}

{% if layout.floats %}
fn load_floats(group: u32) -> array<vec4<f32>, 8> {
  let e = load_eight(group * 4u);
  let f = load_eight(group * 4u + 1u);
  let g = load_eight(group * 4u + 2u);
  let h = load_eight(group * 4u + 3u);
  return array<vec4<f32>, 8>(e.a, e.b, f.a, f.b, g.a, g.b, h.a, h.b);
}
{% else %}
fn load_group(group: u32) -> Group { return group_of(packed_of(group), group); }

fn four(codes: u32, scale: f32, least: f32) -> vec4<f32> {
  return vec4<f32>(unpack4xI8(codes)) * scale - least;
}

fn load_floats(group: u32) -> array<vec4<f32>, 8> {
  let g = load_group(group);
  return array<vec4<f32>, 8>(
    four(g.a.x, g.scale.x, g.min.x), four(g.a.y, g.scale.x, g.min.x), four(g.a.z, g.scale.x, g.min.x), four(g.a.w, g.scale.x, g.min.x),
    four(g.b.x, g.scale.y, g.min.y), four(g.b.y, g.scale.y, g.min.y), four(g.b.z, g.scale.y, g.min.y), four(g.b.w, g.scale.y, g.min.y));
}
{% endif %}

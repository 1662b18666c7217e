{# How codes come out of `nibbles`, `pairs`, `bits` and `fine`; shifts by constants, so that each word is a shift and a mask or two. #}
// the low nibbles and, four bits down, the high ones: values 0 to 15 and 16 to 31
fn low_nibbles(q: vec4<u32>) -> vec4<u32> { return q & vec4<u32>(0x0F0F0F0Fu); }
fn high_nibbles(q: vec4<u32>) -> vec4<u32> { return (q >> vec4<u32>(4u)) & vec4<u32>(0x0F0F0F0Fu); }

// a bit of each of 16 values, at bit 4 or 7 of its byte
fn fifth_a(h: u32) -> vec4<u32> { return vec4<u32>(h << 4u, h << 3u, h << 2u, h << 1u) & vec4<u32>(0x10101010u); }
fn fifth_b(h: u32) -> vec4<u32> { return vec4<u32>(h, h >> 1u, h >> 2u, h >> 3u) & vec4<u32>(0x10101010u); }
fn top_a(h: u32) -> vec4<u32> { return vec4<u32>(h << 7u, h << 6u, h << 5u, h << 4u) & vec4<u32>(0x80808080u); }
fn top_b(h: u32) -> vec4<u32> { return vec4<u32>(h << 3u, h << 2u, h << 1u, h) & vec4<u32>(0x80808080u); }

// byte or half word number i of a word; the signed byte as a number
fn byte_of(w: u32, i: u32) -> u32 { return (w >> ((i & 3u) * 8u)) & 0xFFu; }
fn half_of(w: u32, i: u32) -> u32 { return w >> ((i & 1u) * 16u); }  // above its 16 bits stand others
fn float_of(w: u32, i: u32) -> f32 { return unpack2x16float(half_of(w, i)).x; }
fn signed_byte(w: u32, i: u32) -> f32 { return f32(bitcast<i32>(w << ((3u - (i & 3u)) * 8u)) >> 24u); }

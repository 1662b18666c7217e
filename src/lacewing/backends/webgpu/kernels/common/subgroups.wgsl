// Which size subgroups have: each of 64 places is written by a thread of a workgroup like those of the kernels.
@group(0) @binding(0) var<storage, read_write> sizes: array<u32>;

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) index: u32, @builtin(subgroup_size) size: u32, @builtin(subgroup_invocation_id) lane: u32) {
  // a team of `size` threads must be neighbours
  sizes[index / 2u] = select(0u, size, index % size == lane);
}

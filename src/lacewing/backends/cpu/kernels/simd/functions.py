"""exp, and what is made of it, on vectors. Relative error of exp about 1e-7 (Cephes' polynomial)."""

from lacewing.backends.cpu.kernels.simd.instructions import (
    floats_of,
    fma,
    round_i32,
    select_lt,
    shift_left,
    splat_f32,
    splat_i32,
    to_f32,
)
from lacewing.backends.cpu.kernels.simd.registers import inline


@inline
def exp(x):
    """e^x; exactly 0 below -87.3, finite far above; of NaN NaN, so that no number is made of what is none."""
    given, low, high = x, splat_f32(-87.3), splat_f32(88.3)
    x = select_lt(x, low, low, x)  # unlike minimum and maximum, a choice keeps NaN
    x = select_lt(high, x, high, x)
    n = round_i32(x * splat_f32(1.44269504))
    whole = to_f32(n)
    r = fma(whole, splat_f32(-0.693359375), x)
    r = fma(whole, splat_f32(2.12194440e-4), r)
    p = splat_f32(1.9875691500e-4)
    p = fma(p, r, splat_f32(1.3981999507e-3))
    p = fma(p, r, splat_f32(8.3334519073e-3))
    p = fma(p, r, splat_f32(4.1665795894e-2))
    p = fma(p, r, splat_f32(1.6666665459e-1))
    p = fma(p, r, splat_f32(5.0000001201e-1))
    p = fma(p, r * r, r + splat_f32(1.0))
    return select_lt(given, low, splat_f32(0.0), p * floats_of(shift_left(n + splat_i32(127), 23)))


@inline
def sigmoid(x):
    one = splat_f32(1.0)
    return one / (one + exp(splat_f32(0.0) - x))


@inline
def tanh(x):
    one, two = splat_f32(1.0), splat_f32(2.0)
    return one - two / (exp(x * two) + one)


@inline
def gelu_tanh(x):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as x times a sigmoid."""
    inner = x * fma(x * x, splat_f32(0.044715 * 0.7978845608 * 2.0), splat_f32(0.7978845608 * 2.0))
    return x * sigmoid(inner)


@inline
def gelu(x):
    """x (1 + erf(x / sqrt(2))) / 2; erf to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    zero, one = splat_f32(0.0), splat_f32(1.0)
    size = select_lt(x, zero, zero - x, x) * splat_f32(0.70710678)
    t = one / fma(size, splat_f32(0.3275911), one)
    p = fma(t, splat_f32(1.061405429), splat_f32(-1.453152027))
    p = fma(p, t, splat_f32(1.421413741))
    p = fma(p, t, splat_f32(-0.284496736))
    p = fma(p, t, splat_f32(0.254829592)) * t
    half = splat_f32(0.5) * p * exp(zero - size * size)  # the tail beyond |x|
    return x * select_lt(x, zero, half, one - half)


@inline
def relu2(x):
    positive = select_lt(x, splat_f32(0.0), splat_f32(0.0), x)
    return positive * positive


@inline
def softplus(x):
    """ln(1 + e^x) = max(x, 0) + 2 artanh(y / (2 + y)) with y = e^-|x| at most 1, so that the series is short."""
    zero = splat_f32(0.0)
    y = exp(select_lt(x, zero, x, zero - x))
    s = y / (y + splat_f32(2.0))
    z = s * s
    p = splat_f32(1 / 13)
    p = fma(p, z, splat_f32(1 / 11))
    p = fma(p, z, splat_f32(1 / 9))
    p = fma(p, z, splat_f32(1 / 7))
    p = fma(p, z, splat_f32(1 / 5))
    p = fma(p, z, splat_f32(1 / 3))
    return select_lt(x, zero, zero, x) + splat_f32(2.0) * fma(p * z, s, s)


@inline
def cos_sin(x):
    """cos and sin of a float64 of at most some 1e8, error below 1e-15 (fdlibm's polynomials); free of the C library."""
    n = int(x * 0.6366197723675814 + (0.5 if x >= 0 else -0.5))  # nearest multiple of pi / 2
    r = (x - n * 1.5707963267341256) - n * 6.077100506506192e-11
    z = r * r
    s = 1.58969099521155010221e-10
    s = s * z - 2.50507602534068634195e-08
    s = s * z + 2.75573137070700676789e-06
    s = s * z - 1.98412698298579493134e-04
    s = s * z + 8.33333333332248946124e-03
    s = s * z - 1.66666666666666324348e-01
    sine = r + r * z * s
    c = -1.13596475577881948265e-11
    c = c * z + 2.08757232129817482790e-09
    c = c * z - 2.75573143513906633035e-07
    c = c * z + 2.48015872894767294178e-05
    c = c * z - 1.38888888888741095749e-03
    c = c * z + 4.16666666666666019037e-02
    cosine = 1.0 - 0.5 * z + z * z * c
    if n & 1:
        sine, cosine = cosine, -sine
    if n & 2:
        sine, cosine = -sine, -cosine
    return cosine, sine

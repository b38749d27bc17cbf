/* Fake quantization, and its gradient, in one pass over memory.
 *
 *     v = x / scale,  q = clamp(round_half_even(v), lower, upper),  y = q * scale + 0
 *
 * The same operations in the same order as qexp/quant/grid.py, so y has the same bits: compile with
 * -ffp-contract=off, and never with -ffast-math. Adding 0 turns -0 into the 0 that integers have.
 *
 * A tensor is walked in rows, pieces that are contiguous in every operand. `sizes` counts rows along
 * three outer dimensions, `*_strides` are an operand's steps along them, in elements. Row r belongs to
 * channel r % channels; with `columns` the channels lie along the row instead. `scale`, `lower` and
 * `upper` have `channels` entries.
 *
 * Loops that matter stand in functions of their own, cloned for wider vectors: the body of an OpenMP
 * region is not cloned.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#define CLONED __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED __attribute__((noinline))
#endif

typedef struct {
    int64_t sizes[3], length, total, channels, columns, threads;
    int64_t x_strides[3], y_strides[3], grad_strides[3];
} Walk;

/* Bounds in steps, and those between which a gradient passes. */
typedef struct {
    const float *scale, *lower, *upper, *least, *largest;
} Grid;

/* One row on one channel. Comparisons are false for NaN, which therefore passes; with `nan_low` it
 * becomes the lowest integer. */

static inline void row(const float *restrict x, float *restrict y, int64_t n, float s, float low, float high,
                       int nan_low) {
    if (nan_low) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float v = rintf(x[i] / s);
            v = v >= low ? v : low;
            y[i] = (v > high ? high : v) * s + 0.0f;
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float v = rintf(x[i] / s);
            v = v < low ? low : v;
            y[i] = (v > high ? high : v) * s + 0.0f;
        }
    }
}

static inline void row_columns(const float *restrict x, float *restrict y, int64_t n, Grid g, int nan_low) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float v = rintf(x[i] / g.scale[i]), low = g.lower[i];
        v = (nan_low ? !(v >= low) : v < low) ? low : v;
        y[i] = (v > g.upper[i] ? g.upper[i] : v) * g.scale[i] + 0.0f;
    }
}

/* Besides the values, which of them lie where a gradient passes: a quarter of what keeping x would take. */
static inline void row_inside(const float *restrict x, float *restrict y, uint8_t *restrict inside, int64_t n,
                              float s, float low, float high, float least, float largest) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / s, q = rintf(v);
        q = q < low ? low : q;
        y[i] = (q > high ? high : q) * s + 0.0f;
        inside[i] = (v >= least) & (v <= largest);
    }
}

static inline void row_columns_inside(const float *restrict x, float *restrict y, uint8_t *restrict inside,
                                      int64_t n, Grid g) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / g.scale[i], q = rintf(v);
        q = q < g.lower[i] ? g.lower[i] : q;
        y[i] = (q > g.upper[i] ? g.upper[i] : q) * g.scale[i] + 0.0f;
        inside[i] = (v >= g.least[i]) & (v <= g.largest[i]);
    }
}

static inline void gradient(const float *restrict x, const float *restrict grad, float *restrict out,
                            int64_t n, float s, float low, float high) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / s;
        out[i] = (v >= low) & (v <= high) ? grad[i] : 0.0f;
    }
}

static inline void gradient_columns(const float *restrict x, const float *restrict grad, float *restrict out,
                                    int64_t n, Grid g) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / g.scale[i];
        out[i] = (v >= g.lower[i]) & (v <= g.upper[i]) ? grad[i] : 0.0f;
    }
}

/* Besides the gradient of x, the sum over the row of LSQ's grad * (q - v) inside, grad * q outside. The bounds
 * may lie up to half a step beyond the grid, and round to its ends. */
static inline float gradient_learned(const float *restrict x, const float *restrict grad, float *restrict out,
                                     int64_t n, float s, float low, float high) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / s, q = v < low ? low : v;
        q = rintf(q > high ? high : q);
        float passed = (v >= low) & (v <= high) ? grad[i] : 0.0f;
        out[i] = passed;
        sum += grad[i] * q - passed * v;
    }
    return sum;
}

static int64_t at(const int64_t *strides, const Walk *w, int64_t r) {
    int64_t last = r % w->sizes[2], rest = r / w->sizes[2];
    return rest / w->sizes[1] * strides[0] + rest % w->sizes[1] * strides[1] + last * strides[2];
}

/* Rows from r on, below `to`, that differ in the last dimension only: divisions are for runs, not for rows. */
static int64_t run_from(const Walk *w, int64_t r, int64_t to) {
    int64_t rest = w->sizes[2] - r % w->sizes[2];
    return rest < to - r ? rest : to - r;
}

static int64_t channel_of(const Walk *w, int64_t r) { return w->channels == 1 ? 0 : r % w->channels; }

/* A flat tensor is cut into rows of which the last may be short. */
static int64_t length_of(const Walk *w, int64_t r) {
    int64_t rest = w->total - r * w->length;
    return rest < w->length ? rest : w->length;
}

CLONED static void forward_rows(const Walk *w, Grid g, const float *x, float *y, int64_t from, int64_t to,
                                int nan_low) {
    for (int64_t r = from, run; r < to; r += run) {
        const float *in = x + at(w->x_strides, w, r);
        float *out = y + at(w->y_strides, w, r);
        run = run_from(w, r, to);
        for (int64_t i = 0; i < run; i++, in += w->x_strides[2], out += w->y_strides[2]) {
            int64_t c = channel_of(w, r + i);
            if (w->columns)
                row_columns(in, out, w->length, g, nan_low);
            else
                row(in, out, length_of(w, r + i), g.scale[c], g.lower[c], g.upper[c], nan_low);
        }
    }
}

CLONED static void forward_rows_inside(const Walk *w, Grid g, const float *x, float *y, uint8_t *inside,
                                       int64_t from, int64_t to) {
    for (int64_t r = from, run; r < to; r += run) {
        int64_t place = at(w->y_strides, w, r);
        const float *in = x + at(w->x_strides, w, r);
        run = run_from(w, r, to);
        for (int64_t i = r; i < r + run; i++, in += w->x_strides[2], place += w->y_strides[2]) {
            int64_t c = channel_of(w, i), n = length_of(w, i);
            if (w->columns)
                row_columns_inside(in, y + place, inside + place, w->length, g);
            else
                row_inside(in, y + place, inside + place, n, g.scale[c], g.lower[c], g.upper[c], g.least[c],
                           g.largest[c]);
        }
    }
}

/* Gradients of x; with `sums`, of which there is one for each row, also those of learned scales. */
CLONED static void backward_rows(const Walk *w, Grid g, const float *x, const float *grad, float *out,
                                 float *sums, int64_t from, int64_t to) {
    const int64_t sx = w->x_strides[2], sg = w->grad_strides[2], so = w->y_strides[2];
    for (int64_t r = from, run; r < to; r += run) {
        const float *in = x + at(w->x_strides, w, r), *incoming = grad + at(w->grad_strides, w, r);
        float *passed = out + at(w->y_strides, w, r);
        run = run_from(w, r, to);
        for (int64_t i = r; i < r + run; i++, in += sx, incoming += sg, passed += so) {
            int64_t c = channel_of(w, i), n = length_of(w, i);
            if (w->columns)
                gradient_columns(in, incoming, passed, w->length, g);
            else if (sums)
                sums[i] = gradient_learned(in, incoming, passed, n, g.scale[c], g.lower[c], g.upper[c]);
            else
                gradient(in, incoming, passed, n, g.scale[c], g.lower[c], g.upper[c]);
        }
    }
}

/* Rows are dealt out in as many even shares as there are threads. */
#define SHARES(w)                                                                                            \
    int64_t rows = (w)->sizes[0] * (w)->sizes[1] * (w)->sizes[2], threads = (w)->threads;                    \
    _Pragma("omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)")                    \
    for (int64_t t = 0; t < threads; t++)
#define FROM rows *t / threads
#define TO rows *(t + 1) / threads

void qexp_fake_quantize(const Walk *w, const float *scale, const float *lower, const float *upper,
                        const float *x, float *y, int64_t nan_low) {
    Grid g = {scale, lower, upper, lower, upper};
    SHARES(w) { forward_rows(w, g, x, y, FROM, TO, (int)nan_low); }
}

/* The same for training, and in `inside` 1 where x lies between `least` and `largest`, else 0; it has y's layout. */
void qexp_fake_quantize_inside(const Walk *w, const float *scale, const float *lower, const float *upper,
                               const float *least, const float *largest, const float *x, float *y,
                               uint8_t *inside) {
    Grid g = {scale, lower, upper, least, largest};
    SHARES(w) { forward_rows_inside(w, g, x, y, inside, FROM, TO); }
}

/* Gradient of x: `grad` where x lies inside the range, else 0. Writes with y_strides. */
void qexp_fake_quantize_backward(const Walk *w, const float *scale, const float *lower, const float *upper,
                                 const float *x, const float *grad, float *out) {
    Grid g = {scale, lower, upper, lower, upper};
    SHARES(w) { backward_rows(w, g, x, grad, out, NULL, FROM, TO); }
}

/* The same, and the sum of each row in `sums`: added up by the caller in one order, whatever the threads. */
void qexp_fake_quantize_learned(const Walk *w, const float *scale, const float *lower, const float *upper,
                                const float *x, const float *grad, float *out, float *sums) {
    Grid g = {scale, lower, upper, lower, upper};
    SHARES(w) { backward_rows(w, g, x, grad, out, sums, FROM, TO); }
}

/* Squared error of quantizing each row of a matrix with each of its candidate scales.
 *
 *     r = round_half_even(x / scale),  q = clamp(r, lower, upper),  error += (q * scale - x)^2
 *
 * times a weight where r is not q, that is, where x is clipped.
 *
 * The same operations as qexp/quant/grid.py, so each term has the same bits; terms are summed in float32
 * over a block, blocks in float64, in an order that does not depend on the number of threads. A block
 * stays in the first-level cache while all candidates of a task go over it.
 */
#include <math.h>
#include <stdint.h>

#if defined(__x86_64__)
#define CLONED __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED __attribute__((noinline))
#endif

#define BLOCK 1024 /* columns whose errors are summed in float32 */
#define SHARE 10   /* candidates that a thread takes at a time, so that one row feeds several threads */

CLONED static float block_error(const float *x, int64_t n, float scale, float lower, float upper,
                                float clipping) {
    float sum = 0.0f, clipped = 0.0f;
#pragma omp simd reduction(+ : sum, clipped)
    for (int64_t i = 0; i < n; i++) {
        const float r = rintf(x[i] / scale);
        float q = r >= lower ? r : lower;
        q = q > upper ? upper : q;
        const float difference = q * scale - x[i], square = difference * difference;
        sum += square;
        clipped += r == q ? 0.0f : square;
    }
    return sum + (clipping - 1.0f) * clipped;
}

/* x [rows, columns]; scale, lower, upper and errors [rows, candidates]. */
void qexp_row_errors(const float *x, int64_t rows, int64_t columns, int64_t candidates, const float *scale,
                     const float *lower, const float *upper, float clipping, double *errors, int threads) {
    const int64_t shares = (candidates + SHARE - 1) / SHARE;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < rows * shares; task++) {
        const int64_t row = task / shares, from = row * candidates + task % shares * SHARE;
        const int64_t end = (row + 1) * candidates, to = from + SHARE < end ? from + SHARE : end;
        for (int64_t k = from; k < to; k++) errors[k] = 0.0;
        for (int64_t i = 0; i < columns; i += BLOCK) {
            const int64_t n = columns - i < BLOCK ? columns - i : BLOCK;
            for (int64_t k = from; k < to; k++)
                errors[k] += block_error(x + row * columns + i, n, scale[k], lower[k], upper[k], clipping);
        }
    }
}

/* Extremes and histogram of a tensor in place: strided, with padding left out, nothing gathered.
 *
 * Bin of a value: floor(x / width) in float32, kept within [-half, half - 1], plus half. NaN lands in
 * the lowest bin; the caller learns of it from the ends.
 *
 * Values repeat (zeros, probabilities near zero), and an increment waits for the one before to the
 * same address: neighbours count in COPIES histograms, which are added up at the end.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define COPIES 4
#define BLOCK 1024 /* values whose bins are computed before they are counted */
#define TASK 16384 /* least values that a thread takes at a time */

#if defined(__x86_64__)
#define CLONED __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED __attribute__((noinline))
#endif

enum { DONE, NO_MEMORY };

typedef struct {
    int32_t low, high;
} Ends;

/* Floats as integers of the same order, which a compiler may take out of order; NaN lies beyond infinity. */
CLONED static void widen_ends(const float *x, int64_t n, Ends *ends) {
    int32_t low = ends->low, high = ends->high;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        int32_t key = bits ^ ((bits >> 31) & INT32_MAX);
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    ends->low = low, ends->high = high;
}

static float value_of(int32_t key) {
    int32_t bits = key ^ ((key >> 31) & INT32_MAX);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

CLONED static void find_bins(const float *x, int64_t n, float width, float half, int32_t *bins) {
    const int32_t middle = (int32_t)half, last = middle - 1;
    for (int64_t i = 0; i < n; i++) {
        float q = x[i] / width;
        q = q > -half ? q : -half; /* also NaN */
        q = q < half ? q : half;
        int32_t towards_zero = (int32_t)q;
        int32_t bin = towards_zero - (q < (float)towards_zero);
        bins[i] = ((bin < last ? bin : last) + middle) * COPIES;
    }
}

static void count_bins(const int32_t *bins, int64_t n, uint32_t *counts) {
    int64_t i = 0;
    for (; i + COPIES <= n; i += COPIES)
        for (int copy = 0; copy < COPIES; copy++) counts[bins[i + copy] + copy]++;
    for (; i < n; i++) counts[bins[i]]++;
}

CLONED static void add_copies(const uint32_t *copies, int64_t bins, int64_t *counts) {
    for (int64_t i = 0; i < bins; i++)
        for (int copy = 0; copy < COPIES; copy++) counts[i] += copies[i * COPIES + copy];
}

/* A run of values that lie side by side; without counts only its ends are wanted. */
static void take(const float *x, int64_t n, float width, int64_t half, uint32_t *counts, Ends *ends) {
    int32_t bins[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        widen_ends(x + i, m, ends);
        if (!counts) continue;
        find_bins(x + i, m, width, (float)half, bins);
        count_bins(bins, m, counts);
    }
}

/* Lowest and highest value of each column: ``ends`` is [2, columns]. NaN is left out. */
CLONED static void widen_columns(const float *x, int64_t columns, float *ends) {
    float *low = ends, *high = ends + columns;
    for (int64_t i = 0; i < columns; i++) {
        low[i] = x[i] < low[i] ? x[i] : low[i];
        high[i] = x[i] > high[i] ? x[i] : high[i];
    }
}

static void merge_columns(const float *from, int64_t columns, float *ends) {
    for (int64_t i = 0; i < columns; i++) {
        ends[i] = from[i] < ends[i] ? from[i] : ends[i];
        ends[columns + i] = from[columns + i] > ends[columns + i] ? from[columns + i] : ends[columns + i];
    }
}

static void clear_columns(float *ends, int64_t columns) {
    for (int64_t i = 0; i < columns; i++) ends[i] = INFINITY, ends[columns + i] = -INFINITY;
}

typedef struct {
    const float *x;
    const int64_t *n;       /* sizes of the four axes; the last one is contiguous */
    const int64_t *step;    /* strides of the first three */
    const uint8_t *rows;    /* which of n0 * n1 * n2 rows count; NULL: all */
    const int64_t *rowstep; /* strides of its three axes */
    const int64_t *firsts;  /* [n0 + 1]: where the spans of an index of axis 0 begin in ``spans`` */
    const int64_t *spans;   /* [.., 2]: begin and end of the columns that count; NULL: all */
} Values;

static int counts_row(const Values *v, int64_t i0, int64_t i1, int64_t i2) {
    return !v->rows || v->rows[i0 * v->rowstep[0] + i1 * v->rowstep[1] + i2 * v->rowstep[2]];
}

/* Rows ``first`` to ``last`` of all n0 * n1 * n2; neighbours in memory are taken as one run.
 *
 * column_ends: lowest and highest value of each column, [2, n3], where there are no spans; NULL: not wanted.
 */
static void take_rows(const Values *v, int64_t first, int64_t last, float width, int64_t half,
                      uint32_t *counts, Ends *ends, float *column_ends) {
    const int64_t n1 = v->n[1], n2 = v->n[2], columns = v->n[3];
    for (int64_t row = first; row < last;) {
        int64_t i2 = row % n2, i1 = row / n2 % n1, i0 = row / n2 / n1;
        const float *x = v->x + i0 * v->step[0] + i1 * v->step[1] + i2 * v->step[2];
        row++;
        if (!counts_row(v, i0, i1, i2)) continue;
        if (v->spans) {
            const int64_t *span = v->spans + 2 * v->firsts[i0], *end = v->spans + 2 * v->firsts[i0 + 1];
            for (; span < end; span += 2) take(x + span[0], span[1] - span[0], width, half, counts, ends);
            continue;
        }
        int64_t run = 1;
        if (v->step[2] == columns)
            while (row < last && i2 + run < n2 && counts_row(v, i0, i1, i2 + run)) run++, row++;
        take(x, run * columns, width, half, counts, ends);
        for (int64_t i = 0; column_ends && i < run; i++) widen_columns(x + i * columns, columns, column_ends);
    }
}

static void give_ends(Ends all, float *ends) {
    ends[0] = value_of(all.low), ends[1] = value_of(all.high);
    if (all.low > all.high)
        ends[0] = INFINITY, ends[1] = -INFINITY;
    else if (isnan(ends[0]) || isnan(ends[1]))
        ends[0] = ends[1] = NAN;
}

/* Write the counts [2 * half] of all values that count, and their lowest and highest.
 *
 * shape: n0, n1, n2, n3, strides of x, strides of rows (three each). half 0: no counting, ends only.
 * ends: NaN if there is one; infinity and -infinity where nothing counts.
 * column_ends: [2, n3], widened by the values of each column, without spans; NULL: not wanted.
 */
int qexp_histogram(const float *x, const int64_t *shape, const uint8_t *rows, const int64_t *firsts,
                   const int64_t *spans, float width, int64_t half, int64_t *counts, float *ends, float *column_ends,
                   int threads) {
    const Values values = {x, shape, shape + 4, rows, shape + 7, firsts, spans};
    const int64_t all = shape[0] * shape[1] * shape[2], own = 2 * half * COPIES;
    const int64_t some = 1 + TASK / (shape[3] + 1), tasks = (all + some - 1) / some;
    uint32_t *scratch = NULL;
    float *column_scratch = NULL;
    if (threads > tasks) threads = tasks > 1 ? (int)tasks : 1;
    if (half && !(scratch = malloc(sizeof *scratch * threads * own))) return NO_MEMORY;
    if (column_ends && !(column_scratch = malloc(sizeof *column_scratch * threads * 2 * shape[3]))) {
        free(scratch);
        return NO_MEMORY;
    }
    memset(counts, 0, sizeof *counts * 2 * half);
    Ends total = {INT32_MAX, INT32_MIN};
#pragma omp parallel num_threads(threads)
    {
        uint32_t *mine = scratch ? scratch + omp_get_thread_num() * own : NULL;
        float *my_columns = column_scratch ? column_scratch + omp_get_thread_num() * 2 * shape[3] : NULL;
        Ends seen = {INT32_MAX, INT32_MIN};
        if (my_columns) clear_columns(my_columns, shape[3]);
        if (mine) memset(mine, 0, sizeof *mine * own);
#pragma omp for schedule(dynamic) nowait
        for (int64_t task = 0; task < tasks; task++) {
            int64_t last = (task + 1) * some;
            take_rows(&values, task * some, last < all ? last : all, width, half, mine, &seen,
                      my_columns);
        }
#pragma omp critical
        {
            total.low = seen.low < total.low ? seen.low : total.low;
            total.high = seen.high > total.high ? seen.high : total.high;
            if (mine) add_copies(mine, 2 * half, counts);
            if (my_columns) merge_columns(my_columns, shape[3], column_ends);
        }
    }
    free(scratch);
    free(column_scratch);
    give_ends(total, ends);
    return DONE;
}

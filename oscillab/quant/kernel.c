/* Put values on their grid, and gradients back, in one pass over memory: the arithmetic of lsq.py, operation by operation,
   nothing contracted or reordered (-ffp-contract=off, no -ffast-math). Only sums over many values are added in another
   order: within a block in single precision, over the blocks in double, the same for any number of threads.

   x lies in `rows` runs of `length` values, each run with a step size of its own and cut into blocks. kernel.py compiles
   and calls this file, which includes itself once for each type of x. */

#ifndef TYPE

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 2048   /* values of one sum in single precision */
#define ALONE 32768 /* fewer values than these are not worth a second thread */

typedef struct {
    int64_t rows, length, threads;
    float low, high;    /* the grid's limits */
    float lower, upper; /* x / s lies inside the grid where it lies between these two */
    float gradient_scale;
} grid;

static inline float float32_load(float value) { return value; }
static inline float float32_store(float value) { return value; }

static inline float bfloat16_load(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static inline uint16_t bfloat16_store(float value) { /* ties go to the even number */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return value != value ? 0x7FC0 : (uint16_t)rounded;
}

static inline float integer_state(float quotient, float low, float high) { /* NaN fails both comparisons and stays NaN */
    float state = rintf(quotient);
    state = state < low ? low : state;
    return state > high ? high : state;
}

/* The step size in use: the floor where the given one fell below it, which `held` then counts. */
static float step_in_use(const float *step, const float *floor, int64_t *held, int64_t row) {
    if (!floor || step[row] >= floor[row] || step[row] != step[row]) return step[row];
    if (held) held[row] += 1;
    return floor[row];
}

static int64_t blocks_of(const grid *g) { return (g->length + BLOCK - 1) / BLOCK; }

static int threads_for(const grid *g) { return g->rows * g->length < ALONE ? 1 : (int)g->threads; }

/* The row and the length of block `i` of all; `at` is where its first value lies. */
static int64_t place_of(int64_t i, const grid *g, int64_t *at, int64_t *length) {
    const int64_t row = i / blocks_of(g), done = i % blocks_of(g) * BLOCK, left = g->length - done;
    *at = row * g->length + done;
    *length = left < BLOCK ? left : BLOCK;
    return row;
}

#define TYPE float
#define NAME(part) float32_##part
#include "kernel.c"
#undef TYPE
#undef NAME
#define TYPE uint16_t
#define NAME(part) bfloat16_##part
#include "kernel.c"

#else

static void NAME(quantize)(const TYPE *restrict x, TYPE *restrict y, int64_t length, float step, const float *shift,
                           const grid *g) {
    const float low = g->low, high = g->high, offset = shift ? *shift : 0;
    for (int64_t i = 0; i < length; i++) {
        float value = integer_state((NAME(load)(x[i]) - offset) / step, low, high) * step; /* x - 0 is x */
        y[i] = NAME(store)(shift ? value + offset : value);                                /* but -0 + 0 is not -0 */
    }
}

/* y of x; `used` becomes the step size of each run. `floor`, `held` and `shift` may be NULL. */
void NAME(forward)(const TYPE *x, TYPE *y, const float *step, const float *floor, int64_t *held, float *used,
                   const float *shift, const grid *g) {
    for (int64_t row = 0; row < g->rows; row++) used[row] = step_in_use(step, floor, held, row);
#pragma omp parallel for num_threads(threads_for(g))
    for (int64_t i = 0; i < g->rows * blocks_of(g); i++) {
        int64_t at, length, row = place_of(i, g, &at, &length);
        NAME(quantize)(x + at, y + at, length, used[row], shift, g);
    }
}

/* sums[0] and sums[1]: of a block, what the step size (times it) and the shift get. */
static void NAME(differentiate)(const TYPE *restrict x, const TYPE *restrict upstream, TYPE *restrict to_x, int64_t length,
                                float step, float shift, const grid *g, double *sums) {
    const float low = g->low, high = g->high, lower = g->lower, upper = g->upper;
    float step_sum = 0, shift_sum = 0;
#pragma omp simd reduction(+ : step_sum, shift_sum)
    for (int64_t i = 0; i < length; i++) {
        float work = NAME(load)(x[i]) - shift, quotient = work / step;
        float gradient = NAME(load)(upstream[i]);
        int inside = (quotient > lower) & (quotient < upper);
        float passed = inside ? gradient : 0;
        to_x[i] = NAME(store)(passed);
        step_sum += gradient * (integer_state(quotient, low, high) * step - (inside ? work : 0));
        shift_sum += gradient - passed;
    }
    sums[0] = step_sum;
    sums[1] = shift_sum;
}

/* The gradients to x, to the step size of each run and, where there is one, to the shift; `sums` holds two for each block. */
void NAME(backward)(const TYPE *x, const TYPE *upstream, TYPE *to_x, const float *step, const float *shift,
                    float *to_step, float *to_shift, double *sums, const grid *g) {
    const int64_t blocks = blocks_of(g);
#pragma omp parallel for num_threads(threads_for(g))
    for (int64_t i = 0; i < g->rows * blocks; i++) {
        int64_t at, length, row = place_of(i, g, &at, &length);
        NAME(differentiate)(x + at, upstream + at, to_x + at, length, step[row], shift ? *shift : 0, g, sums + 2 * i);
    }
    double shift_sum = 0;
    for (int64_t row = 0; row < g->rows; row++) {
        double step_sum = 0;
        for (int64_t i = row * blocks; i < (row + 1) * blocks; i++) step_sum += sums[2 * i], shift_sum += sums[2 * i + 1];
        to_step[row] = (float)(step_sum / step[row] * g->gradient_scale);
    }
    if (shift) *to_shift = (float)(shift_sum * g->gradient_scale);
}

#endif

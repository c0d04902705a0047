/* What a recorder, dampening and freezing ask of the latent weights; each is one pass, row by row. */

/* The integer state of every weight; `probe` becomes NaN where a weight is NaN or infinite, else 0. */
void states(const float *restrict weight, int8_t *restrict state, const float *restrict step, float *restrict probe,
            const grid *g) {
    const float low = g->low, high = g->high;
    float zero = 0;
    for (int64_t row = 0; row < g->rows; row++) {
        const float *restrict w = weight + row * g->length, s = step[row];
        int8_t *restrict out = state + row * g->length;
        const int64_t length = g->length;
#pragma omp simd reduction(+ : zero)
        for (int64_t i = 0; i < length; i++) {
            zero += w[i] * 0;
            out[i] = (int8_t)(int32_t)integer_state(w[i] / s, low, high);
        }
    }
    *probe = zero;
}

/* `states` of many layers in one call; `used`: their step sizes in use, one after the other. */
void states_of_many(float **weights, int8_t **state, float **steps, float **floors, float *probes, float *used,
                    const grid *grids, const int64_t *count) {
    for (int64_t i = 0; i < *count; used += grids[i++].rows) {
        for (int64_t row = 0; row < grids[i].rows; row++) used[row] = step_in_use(steps[i], floors[i], 0, row);
        states(weights[i], state[i], used, probes + i, grids + i);
    }
}

/* Single values out of many places. */
void gather(float **places, float *values, const int64_t *count) {
    for (int64_t i = 0; i < *count; i++) values[i] = *places[i];
}

/* How far every weight, clipped to the grid, lies from its bin's centre; NaN stays NaN. */
void distances(const float *restrict weight, float *restrict distance, const float *restrict step, const grid *g) {
    for (int64_t row = 0; row < g->rows; row++) {
        const float *restrict w = weight + row * g->length, s = step[row], low = g->low * s, high = g->high * s;
        const float lowest = g->low, highest = g->high;
        float *restrict out = distance + row * g->length;
        for (int64_t i = 0, n = g->length; i < n; i++) {
            float clipped = w[i] < low ? low : w[i];
            clipped = clipped > high ? high : clipped;
            out[i] = clipped - integer_state(w[i] / s, lowest, highest) * s;
        }
    }
}

/* Frozen weights to the middle of the bin of their state. */
void place(float *restrict weight, const uint8_t *restrict frozen, const int8_t *restrict state, const float *restrict step,
           const grid *g) {
    for (int64_t row = 0; row < g->rows; row++) {
        const int64_t at = row * g->length, end = at + g->length;
        const float s = step[row];
        for (int64_t i = at; i < end; i++) weight[i] = frozen[i] ? state[i] * s : weight[i];
    }
}

/* `place` for many layers in one call; `used`: their step sizes one after the other. */
void place_many(float **weights, uint8_t **frozen, int8_t **state, const float *used, const grid *grids,
                const int64_t *count) {
    for (int64_t i = 0; i < *count; used += grids[i++].rows) place(weights[i], frozen[i], state[i], used, grids + i);
}

/* Gradients of frozen weights to 0; `sums`: of each row, gradient * state over the frozen ones, where others hold 0. */
void release(float *restrict gradient, const uint8_t *restrict frozen, const int8_t *restrict state, float *restrict sums,
             const grid *g) {
    for (int64_t row = 0; row < g->rows; row++) {
        double row_sum = 0;
        for (int64_t done = 0; done < g->length; done += BLOCK) {
            const int64_t at = row * g->length + done, left = g->length - done, end = at + (left < BLOCK ? left : BLOCK);
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = at; i < end; i++) {
                sum += gradient[i] * state[i];
                gradient[i] = frozen[i] ? 0 : gradient[i];
            }
            row_sum += sum;
        }
        sums[row] = (float)row_sum;
    }
}

/* `release` for many layers in one call; the sums, times each layer's `scales`, are added to the gradients of step sizes. */
void release_many(float **gradients, uint8_t **frozen, int8_t **state, float **to_steps, const float *scales, float *sums,
                  const grid *grids, const int64_t *count) {
    for (int64_t i = 0; i < *count; i++) {
        release(gradients[i], frozen[i], state[i], sums, grids + i);
        for (int64_t row = 0; row < grids[i].rows; row++) to_steps[i][row] += sums[row] * scales[i];
    }
}

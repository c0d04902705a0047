/* What a tracker and freezing do with the integer states of all weights, which lie one after the other. */

typedef struct {
    int64_t count;
    float keep, add;        /* of a frequency: what is kept of it, and what an oscillation adds */
    float threshold;        /* a weight whose frequency lies above it is frozen */
    int64_t flipped, turned; /* how many weights flipped in this step, and how many of them oscillated */
    int64_t frozen;         /* how many were frozen in this step */
} tracking;

typedef struct { /* what is known of each weight */
    int8_t *state, *direction;
    uint8_t *flips, *oscillations;
    float *frequency;
} track;

static void follow_one(int8_t now, const track *to, int64_t i, int64_t *flipped, int64_t *turned, tracking *t) {
    const int8_t direction = now > to->state[i] ? 1 : -1;
    if (direction * to->direction[i] == -1) {
        turned[t->turned++] = i;
        to->oscillations[i] += 1;
        to->frequency[i] += t->add;
    }
    flipped[t->flipped++] = i;
    to->flips[i] += 1;
    to->direction[i] = direction;
    to->state[i] = now;
}

/* Weights `at` to `at` + `length` go on to the states `now` (length,). Eight states are compared at once: few change. */
static void follow(const int8_t *restrict now, const track *to, int64_t at, int64_t length, int64_t *flipped,
                   int64_t *turned, tracking *t) {
    float *restrict frequency = to->frequency + at;
    const int8_t *state = to->state + at;
    const float keep = t->keep;
    for (int64_t i = 0; i < length; i++) frequency[i] *= keep;
    for (int64_t i = 0; i < length; i += 8) {
        uint64_t before = 0, after = 0;
        const int64_t left = length - i, bytes = left < 8 ? left : 8;
        if (bytes == 8) memcpy(&before, state + i, 8), memcpy(&after, now + i, 8);
        if (bytes == 8 && before == after) continue;
        for (int64_t j = i; j < i + bytes; j++)
            if (now[j] != state[j]) follow_one(now[j], to, at + j, flipped, turned, t);
    }
}

/* The update of a tracker; `flipped` and `turned` become the weights that did, ascending. */
void track_states(const int8_t *now, int8_t *state, int8_t *direction, uint8_t *flips, uint8_t *oscillations,
                  float *frequency, int64_t *flipped, int64_t *turned, tracking *t) {
    const track to = {state, direction, flips, oscillations, frequency};
    for (int64_t at = 0; at < t->count; at += BLOCK) {
        const int64_t left = t->count - at;
        follow(now + at, &to, at, left < BLOCK ? left : BLOCK, flipped, turned, t);
    }
}

/* The update of freezing: frozen weights are held in their states before they are tracked, free ones above the threshold
   are frozen in the rounded average of their states, and then the average goes on. */
void freeze_states(const int8_t *now, int8_t *state, int8_t *direction, uint8_t *flips, uint8_t *oscillations,
                   float *frequency, int64_t *flipped, int64_t *turned, float *restrict average,
                   uint8_t *restrict frozen, int8_t *restrict frozen_state, tracking *t) {
    const track to = {state, direction, flips, oscillations, frequency};
    const float keep = t->keep, add = t->add, threshold = t->threshold;
    int8_t held[BLOCK];
    for (int64_t at = 0; at < t->count; at += BLOCK) {
        const int64_t left = t->count - at, length = left < BLOCK ? left : BLOCK, end = at + length;
        for (int64_t i = at; i < end; i++) held[i - at] = frozen[i] ? frozen_state[i] : now[i];
        follow(held, &to, at, length, flipped, turned, t);
        int above = 0;
        for (int64_t i = at; i < end; i++) above |= (frequency[i] > threshold) & !frozen[i];
        for (int64_t i = at; above && i < end; i++) {
            if (frozen[i] || !(frequency[i] > threshold)) continue;
            frozen_state[i] = (int8_t)rintf(average[i]);
            frozen[i] = 1;
            t->frozen += 1;
        }
        for (int64_t i = at; i < end; i++) average[i] = average[i] * keep + held[i - at] * add;
    }
}

/* Attention of one token of each hypothesis to the slots that hypotheses of its sentence share; fp32. */
#include <math.h>

#include "exponential.h"

#define LANES 32 /* numbers summed side by side: enough to hide the latency of an addition */

static inline float dot(const float *restrict a, const float *restrict b, int64_t n) {
    float lanes[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t j = 0; j < LANES; j++) lanes[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum += a[i] * b[i];
    for (int64_t j = 0; j < 16; j++) lanes[j] += lanes[j + 16];
    for (int64_t j = 0; j < 8; j++) lanes[j] += lanes[j + 8];
    for (int64_t j = 0; j < 4; j++) lanes[j] += lanes[j + 4];
    return sum + ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
}

/* out [count] = the sum of shares times `count` features of the listed values, whose rows are `width` apart.
 */
static inline void mix(float *restrict out, const float *restrict shares, const float *restrict values,
                       const int64_t *restrict list, int64_t num_listed, int64_t width, int64_t count) {
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < num_listed; i++)
        for (int64_t j = 0; j < count; j++) lanes[j] += shares[i] * values[list[i] * width + j];
    memcpy(out, lanes, (size_t)count * sizeof(float));
}

/* One head of one row: keys and values [slots, width], of which `list` names `count`. */
static void attend(float *restrict out, const float *restrict query, const float *restrict keys,
                   const float *restrict values, const int64_t *restrict list, float *restrict scores,
                   int64_t count, int64_t width) {
    float top = -INFINITY, total = 0, scale = 1 / sqrtf((float)width);
    for (int64_t i = 0; i < count; i++) {
        scores[i] = dot(query, keys + list[i] * width, width) * scale;
        top = scores[i] > top ? scores[i] : top;
    }
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) {
        scores[i] = exp_of(scores[i] - top);
        total += scores[i];
    }
    for (int64_t i = 0; i < count; i++) scores[i] /= total;
    int64_t j = 0;
    for (; j + LANES <= width; j += LANES) mix(out + j, scores, values + j, list, count, width, LANES);
    if (j < width) mix(out + j, scores, values + j, list, count, width, width - j);
}

/* out [sentences * hypotheses, heads * width]; joined [sentences * hypotheses, row_width], whose rows begin
 * with the queries; keys and values [sentences, heads, room, width], the first `slots` of which are filled;
 * seen [sentences, seen_rows, room] is 0 where a hypothesis sees a slot, with one row for all or one each.
 */
void deltalm_attend_slots(float *out, const float *joined, const float *keys, const float *values,
                          const float *seen, int64_t sentences, int64_t hypotheses, int64_t heads,
                          int64_t width, int64_t row_width, int64_t room, int64_t slots, int64_t seen_rows,
                          int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t row = 0; row < sentences * hypotheses; row++) {
        int64_t sentence = row / hypotheses, hypothesis = seen_rows == 1 ? 0 : row % hypotheses;
        const float *mask = seen + (sentence * seen_rows + hypothesis) * room;
        int64_t list[slots + 1], count = 0;
        float scores[slots + 1];
        for (int64_t slot = 0; slot < slots; slot++) {
            list[count] = slot;
            count += mask[slot] == 0;
        }
        for (int64_t head = 0; head < heads; head++) {
            int64_t first = (sentence * heads + head) * room * width;
            attend(out + (row * heads + head) * width, joined + row * row_width + head * width, keys + first,
                   values + first, list, scores, count, width);
        }
    }
}

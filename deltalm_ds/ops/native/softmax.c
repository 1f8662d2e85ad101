/* Softmax over rows of logits whose classes come in blocks. */
#include <math.h>

#include "exponential.h"
#include "rows.h"

#define PIECE 4096 /* logits worked on at once: they stay in the first-level cache */

static inline void load_piece(float *piece, const void *row, int64_t first, int64_t count, int64_t dtype) {
    load(piece, (const char *)row + first * bytes_of(dtype), count, dtype);
}

/* Add logits [rows, n], classes from first_class on, to each row's running numbers: the highest logit, the sum
 * of exponentials above it, the sum of logits, and the label's logit once it comes by.
 */
void deltalm_softmax_add(const void *logits, const int64_t *labels, float *highest, double *exponentials,
                         double *sums, float *label_logits, int64_t first_class, int64_t rows, int64_t n,
                         int64_t dtype, int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t row = 0; row < rows; row++) {
        float piece[PIECE], top = highest[row];
        double exponential = exponentials[row], sum = sums[row];
        const void *place = row_of(logits, row, n, dtype);
        for (int64_t first = 0; first < n; first += PIECE) {
            int64_t count = n - first < PIECE ? n - first : PIECE;
            load_piece(piece, place, first, count, dtype);
            float here = top, part_exponential = 0, part_sum = 0;
#pragma omp simd reduction(max : here) reduction(+ : part_sum)
            for (int64_t i = 0; i < count; i++) {
                here = piece[i] > here ? piece[i] : here;
                part_sum += piece[i];
            }
            exponential *= exp((double)top - here);
            top = here;
#pragma omp simd reduction(+ : part_exponential)
            for (int64_t i = 0; i < count; i++) part_exponential += exp_of(piece[i] - top);
            exponential += part_exponential;
            sum += part_sum;
        }
        highest[row] = top;
        exponentials[row] = exponential;
        sums[row] = sum;
        int64_t label = labels[row] - first_class;
        if (label >= 0 && label < n) load_piece(&label_logits[row], place, label, 1, dtype);
    }
}

/* logits [rows, n] become exp(logit - highest) / exponentials - on_all, less on_target at the label. */
void deltalm_softmax_gradient(void *logits, const int64_t *labels, const float *highest,
                              const double *exponentials, float on_target, float on_all, int64_t first_class,
                              int64_t rows, int64_t n, int64_t dtype, int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t row = 0; row < rows; row++) {
        float piece[PIECE], top = highest[row], share = (float)(1 / exponentials[row]);
        void *place = row_of(logits, row, n, dtype);
        int64_t label = labels[row] - first_class;
        for (int64_t first = 0; first < n; first += PIECE) {
            int64_t count = n - first < PIECE ? n - first : PIECE;
            load_piece(piece, place, first, count, dtype);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) piece[i] = exp_of(piece[i] - top) * share - on_all;
            if (label >= first && label < first + count) piece[label - first] -= on_target;
            store((char *)place + first * bytes_of(dtype), piece, count, dtype);
        }
    }
}

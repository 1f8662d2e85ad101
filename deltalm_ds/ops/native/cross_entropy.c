/* Softmax, loss and gradient of rows of logits, in place. */
#include <math.h>

#include "exponential.h"
#include "rows.h"

#define PIECE 4096 /* logits worked on at once: they stay in the first-level cache */

/* logits [rows, n] become the gradient of on_target * nll + on_all * (sum of all n classes' nll), if
 * `with_gradient`; nll and loss [rows] fp32 are written in any case.
 */
void deltalm_cross_entropy(void *logits, const int64_t *labels, float *nll, float *loss, float on_target,
                           float on_all, int64_t with_gradient, int64_t rows, int64_t n, int64_t dtype, int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t row = 0; row < rows; row++) {
        float piece[PIECE], highest = -INFINITY, label_logit;
        double exponentials = 0, total = 0;
        load(&label_logit, (char *)row_of(logits, row, n, dtype) + labels[row] * bytes_of(dtype), 1, dtype);
        for (int64_t first = 0; first < n; first += PIECE) {
            int64_t count = n - first < PIECE ? n - first : PIECE;
            load(piece, (char *)row_of(logits, row, n, dtype) + first * bytes_of(dtype), count, dtype);
            float here = -INFINITY, exponential = 0, sum = 0;
#pragma omp simd reduction(max : here) reduction(+ : sum)
            for (int64_t i = 0; i < count; i++) {
                here = piece[i] > here ? piece[i] : here;
                sum += piece[i];
            }
            if (here > highest) {
                exponentials *= exp((double)highest - here);
                highest = here;
            }
#pragma omp simd reduction(+ : exponential)
            for (int64_t i = 0; i < count; i++) exponential += exp_of(piece[i] - highest);
            exponentials += exponential;
            total += sum;
        }
        double log_sum = highest + log(exponentials);
        nll[row] = (float)(log_sum - label_logit);
        loss[row] = (float)(on_target * (log_sum - label_logit) + on_all * ((double)n * log_sum - total));
        if (!with_gradient) continue;
        float share = (float)(1 / exponentials);
        for (int64_t first = 0; first < n; first += PIECE) {
            int64_t count = n - first < PIECE ? n - first : PIECE;
            void *place = (char *)row_of(logits, row, n, dtype) + first * bytes_of(dtype);
            load(piece, place, count, dtype);
            for (int64_t i = 0; i < count; i++) piece[i] = exp_of(piece[i] - highest) * share - on_all;
            if (labels[row] >= first && labels[row] < first + count) piece[labels[row] - first] -= on_target;
            store(place, piece, count, dtype);
        }
    }
}

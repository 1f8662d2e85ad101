/* The largest numbers of each row, where torch sorts. */
#include <math.h>
#include <stdint.h>

#define PIECE 64 /* numbers looked at together: few pieces hold one of the largest */

/* values and places [rows, k], largest first and the first of equals first, of x [rows, n] in fp32. Where a
 * row has fewer than k numbers above -inf, -inf at place 0 fills up.
 */
void deltalm_largest(float *values, int64_t *places, const float *x, int64_t rows, int64_t n, int64_t k,
                     int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
    for (int64_t row = 0; row < rows; row++) {
        float *best = values + row * k;
        int64_t *place = places + row * k;
        const float *numbers = x + row * n;
        for (int64_t i = 0; i < k; i++) best[i] = -INFINITY, place[i] = 0;
        for (int64_t first = 0; first < n; first += PIECE) {
            int64_t end = first + PIECE < n ? first + PIECE : n;
            float top = -INFINITY;
#pragma omp simd reduction(max : top)
            for (int64_t i = first; i < end; i++) top = numbers[i] > top ? numbers[i] : top;
            if (!(top > best[k - 1])) continue;
            for (int64_t i = first; i < end; i++) {
                if (!(numbers[i] > best[k - 1])) continue;
                int64_t at = k - 1;
                for (; at > 0 && numbers[i] > best[at - 1]; at--) {
                    best[at] = best[at - 1];
                    place[at] = place[at - 1];
                }
                best[at] = numbers[i];
                place[at] = i;
            }
        }
    }
}

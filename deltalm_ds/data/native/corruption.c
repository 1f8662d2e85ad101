/* The span corruption of ../objectives.py; see there for the two forms. */
#include "data.h"

#include <string.h>

#define DIGIT 8 /* bits that are ranked at once */
#define NUM_DIGITS (1 << DIGIT)

/* The words of NumPy's Philox generator (4 x 64 bits, ten rounds) of this key, in its order; up to three more. */
static void philox(uint64_t key, uint64_t number, uint64_t *words, int64_t n) {
    for (uint64_t block = 0; 4 * block < (uint64_t)n; block++) {
        uint64_t c0 = block + 1, c1 = 0, c2 = 0, c3 = 0, k0 = key, k1 = number;
        for (int round = 0; round < 10; round++) {
            unsigned __int128 even = (unsigned __int128)c0 * 0xD2E7470EE14C6C93u;
            unsigned __int128 odd = (unsigned __int128)c2 * 0xCA5A826395121157u;
            c0 = (uint64_t)(odd >> 64) ^ c1 ^ k0;
            c2 = (uint64_t)(even >> 64) ^ c3 ^ k1;
            c1 = (uint64_t)odd;
            c3 = (uint64_t)even;
            k0 += 0x9E3779B97F4A7C15u;
            k1 += 0xBB67AE8584CAA73Bu;
        }
        words[4 * block] = c0;
        words[4 * block + 1] = c1;
        words[4 * block + 2] = c2;
        words[4 * block + 3] = c3;
    }
}

/* Counts n words by the digit at `shift` and finds that of the word of rank `*rank` (the least has 1); `*rank`
 * becomes its rank among the words with this digit. */
static uint64_t digit_of_rank(const uint64_t *words, int64_t n, int shift, int64_t *rank) {
    int32_t counts[NUM_DIGITS] = {0};
    for (int64_t i = 0; i < n; i++) counts[words[i] >> shift & (NUM_DIGITS - 1)]++;
    uint64_t digit = 0;
    while (*rank > counts[digit]) *rank -= counts[digit++];
    return digit;
}

/* Where the `size` least of n words stand, ascending; of equal ones the first. `places` and `scratch` have room
 * for n. A first digit leaves little more than these, and a few that have that digit to be told apart by the
 * next ones. */
void least(const uint64_t *words, int64_t n, int64_t size, int64_t *places, uint64_t *scratch) {
    if (size == 0) return;
    int shift = 64 - DIGIT;
    int64_t rank = size, left = 0, same = 0;
    uint64_t digit = digit_of_rank(words, n, shift, &rank);
    uint64_t limit = digit << shift | (UINT64_MAX >> DIGIT);
    for (int64_t i = 0; i < n; i++) {
        places[left] = i;
        left += words[i] <= limit;
    }
    for (int64_t i = 0; i < left; i++) {
        scratch[same] = words[places[i]];
        same += scratch[same] >> shift == digit;
    }
    while (same > 1 && shift > 0) {
        int64_t n_before = same;
        shift -= DIGIT;
        digit = digit_of_rank(scratch, n_before, shift, &rank);
        same = 0;
        for (int64_t i = 0; i < n_before; i++) {
            scratch[same] = scratch[i];
            same += (scratch[same] >> shift & (NUM_DIGITS - 1)) == digit;
        }
    }
    for (int64_t i = 0, found = 0; found < size; i++) {
        places[found] = places[i];
        found += words[places[i]] <= scratch[0];
    }
}

/* Eight tokens at a time, mostly once: lengths of spans cannot be foreseen, and loops over them would be. */
static inline int32_t *copy(int32_t *to, const int32_t *from, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) memcpy(to + i, from + i, 8 * sizeof *to);
    return to + n;
}

/* Writes sources and targets of n texts end to end. Table: where each begins in `tokens`, its tokens, masked
 * tokens and spans, and the number of its masks within `stream`. T5's targets begin with </s> here, so that in
 * both forms the decoder reads all but a target's last token and predicts all but its first. A text of fewer
 * than two tokens is its own source and has no target. `words` has room for twice the longest text and three
 * more, `places` for as much; `tokens`, `source` and `target` have eight more at their ends, of any value. */
void corrupt(const int32_t *tokens, const int64_t *table, int64_t n, uint64_t stream, int64_t first_sentinel,
             int64_t is_t5, uint64_t *words, int64_t *places, int32_t *source, int32_t *target) {
    const int32_t end_of_sentence = 2;
    const int64_t *starts = table, *num_tokens = table + n, *num_noise = table + 2 * n;
    const int64_t *num_spans = table + 3 * n;
    const uint64_t *numbers = (const uint64_t *)table + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        int64_t noise = num_noise[i], spans = num_spans[i], kept = num_tokens[i] - noise;
        const int32_t *text = tokens + starts[i];
        if (num_tokens[i] < 2) {
            source = copy(source, text, num_tokens[i]);
            continue;
        }
        philox(stream, numbers[i], words, num_tokens[i]);
        uint64_t *scratch = words + num_tokens[i] + 3;
        /* A composition of `noise`: span s ends, among the masked tokens, at ends[s]. */
        int64_t *ends = places, *before = places + noise;
        least(words + 1, noise - 1, spans - 1, ends, scratch);
        for (int64_t s = 0; s < spans - 1; s++) ends[s]++;
        ends[spans - 1] = noise;
        /* How many kept tokens stand before span s. */
        if (is_t5) {
            least(words + noise + 1, kept - 1, spans - 1, before, scratch);
            for (int64_t s = 0; s < spans - 1; s++) before[s]++;
            before[spans - 1] = kept;
            *target++ = end_of_sentence;
        } else {
            least(words + noise, kept, spans, before, scratch);
        }
        const int32_t *next = text;
        for (int64_t s = 0, kept_before = 0, masked_before = 0; s < spans; s++) {
            source = copy(source, next, before[s] - kept_before);
            next += before[s] - kept_before;
            *source++ = *target++ = (int32_t)(first_sentinel + s);
            target = copy(target, next, ends[s] - masked_before);
            next += ends[s] - masked_before;
            kept_before = before[s];
            masked_before = ends[s];
        }
        source = copy(source, next, text + num_tokens[i] - next);
        if (is_t5) *source++ = *target++ = end_of_sentence;
    }
}

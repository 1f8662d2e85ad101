/* The items of ../windows.py, read from Megatron's files as they lie in memory. */
#include "data.h"

#include <string.h>

#define SMALLEST_PAIR 5 /* as in windows.py */

struct source {
    const char *tokens;
    int64_t dtype_code; /* Megatron's number of the tokens' dtype */
    int64_t num_tokens;
    int64_t num_rows; /* of the vocabulary: larger ids, and negative ones, are none */
    int64_t length;
    int64_t capacity;     /* of a row of pairs; 0 where items are windows */
    const char *pointers; /* where sequences begin, int64 in bytes, at any address */
    int64_t num_sequences;
    int64_t token_bytes;
};

enum { SOURCE_ROWS = 9, ITEM = SOURCE_ROWS, LENGTH };

static inline int64_t pointer_at(const struct source *s, int64_t sequence) {
    int64_t pointer;
    memcpy(&pointer, s->pointers + 8 * sequence, sizeof pointer);
    return pointer;
}

/* The first sequence that starts at token `offset` or later. */
static int64_t first_from(const struct source *s, int64_t offset) {
    int64_t low = 0, high = s->num_sequences;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (pointer_at(s, middle) < offset * s->token_bytes)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Offset of a sequence in tokens; negative where it begins at none. */
static int64_t start_of(const struct source *s, int64_t sequence) {
    if (sequence == s->num_sequences) return s->num_tokens;
    int64_t bytes = pointer_at(s, sequence), start = bytes / s->token_bytes;
    return bytes % s->token_bytes == 0 && start <= s->num_tokens ? start : -1;
}

#define COPY(type)                                                \
    do {                                                          \
        const type *ids = (const type *)s->tokens + start;        \
        for (int64_t i = 0; i < stop - start; i++) {              \
            uint32_t id = (uint32_t)ids[i];                       \
            out[i] = (int32_t)id;                                 \
            largest = id > largest ? id : largest;                \
        }                                                         \
    } while (0)

/* Tokens start .. stop - 1 as int32; returns their number, or -1 where an id is none. */
static int64_t read_tokens(const struct source *s, int64_t start, int64_t stop, int32_t *out) {
    uint32_t largest = 0; /* of ids without a sign */
    switch (s->dtype_code) {
        case 1: COPY(uint8_t); break;
        case 2: COPY(int8_t); break;
        case 3: COPY(int16_t); break;
        case 4: COPY(int32_t); break;
        case 5: COPY(int64_t); break;
        case 8: COPY(uint16_t); break;
    }
    return stop == start || largest < s->num_rows ? stop - start : -1;
}

static int64_t read_window(const struct source *s, int64_t item, int32_t *out) {
    int64_t start = item * s->length, left = s->num_tokens - start;
    return read_tokens(s, start, start + (left < s->length ? left : s->length), out);
}

static int64_t read_row(const struct source *s, int64_t item, int32_t *out) {
    int64_t first = first_from(s, item * s->length), end = first_from(s, (item + 1) * s->length);
    first += first % 2; /* a pair begins with its even sequence */
    end += end % 2;
    if (first > end) return -1;
    int64_t start = start_of(s, first), stop = start_of(s, end);
    int64_t last = first < end ? start_of(s, end - 2) : start;
    if (start < 0 || start > last || last > start + s->length || last > stop) return -1;
    if (stop - start <= s->capacity) return read_tokens(s, start, stop, out);

    int64_t whole = read_tokens(s, start, last, out), room = s->capacity - whole;
    if (whole < 0 || room < SMALLEST_PAIR) return whole;
    int64_t middle = start_of(s, end - 1);
    int64_t source_text = middle - last - 2, target_text = stop - middle - 1;
    if (source_text < 1 || target_text < 1) return -1;
    int64_t kept_text = room - 3, kept_source = kept_text * source_text / (source_text + target_text);
    if (kept_source < 1) kept_source = 1;
    int64_t kept_target = kept_text - kept_source;
    int64_t pieces[4][2] = {{last, last + 1 + kept_source},
                            {middle - 1, middle},
                            {middle, middle + kept_target},
                            {stop - 1, stop}};
    out += whole;
    for (int piece = 0; piece < 4; piece++) {
        int64_t written = read_tokens(s, pieces[piece][0], pieces[piece][1], out);
        if (written < 0) return -1;
        out += written;
    }
    return s->capacity;
}

/* Writes n items end to end. Table: struct source of each item, member by member; the item; and, written here,
 * its number of tokens. Returns n, or the first item that cannot be read. */
int64_t read_items(int64_t *table, int64_t n, int32_t *out) {
    for (int64_t i = 0; i < n; i++) {
        int64_t members[SOURCE_ROWS];
        for (int row = 0; row < SOURCE_ROWS; row++) members[row] = table[row * n + i];
        struct source source;
        memcpy(&source, members, sizeof source);
        int64_t item = table[ITEM * n + i];
        int64_t written = source.capacity ? read_row(&source, item, out) : read_window(&source, item, out);
        if (written < 0) return i;
        table[LENGTH * n + i] = written;
        out += written;
    }
    return n;
}

static int64_t *widen(int64_t *out, const int32_t *piece, int64_t length) {
    for (int64_t i = 0; i < length; i++) out[i] = piece[i];
    return out + length;
}

/* Writes sources, decoder inputs and labels of examples start .. end - 1 end to end, as 64-bit numbers. `places`
 * is examples.py's, of n examples. */
void join(const int32_t *tokens, const int64_t *places, int64_t n, int64_t start, int64_t end, int64_t *source,
          int64_t *decoder_input, int64_t *labels) {
    for (int64_t i = start; i < end; i++) {
        source = widen(source, tokens + places[i], places[n + i]);
        decoder_input = widen(decoder_input, tokens + places[2 * n + i], places[4 * n + i]);
        labels = widen(labels, tokens + places[3 * n + i], places[4 * n + i]);
    }
}

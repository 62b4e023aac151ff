/* One direction of one LSTM layer over rows of different lengths, none of them padded.
 *
 * Units come in blocks as wide as a vector. A tile of some rows and one block of units keeps all four gates in registers
 * (products.h), and the cell is computed from there (cell.h). A row's bits depend on nothing but that row.
 *
 * build.py compiles this once for each set of instructions; layer.py fills `struct direction`.
 */
#include <stdlib.h>

#include "products.h"

/* Bytes that the input products of some steps may take before they are used: half of a small second-level cache. */
#define AHEAD_BYTES (256 << 10)

struct direction {
    int64_t hidden;
    int64_t blocks;             /* of units, the last one filled up with zeros */
    int64_t width;              /* of an input: columns of ids if there are tables, else numbers */
    struct matrix recurrent;
    struct matrix input;        /* if there are no tables; in int8 if inputs lie in (-1, 1) */
    const float *bias;          /* [blocks][GATES][LANES], if there are no tables */
    const void *const *tables;  /* by column [ids][blocks][GATES][LANES]: products of each id, the biases in the first */
    int64_t half_tables;        /* tables are in bfloat16 */
};

/* Where the steps of some rows come from and go to, which stand in descending order of length.
 *
 * ids: of each row, if there are tables; the next step's are `next_ids` numbers further on in the first `going` rows.
 * outputs: where h goes, of each row; pooled: whether only the highest of each unit so far is kept there. */
struct places {
    const int32_t **ids;
    int64_t next_ids, going;
    float **outputs;
    int pooled;
};

/* The input products of some steps; `ahead` is [rows][blocks][GATES][LANES], and holds the biases. Blocks are the outer
 * loop, here and below: the weights of one stay in the first-level cache for all rows. */
static void add_inputs(const struct direction *d, const char *x, int64_t x_stride, float *ahead, int64_t rows) {
    for (int64_t block = 0, some; block < d->blocks; block += some) {
        some = blocks_of(rows, block, d->blocks);
        multiply_rows(&d->input, block, some, x, x_stride, ahead + block * QUAD, d->blocks * QUAD, rows);
    }
}

/* Where the entry of an id lies in a table, from a block on. */
INLINE const char *entry(const struct direction *d, int64_t column, int64_t id, int64_t block) {
    return (const char *)d->tables[column] + (id * d->blocks + block) * QUAD * (d->half_tables ? 2 : 4);
}

/* The input products of a step of one row from the tables of its columns: [GATES][LANES], for one block. */
INLINE void look_up(const struct direction *d, const int32_t *ids, int64_t block, vf *sums) {
    for (int64_t g = 0; g < GATES; g++)
        sums[g] = all(0);
    for (int64_t column = 0; column < d->width; column++) {
        const char *found = entry(d, column, ids[column], block);
        for (int64_t g = 0; g < GATES; g++)
            if (d->half_tables)
                sums[g] += widened((const vh *)found + g);
            else
                sums[g] += ((const vf *)found)[g];
    }
}

/* Fetches what `look_up` will read. Tables fit no cache, and where the next entries lie is known before. */
INLINE void fetch(const struct direction *d, const int32_t *ids, int64_t block) {
    for (int64_t column = 0; column < d->width; column++) {
        const char *found = entry(d, column, ids[column], block);
        for (int64_t at = 0; at < QUAD * (d->half_tables ? 2 : 4); at += 64)
            __builtin_prefetch(found + at);
    }
}

/* Puts h of a row where it goes, `left` numbers of it at most. */
INLINE void put_output(const struct places *at, int64_t row, int64_t unit, int64_t left, vf h) {
    float *to = at->outputs[row] + unit;
    if (at->pooled)
        h = highest(h, some_of(to, left));
    if (left >= LANES)
        *(vf *)to = h;
    else
        memcpy(to, &h, left * sizeof(float));
}

/* A step of some rows.
 *
 * h: what the step before left, `h_stride` bytes a row, as the products take it; h_after: the same after this step;
 * c: [rows][blocks × LANES]; sums: the input products as in `ahead` above, used up, or if there are tables room for
 * [rows or WIDE][GATES][LANES]. */
static void step(const struct direction *d, const struct places *at, const char *h, char *h_after, int64_t h_stride,
                 float *c, float *sums, int64_t rows) {
    for (int64_t block = 0, some; block < d->blocks; block += some) {
        some = blocks_of(rows, block, d->blocks);
        float *first = d->tables ? sums : sums + block * QUAD;
        const int64_t stride = d->tables ? QUAD : d->blocks * QUAD;
        for (int64_t row = 0; d->tables && row < rows; row++)
            for (int64_t b = 0; b < some; b++)
                look_up(d, at->ids[row], block + b, (vf *)(first + row * stride + b * QUAD));
        multiply_rows(&d->recurrent, block, some, h, h_stride, first, stride, rows);
        for (int64_t b = 0; b < some; b++) {
            const int64_t unit = (block + b) * LANES;
            float *gates = first + b * QUAD, *memory = c + unit;
            const int64_t next = d->blocks * LANES;
            /* What is looked up a round later: of a whole step at once, too much would be under way. */
            const int64_t later = block + b + blocks_of(rows, 0, d->blocks);
            for (int64_t row = 0; row < rows; row++) {
                if (d->tables && later < d->blocks)
                    fetch(d, at->ids[row], later);
                else if (d->tables && row < at->going)
                    fetch(d, at->ids[row] + at->next_ids, later - d->blocks);
                exponentiate((vf *)(gates + row * stride));
            }
            for (int64_t row = 0; row < rows; row++)
                remember((const vf *)(gates + row * stride), (vf *)(memory + row * next));
            for (int64_t row = 0; row < rows; row++) {
                const vf after = emit((const vf *)(gates + row * stride), (const vf *)(memory + row * next));
                if (d->recurrent.precision == FLOAT32)
                    *(vf *)(h_after + row * h_stride + unit * 4) = after;
#ifdef __AVX512BF16__
                else if (d->recurrent.precision == BFLOAT16)
                    *(__m256bh *)(h_after + row * h_stride + unit * 2) = _mm512_cvtneps_pbh((__m512)after);
#endif
                else
                    put_whole(after, h_after + row * h_stride + unit * item_bytes[INT8]);
                put_output(at, row, unit, d->hidden - unit, after);
            }
        }
    }
}

/* The rows in descending order of length, equal ones as they stand. */
static void sort_rows(const int64_t *lengths, int64_t rows, int64_t *order) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t place = i;
        for (; place > 0 && lengths[order[place - 1]] < lengths[i]; place--)
            order[place] = order[place - 1];
        order[place] = i;
    }
}

/* How many of the first `rows` rows, in that order, are longer than t. */
static int64_t rows_beyond(const int64_t *lengths, const int64_t *order, int64_t rows, int64_t t) {
    while (rows && lengths[order[rows - 1]] <= t)
        rows--;
    return rows;
}

/* What the loader asks: which answers these are, one more whenever a row's bits may have changed; how weights must lie;
 * and which precisions are there. */
int conveyor_revision(void) { return 2; }

int conveyor_lanes(void) { return LANES; }

int conveyor_item_bytes(int precision) { return item_bytes[precision]; }

int conveyor_has(int precision) {
#ifdef __AVX512BF16__
    if (precision == BFLOAT16)
        return 1;
#endif
#ifdef DOT
    if (precision == INT8)
        return 1;
#endif
    return precision == FLOAT32;
}

/* Runs a direction; backwards: rows are read and written from their own ends.
 *
 * x: int32 ids or float32 [rows][steps][width]; lengths: [rows], at most `steps` each, zero is valid; h, c: float32
 * [rows][hidden], the states before and then after each row's own last step, or both null: zeros before, not wanted
 * after; outputs: float32 [rows][steps][out_width], of which the first `hidden` numbers of each step are written, zeros
 * past a row's end; or, if they are pooled, for which h and c must be null, [rows][out_width]: of each unit the highest of
 * the row's steps, zeros of a row without steps, NaN if one is.
 *
 * Returns 0, or 1 if there is no memory. */
int conveyor_lstm(const struct direction *d, int backwards, const void *x, int64_t rows, int64_t steps,
                  const int64_t *lengths, float *h, float *c, float *outputs, int64_t out_width, int pooled) {
    const int64_t padded = d->blocks * LANES, line = padded * GATES;
    const int64_t precision = d->recurrent.precision, h_stride = padded * item_bytes[precision];
    const int64_t x_stride = d->tables ? 0 : words_of(&d->input) * 4;
    const int64_t most_ahead = rows > AHEAD_BYTES / (line * 4) ? rows : AHEAD_BYTES / (line * 4);
    const int64_t room = d->tables ? (rows > WIDE ? rows : WIDE) * QUAD : most_ahead * line;
    const int64_t kept = most_ahead * x_stride, pointers = rows * (int64_t)sizeof(void *);
    const int64_t bytes[] = {rows * h_stride, rows * h_stride, rows * padded * 4, room * 4, kept,
                             rows * (int64_t)sizeof(int64_t), pointers, pointers};
    enum { PARTS = sizeof bytes / sizeof *bytes };
    int64_t total = 0;
    for (int i = 0; i < PARTS; i++)
        total += (bytes[i] + 63) / 64 * 64;
    char *memory = aligned_alloc(64, total ? total : 64), *parts[PARTS], *free_part = memory;
    if (!memory)
        return 1;
    for (int i = 0; i < PARTS; i++) {
        parts[i] = free_part;
        free_part += (bytes[i] + 63) / 64 * 64;
    }
    float *cells = (float *)parts[2], *ahead = (float *)parts[3];
    struct places now = {(const int32_t **)parts[6], backwards ? -d->width : d->width, 0, (float **)parts[7], pooled};
    int64_t *order = (int64_t *)parts[5];
    sort_rows(lengths, rows, order);
    for (int i = 0; i < 2; i++)
        put_zeros(precision, parts[i], rows * padded); /* so stay units beyond `hidden` */
    memset(cells, 0, bytes[2]);
    memset(parts[4], 0, kept);
    for (int64_t i = 0; h && i < rows; i++) {
        put_row(precision, h + order[i] * d->hidden, d->hidden, parts[0] + i * h_stride);
        memcpy(cells + i * padded, c + order[i] * d->hidden, d->hidden * sizeof(float));
    }
    for (int64_t row = 0; row < rows; row++)
        if (pooled)
            for (int64_t unit = 0; unit < d->hidden; unit++)
                outputs[row * out_width + unit] = lengths[row] ? -__builtin_inff() : 0.0f;
        else
            for (int64_t t = lengths[row]; t < steps; t++)
                memset(outputs + (row * steps + t) * out_width, 0, d->hidden * sizeof(float));

    int64_t active = rows, until = 0, at = 0;
    const int64_t longest = rows ? lengths[order[0]] : 0;
    for (int64_t t = 0; t < longest; t++) {
        active = rows_beyond(lengths, order, active, t);
        now.going = rows_beyond(lengths, order, active, t + 1);
        if (!d->tables && t == until) {
            /* The input products of as many steps as there is room for. */
            int64_t found = 0, going = active;
            for (; until < longest; until++) {
                going = rows_beyond(lengths, order, going, until);
                if (until > t && found + going > most_ahead)
                    break;
                for (int64_t i = 0; i < going; i++, found++) {
                    const int64_t row = order[i], place = backwards ? lengths[row] - 1 - until : until;
                    const float *from = (const float *)x + (row * steps + place) * d->width;
                    const float strange = put_row(d->input.precision, from, d->width, parts[4] + found * x_stride);
                    for (int64_t n = 0; n < line; n++)
                        ahead[found * line + n] = d->bias[n] + strange;
                }
            }
            add_inputs(d, parts[4], x_stride, ahead, found);
            at = 0;
        }
        for (int64_t i = 0; i < active; i++) {
            const int64_t row = order[i], place = row * steps + (backwards ? lengths[row] - 1 - t : t);
            now.ids[i] = (const int32_t *)x + place * d->width;
            now.outputs[i] = outputs + (pooled ? row : place) * out_width;
        }
        step(d, &now, parts[t % 2], parts[(t + 1) % 2], h_stride, cells, ahead + (d->tables ? 0 : at * line), active);
        at += active;
        for (int64_t i = active - 1; h && i >= now.going; i--) {
            memcpy(h + order[i] * d->hidden, now.outputs[i], d->hidden * sizeof(float));
            memcpy(c + order[i] * d->hidden, cells + i * padded, d->hidden * sizeof(float));
        }
    }
    free(memory);
    return 0;
}

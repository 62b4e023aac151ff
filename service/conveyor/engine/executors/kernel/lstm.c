/* One direction of one LSTM layer over rows of different lengths, none of them padded.
 *
 * Units come in blocks as wide as a vector. Weights lie in the order in which they are read: for each block of units,
 * for each input, the four gates' values side by side (torch's order of gates: input, forget, candidate, output). So a
 * tile of some rows and one block of units keeps all four gates in registers, and the cell is computed from there.
 *
 * Every number of a row is one chain of fused multiply-adds in a fixed order, whatever tile it falls into. So a row's
 * bits depend on nothing but that row; contraction by the compiler is off, since it might differ between tiles.
 *
 * build.py compiles this once for each set of instructions; layer.py fills `struct direction`.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define GATES 4
#define LARGEST 6 /* rows × blocks of a tile */
#define WIDE 4    /* blocks of a tile of one row */

/* LANES: floats of a vector. ROWS: rows of a tile, such that their gates and what is loaded fit the registers. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define ROWS 6
#define FMA(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define MIN(a, b) ((vf)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define MAX(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#define ROWS 3
#define FMA(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define MIN(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define MAX(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
#define ROWS 6
#define FMA(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define MIN(a, b) ((vf)vminq_f32((float32x4_t)(a), (float32x4_t)(b)))
#define MAX(a, b) ((vf)vmaxq_f32((float32x4_t)(a), (float32x4_t)(b)))
#else
#define LANES 4
#define ROWS 3
#define FMA(a, b, c) ((a) * (b) + (c))
#define CHOOSE(which, yes, no) ((vf)(((which) & (vi)(yes)) | (~(which) & (vi)(no))))
#define MIN(a, b) CHOOSE((a) < (b), a, b)
#define MAX(a, b) CHOOSE((a) > (b), a, b)
#endif

typedef float vf __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

/* Bytes that the input products of some steps may take before they are used: half of a small second-level cache. */
#define AHEAD_BYTES (256 << 10)

struct direction {
    int64_t hidden;
    int64_t blocks;          /* of units, the last one filled up with zeros */
    int64_t width;           /* of an input: columns of ids if there are tables, else numbers */
    int64_t reduced;         /* products in bfloat16 */
    const void *recurrent;   /* [blocks][hidden][GATES][LANES]; in bfloat16 inputs in pairs: […/2][GATES][LANES][2] */
    const void *input;       /* the same for the input, if there are no tables */
    const float *bias;       /* [blocks][GATES][LANES], if there are no tables */
    const void *const *tables;  /* by column [ids][blocks][GATES][LANES]: products of each id, the biases in the first */
    int64_t half_tables;     /* tables are in bfloat16 */
};

INLINE vf all(float x) { return x - (vf){0}; }

/* NaN stays NaN: of two numbers of which one is NaN, x86 gives the second. */
INLINE vf clamp(vf x, float most) { return MAX(all(-most), MIN(all(most), x)); }

/* e^x to 1e-7 of itself for |x| ≤ 60: 2^n e^r, |r| ≤ ln 2 / 2, by the polynomial of Cephes' expf. */
INLINE vf exponential(vf x) {
    const float to_integer = 12582912.0f; /* 1.5 × 2^23: adding it leaves the nearest integer in the lowest bits */
    vf shifted = FMA(x, all(1.44269504f), all(to_integer));
    vf n = shifted - all(to_integer);
    vf r = FMA(n, all(-0.693359375f), x);
    r = FMA(n, all(2.12194440e-4f), r);
    vf p = FMA(all(1.9875691500e-4f), r, all(1.3981999507e-3f));
    p = FMA(p, r, all(8.3334519073e-3f));
    p = FMA(p, r, all(4.1665795894e-2f));
    p = FMA(p, r, all(1.6666665459e-1f));
    p = FMA(p, r, all(5.0000001201e-1f));
    p = FMA(p, r * r, r) + all(1.0f);
    return p * (vf)(((vi)shifted << 23) + 0x3f800000);
}

/* The cell, from the sums of its gates. Where two quotients are multiplied, one division does: σ(x) = 1 / (1 + e^-x),
 * tanh(x) = (1 - e^-2x) / (1 + e^-2x). The bounds are far beyond where float32 can tell the functions from their limits,
 * and no product of two terms overflows. */
INLINE void cell(const vf gates[GATES], vf *c, vf *h) {
    const float far_gate = 40.0f, far_tanh = 10.0f;
    const vf one = all(1.0f);
    vf ei = exponential(clamp(-gates[0], far_gate));
    vf ef = exponential(clamp(-gates[1], far_gate));
    vf eg = exponential(clamp(gates[2], far_tanh) * all(-2.0f));
    vf eo = exponential(clamp(-gates[3], far_gate));
    vf added = (one - eg) / ((one + ei) * (one + eg));
    vf kept = one / (one + ef);
    *c = FMA(kept, *c, added);
    vf ec = exponential(clamp(*c, far_tanh) * all(-2.0f));
    *h = (one - ec) / ((one + eo) * (one + ec));
}

/* Adds a × w to the sums of a tile of `rows` rows and `blocks` blocks of units.
 *
 * a: [rows][k], `a_stride` bytes from row to row; w: as in `struct direction`, from the first block on; sums: [rows] of
 * [blocks][GATES][LANES], `stride` numbers from row to row. */
INLINE void multiply(const int rows, const int blocks, const int reduced, const char *a, int64_t a_stride,
                     const char *w, int64_t k, float *sums, int64_t stride) {
    const int64_t quad = GATES * LANES * 4; /* bytes of the four gates' weights of an input, or of a pair in bfloat16 */
    const int64_t count = reduced ? (k + 1) / 2 : k;
    vf tile[LARGEST][GATES];
    for (int r = 0; r < rows; r++)
        for (int bg = 0; bg < blocks * GATES; bg++)
            tile[r * blocks + bg / GATES][bg % GATES] = *(const vf *)(sums + r * stride + bg * LANES);
    for (int64_t i = 0; i < count; i++)
        for (int b = 0; b < blocks; b++) {
            vf weights[GATES];
            for (int g = 0; g < GATES; g++)
                weights[g] = *(const vf *)(w + (b * count + i) * quad + g * LANES * 4);
            for (int r = 0; r < rows; r++)
                for (int g = 0; g < GATES; g++) {
                    vf *sum = &tile[r * blocks + b][g];
                    if (!reduced)
                        *sum = FMA(weights[g], all(*(const float *)(a + r * a_stride + i * 4)), *sum);
#ifdef __AVX512BF16__
                    else
                        *sum = (vf)_mm512_dpbf16_ps((__m512)*sum, (__m512bh)weights[g],
                                                    (__m512bh)_mm512_set1_epi32(*(const int32_t *)(a + r * a_stride + i * 4)));
#endif
                }
        }
    for (int r = 0; r < rows; r++)
        for (int bg = 0; bg < blocks * GATES; bg++)
            *(vf *)(sums + r * stride + bg * LANES) = tile[r * blocks + bg / GATES][bg % GATES];
}

typedef void multiply_tile(const char *a, int64_t a_stride, const char *w, int64_t k, float *sums, int64_t stride);

/* Not inlined: what is around the loop would take registers that the tile needs. */
#define TILE(name, rows, blocks, reduced)                                                                              \
    static __attribute__((noinline)) void name(const char *a, int64_t a_stride, const char *w, int64_t k, float *sums, \
                                               int64_t stride) {                                                       \
        multiply(rows, blocks, reduced, a, a_stride, w, k, sums, stride);                                              \
    }
#define TILES(kind, reduced)                                                                                           \
    TILE(kind##_1, 1, 1, reduced)                                                                                      \
    TILE(kind##_2, 2, 1, reduced)                                                                                      \
    TILE(kind##_3, 3, 1, reduced)                                                                                      \
    TILE(kind##_4, 4, 1, reduced)                                                                                      \
    TILE(kind##_5, 5, 1, reduced)                                                                                      \
    TILE(kind##_6, 6, 1, reduced)                                                                                      \
    TILE(kind##_wide, 1, WIDE, reduced)                                                                                   \
    static multiply_tile *const kind[] = {kind##_wide, kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6};
TILES(float32, 0)
TILES(bfloat16, 1)

/* Adds a × w to the sums of some rows, for one block of units or, of a lone row, two: one would leave most of the
 * adders idle, and so would tiles of one or two rows, hence rows are divided evenly. */
static void multiply_rows(const struct direction *d, int64_t blocks, const char *a, int64_t a_stride, const char *w,
                          int64_t k, float *sums, int64_t stride, int64_t rows) {
    multiply_tile *const *tiles = d->reduced ? bfloat16 : float32;
    if (blocks == WIDE) {
        tiles[0](a, a_stride, w, k, sums, stride);
        return;
    }
    for (int64_t left = (rows + ROWS - 1) / ROWS; left; left--) {
        const int64_t some = (rows + left - 1) / left;
        tiles[some](a, a_stride, w, k, sums, stride);
        a += some * a_stride;
        sums += some * stride;
        rows -= some;
    }
}

/* How many blocks of units to take at once. */
static int64_t blocks_of(const struct direction *d, int64_t rows, int64_t block) {
    return rows == 1 && block + WIDE <= d->blocks ? WIDE : 1;
}

/* The input products of some steps; `ahead` is [rows][blocks][GATES][LANES]. Blocks are the outer loop, here and below:
 * the weights of one stay in the first-level cache for all rows. */
static void add_inputs(const struct direction *d, const char *x, int64_t x_stride, float *ahead, int64_t rows) {
    const int64_t quad = GATES * LANES, line = d->blocks * quad;
    const int64_t block_bytes = (d->reduced ? (d->width + 1) / 2 : d->width) * quad * 4;
    for (int64_t row = 0; row < rows; row++)
        memcpy(ahead + row * line, d->bias, line * sizeof(float));
    for (int64_t block = 0, some; block < d->blocks; block += some) {
        some = blocks_of(d, rows, block);
        multiply_rows(d, some, x, x_stride, (const char *)d->input + block * block_bytes, d->width,
                      ahead + block * quad, line, rows);
    }
}

/* A step of some rows, which stand in descending order of length.
 *
 * h: what the step before left, `h_stride` bytes a row, in float32 or bfloat16; h_after: the same after this step;
 * c: [rows][blocks × LANES]; sums: as `ahead` above, used up; outputs: where h goes, by row. */
static void step(const struct direction *d, const char *h, char *h_after, int64_t h_stride, float *c, float *sums,
                 float *const *outputs, int64_t rows) {
    const int64_t quad = GATES * LANES, line = d->blocks * quad;
    const int64_t block_bytes = (d->reduced ? (d->hidden + 1) / 2 : d->hidden) * quad * 4;
    for (int64_t block = 0, some; block < d->blocks; block += some) {
        some = blocks_of(d, rows, block);
        multiply_rows(d, some, h, h_stride, (const char *)d->recurrent + block * block_bytes, d->hidden,
                      sums + block * quad, line, rows);
        for (int64_t unit = block * LANES; unit < (block + some) * LANES; unit += LANES)
            for (int64_t row = 0; row < rows; row++) {
                vf after;
                cell((const vf *)(sums + row * line + unit * GATES), (vf *)(c + row * d->blocks * LANES + unit), &after);
                if (!d->reduced)
                    *(vf *)(h_after + row * h_stride + unit * 4) = after;
#ifdef __AVX512BF16__
                else
                    *(__m256bh *)(h_after + row * h_stride + unit * 2) = _mm512_cvtneps_pbh((__m512)after);
#endif
                const int64_t left = d->hidden - unit;
                if (left >= LANES)
                    *(vf *)(outputs[row] + unit) = after;
                else
                    memcpy(outputs[row] + unit, &after, left * sizeof(float));
            }
    }
}

/* Numbers of a row as the products take them: a copy, or rounded to bfloat16 (ties to even; NaN stays NaN). */
static void put_row(const struct direction *d, const float *from, int64_t count, char *to) {
    if (!d->reduced) {
        memcpy(to, from, count * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, 4);
        const uint32_t rounded = from[i] != from[i] ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
        ((uint16_t *)to)[i] = rounded >> 16;
    }
}

/* The input products of one step of a row, from the tables of its columns. */
static void look_up(const struct direction *d, const int32_t *ids, float *ahead) {
    const int64_t line = d->blocks * LANES * GATES;
    for (int64_t i = 0; i < line; i += GATES * LANES) {
        vf sums[GATES] = {all(0)};
        for (int64_t column = 0; column < d->width; column++) {
            const int64_t place = ids[column] * line + i;
            for (int64_t g = 0; g < GATES; g++)
                if (d->half_tables)
                    sums[g] += (vf)(__builtin_convertvector(((const vh *)d->tables[column])[place / LANES + g], vi) << 16);
                else
                    sums[g] += ((const vf *)d->tables[column])[place / LANES + g];
        }
        memcpy(ahead + i, sums, sizeof sums);
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

/* What the loader asks: which answers these are, one more whenever a row's bits may have changed; how weights must lie;
 * and whether bfloat16 is there. */
int conveyor_revision(void) { return 1; }

int conveyor_lanes(void) { return LANES; }

int conveyor_has_bfloat16(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

/* Runs a direction; backwards: rows are read and written from their own ends.
 *
 * x: int32 ids or float32 [rows][steps][width]; lengths: [rows], at most `steps` each, zero is valid; h, c: float32
 * [rows][hidden], the states before and then after each row's own last step, or both null: zeros before, not wanted
 * after; outputs: float32 [rows][steps][out_width], of which the first `hidden` numbers of each step are written, zeros
 * past a row's end.
 *
 * Returns 0, or 1 if there is no memory. */
int conveyor_lstm(const struct direction *d, int backwards, const void *x, int64_t rows, int64_t steps,
                  const int64_t *lengths, float *h, float *c, float *outputs, int64_t out_width) {
    const int64_t padded = d->blocks * LANES, line = padded * GATES;
    const int64_t size = d->reduced ? 2 : 4, h_stride = padded * size;
    const int64_t x_stride = (d->width + 1) / 2 * 2 * size;
    const int64_t most_ahead = rows > AHEAD_BYTES / (line * 4) ? rows : AHEAD_BYTES / (line * 4);
    const int64_t kept = d->tables ? 0 : most_ahead * x_stride;
    const int64_t bytes[] = {rows * h_stride, rows * h_stride, rows * padded * 4, most_ahead * line * 4, kept,
                             rows * (int64_t)sizeof(int64_t), rows * (int64_t)sizeof(float *)};
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
    float *cells = (float *)parts[2], *ahead = (float *)parts[3], **places = (float **)parts[6];
    int64_t *order = (int64_t *)parts[5];
    sort_rows(lengths, rows, order);
    memset(parts[0], 0, 2 * (parts[1] - parts[0])); /* units beyond `hidden` stay zero, or become so */
    memset(cells, 0, bytes[2]);
    memset(parts[4], 0, kept);
    for (int64_t i = 0; h && i < rows; i++) {
        put_row(d, h + order[i] * d->hidden, d->hidden, parts[0] + i * h_stride);
        memcpy(cells + i * padded, c + order[i] * d->hidden, d->hidden * sizeof(float));
    }
    for (int64_t row = 0; row < rows; row++)
        for (int64_t t = lengths[row]; t < steps; t++)
            memset(outputs + (row * steps + t) * out_width, 0, d->hidden * sizeof(float));

    int64_t active = rows, until = 0, at = 0;
    const int64_t longest = rows ? lengths[order[0]] : 0;
    for (int64_t t = 0; t < longest; t++) {
        while (lengths[order[active - 1]] <= t)
            active--;
        if (t == until) {
            /* The input products of as many steps as there is room for. */
            int64_t found = 0, going = active;
            for (; until < longest; until++) {
                while (lengths[order[going - 1]] <= until)
                    going--;
                if (until > t && found + going > most_ahead)
                    break;
                for (int64_t i = 0; i < going; i++, found++) {
                    const int64_t row = order[i], place = backwards ? lengths[row] - 1 - until : until;
                    const int64_t from = (row * steps + place) * d->width;
                    if (d->tables)
                        look_up(d, (const int32_t *)x + from, ahead + found * line);
                    else
                        put_row(d, (const float *)x + from, d->width, parts[4] + found * x_stride);
                }
            }
            if (!d->tables)
                add_inputs(d, parts[4], x_stride, ahead, found);
            at = 0;
        }
        for (int64_t i = 0; i < active; i++) {
            const int64_t row = order[i], place = backwards ? lengths[row] - 1 - t : t;
            places[i] = outputs + (row * steps + place) * out_width;
        }
        step(d, parts[t % 2], parts[(t + 1) % 2], h_stride, cells, ahead + at * line, places, active);
        at += active;
        for (int64_t i = active - 1; h && i >= 0 && lengths[order[i]] == t + 1; i--) {
            memcpy(h + order[i] * d->hidden, places[i], d->hidden * sizeof(float));
            memcpy(c + order[i] * d->hidden, cells + i * padded, d->hidden * sizeof(float));
        }
    }
    free(memory);
    return 0;
}

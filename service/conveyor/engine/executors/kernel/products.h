/* Rows × weights, in each precision.
 *
 * Weights lie in the order in which they are read: for each block of units, for each input, the four gates' values side
 * by side (torch's order of gates: input, forget, candidate, output). So a tile of some rows and one block of units keeps
 * all four gates in registers.
 *
 * Every number is one chain in a fixed order, of fused multiply-adds or of exact sums of integers, whatever tile it falls
 * into. So a row's bits depend on nothing but that row; contraction by the compiler is off, since it might differ between
 * tiles. */
#ifndef CONVEYOR_PRODUCTS_H
#define CONVEYOR_PRODUCTS_H

#include <string.h>

#include "cell.h"

#define LARGEST 6 /* rows × blocks of a tile */
#define WIDE 4    /* blocks of a tile of one row */
#define QUAD (GATES * LANES)

enum precision { FLOAT32, BFLOAT16, INT8 };

/* Weights, and what is multiplied by them. Inputs are taken a word of four bytes at a time, and so many are zeros as fill
 * up the last: one float32, two bfloat16, and of int8 four, or two where no instruction sums
 * products of bytes exactly.
 *
 * In int8 an input, which must lie in (-1, 1), is round(127 x) + 128, and a weight is round(weight / s) with the scale s
 * of its unit and gate, by which the largest becomes 127. Sums of products are exact in int32 for up to 65 536 inputs. */
struct matrix {
    int64_t precision;
    int64_t inputs;
    const void *weights;    /* [blocks][words][GATES][LANES][inputs of a word] */
    const float *scales;    /* int8: [blocks][GATES][LANES], s / 127 */
    const int32_t *offsets; /* int8: [blocks][GATES][LANES], -128 × sum of the weights */
};

/* sum += the products of a word's inputs with their weights, in int8. */
#if defined(__AVX512VNNI__)
typedef uint8_t whole;
typedef __m512i vw;
/* The intrinsic leaves the weights in memory, where they are read again for each row. */
#define DOT(sum, weights, word) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(word), "v"(weights))
#elif defined(__AVX512F__)
typedef uint16_t whole;
typedef __m512i vw;
#define DOT(sum, weights, word) (sum = _mm512_add_epi32(sum, _mm512_madd_epi16(weights, word)))
#elif defined(__AVX2__) && defined(__FMA__)
typedef uint16_t whole;
typedef __m256i vw;
#define DOT(sum, weights, word) (sum = _mm256_add_epi32(sum, _mm256_madd_epi16(weights, word)))
#else
typedef uint8_t whole;
#endif
typedef whole vn __attribute__((vector_size(LANES * sizeof(whole)), aligned(1), may_alias));

static const int64_t item_bytes[] = {4, 2, sizeof(whole)};

INLINE int64_t words_of(const struct matrix *m) { return (m->inputs * item_bytes[m->precision] + 3) / 4; }

#define WEIGHTS(type, b, i, g) (*(const type *)(w + (((b) * words + (i)) * QUAD + (g) * LANES) * 4))
/* Else the compiler may keep a tile in memory. */
#define UNROLLED _Pragma("GCC unroll 6")
#define PLACE(numbers, b, g) ((numbers) + ((b) * GATES + (g)) * LANES)

/* Adds a × weights to the sums of a tile of `rows` rows and `blocks` blocks of units, from `block` on, in float32 or
 * bfloat16.
 *
 * a: [rows][words], `a_stride` bytes from row to row; sums: [rows] of [blocks][GATES][LANES], `stride` numbers from row
 * to row. */
INLINE void multiply(const int rows, const int blocks, const int reduced, const struct matrix *m, int64_t block,
                     const char *a, int64_t a_stride, float *sums, int64_t stride) {
    const int64_t words = words_of(m);
    const char *w = (const char *)m->weights + block * words * QUAD * 4;
    vf tile[LARGEST][GATES];
    UNROLLED for (int rb = 0; rb < rows * blocks; rb++)
        UNROLLED for (int g = 0; g < GATES; g++)
            tile[rb][g] = *(const vf *)PLACE(sums + rb / blocks * stride, rb % blocks, g);
    for (int64_t i = 0; i < words; i++)
        for (int b = 0; b < blocks; b++) {
            vf weights[GATES];
            for (int g = 0; g < GATES; g++)
                weights[g] = WEIGHTS(vf, b, i, g);
            for (int r = 0; r < rows; r++)
                for (int g = 0; g < GATES; g++) {
                    vf *sum = &tile[r * blocks + b][g];
                    const char *word = a + r * a_stride + i * 4;
                    if (!reduced)
                        *sum = FMA(weights[g], all(*(const float *)word), *sum);
#ifdef __AVX512BF16__
                    else
                        *sum = (vf)_mm512_dpbf16_ps((__m512)*sum, (__m512bh)weights[g],
                                                    (__m512bh)_mm512_set1_epi32(*(const int32_t *)word));
#endif
                }
        }
    UNROLLED for (int rb = 0; rb < rows * blocks; rb++)
        UNROLLED for (int g = 0; g < GATES; g++)
            *(vf *)PLACE(sums + rb / blocks * stride, rb % blocks, g) = tile[rb][g];
}

/* The same in int8. */
INLINE void multiply_bytes(const int rows, const int blocks, const struct matrix *m, int64_t block, const char *a,
                           int64_t a_stride, float *sums, int64_t stride) {
#ifdef DOT
    const int64_t words = words_of(m);
    const char *w = (const char *)m->weights + block * words * QUAD * 4;
    vw tile[LARGEST][GATES];
    UNROLLED for (int rb = 0; rb < rows * blocks; rb++)
        UNROLLED for (int g = 0; g < GATES; g++) {
            tile[rb][g] = (vw) * (const vi *)PLACE(m->offsets + block * QUAD, rb % blocks, g);
            /* The rows begin alike; GCC would keep one copy and shuffle registers in the loop. */
            __asm__("" : "+v"(tile[rb][g]));
        }
    for (int64_t i = 0; i < words; i++)
        for (int b = 0; b < blocks; b++) {
            vw weights[GATES];
            for (int g = 0; g < GATES; g++)
                weights[g] = (vw)WEIGHTS(vi, b, i, g);
            for (int r = 0; r < rows; r++) {
                const vw word = (vw)(*(const int32_t *)(a + r * a_stride + i * 4) - (vi){0});
                for (int g = 0; g < GATES; g++)
                    DOT(tile[r * blocks + b][g], weights[g], word);
            }
        }
    UNROLLED for (int rb = 0; rb < rows * blocks; rb++)
        UNROLLED for (int g = 0; g < GATES; g++) {
            vf *sum = (vf *)PLACE(sums + rb / blocks * stride, rb % blocks, g);
            *sum = FMA(__builtin_convertvector((vi)tile[rb][g], vf), *(const vf *)PLACE(m->scales + block * QUAD, rb % blocks, g), *sum);
        }
#endif
}

typedef void multiply_tile(const struct matrix *m, int64_t block, const char *a, int64_t a_stride, float *sums,
                           int64_t stride);

/* Not inlined: what is around the loop would take registers that the tile needs. */
#define TILE(name, rows, blocks, precision)                                                                            \
    static __attribute__((noinline)) void name(const struct matrix *m, int64_t block, const char *a, int64_t a_stride, \
                                               float *sums, int64_t stride) {                                          \
        if (precision == INT8)                                                                                         \
            multiply_bytes(rows, blocks, m, block, a, a_stride, sums, stride);                                         \
        else                                                                                                           \
            multiply(rows, blocks, precision == BFLOAT16, m, block, a, a_stride, sums, stride);                        \
    }
#define TILES(kind, precision)      \
    TILE(kind##_1, 1, 1, precision) \
    TILE(kind##_2, 2, 1, precision) \
    TILE(kind##_3, 3, 1, precision) \
    TILE(kind##_4, 4, 1, precision) \
    TILE(kind##_5, 5, 1, precision) \
    TILE(kind##_6, 6, 1, precision) \
    TILE(kind##_wide, 1, WIDE, precision)
#define ALL_TILES(kind) {kind##_wide, kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6}
TILES(float32, FLOAT32)
TILES(bfloat16, BFLOAT16)
TILES(int8, INT8)
static multiply_tile *const tiles[][1 + LARGEST] = {ALL_TILES(float32), ALL_TILES(bfloat16), ALL_TILES(int8)};

/* How many blocks of units to take at once: of a lone row several, since one would leave most of the adders idle. */
INLINE int64_t blocks_of(int64_t rows, int64_t block, int64_t blocks) {
    return rows == 1 && block + WIDE <= blocks ? WIDE : 1;
}

/* Adds a × weights to the sums of some rows, for one block of units, or of a lone row WIDE. Tiles of one or two rows would
 * leave adders idle too, hence rows are divided evenly. */
static void multiply_rows(const struct matrix *m, int64_t block, int64_t blocks, const char *a, int64_t a_stride,
                          float *sums, int64_t stride, int64_t rows) {
    multiply_tile *const *kind = tiles[m->precision];
    if (blocks == WIDE) {
        kind[0](m, block, a, a_stride, sums, stride);
        return;
    }
    for (int64_t left = (rows + ROWS - 1) / ROWS; left; left--) {
        const int64_t some = (rows + left - 1) / left;
        kind[some](m, block, a, a_stride, sums, stride);
        a += some * a_stride;
        sums += some * stride;
        rows -= some;
    }
}

/* Puts a vector of numbers in (-1, 1) as int8 takes them. */
INLINE void put_whole(vf x, char *to) {
    /* 1.5 × 2^23: adding it leaves the nearest integer in the lowest bits; and 128 is added to that. */
    const vi rounded = (vi)(x * all(127.0f) + all(12582912.0f + 128.0f));
#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
    /* Compilers make more of the conversion. */
    const __m256i numbers = _mm256_and_si256((__m256i)rounded, _mm256_set1_epi32(0xff));
    const __m256i packed = _mm256_packus_epi32(numbers, numbers);
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#else
    *(vn *)to = __builtin_convertvector(rounded & 0xff, vn);
#endif
}

/* Puts `count` zeros as the products take them. */
static void put_zeros(int64_t precision, char *to, int64_t count) {
    if (precision == INT8)
        for (int64_t i = 0; i < count; i++)
            ((whole *)to)[i] = 128;
    else
        memset(to, 0, count * item_bytes[precision]);
}

/* Puts `count` numbers as the products take them: a copy, rounded to bfloat16 (ties to even; NaN stays NaN), or bytes.
 *
 * Returns 0, or NaN if one is NaN and bytes can't say so. */
static float put_row(int64_t precision, const float *from, int64_t count, char *to) {
    vf strange = all(0);
    if (precision == FLOAT32)
        memcpy(to, from, count * sizeof(float));
    else if (precision == BFLOAT16)
        for (int64_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, from + i, 4);
            const uint32_t rounded = from[i] != from[i] ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
            ((uint16_t *)to)[i] = rounded >> 16;
        }
    else
        for (int64_t i = 0; i < count; i += LANES) {
            vf x = all(0);
            memcpy(&x, from + i, (count - i < LANES ? count - i : LANES) * sizeof(float));
            whole numbers[LANES];
            put_whole(x, (char *)numbers);
            memcpy((whole *)to + i, numbers, (count - i < LANES ? count - i : LANES) * sizeof(whole));
            strange += x - x;
        }
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += strange[lane];
    return sum;
}

#endif

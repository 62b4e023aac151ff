/* Vectors of float32 as wide as the CPU's, and the few operations on them that the compiler has no operator for. */
#ifndef CONVEYOR_VECTORS_H
#define CONVEYOR_VECTORS_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

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

INLINE vf all(float x) { return x - (vf){0}; }

/* The first `count` numbers from some place on, a vector of them at most; zeros behind them. */
INLINE vf some_of(const float *from, int64_t count) {
    vf x = all(0);
    if (count >= LANES)
        return *(const vf *)from;
    memcpy(&x, from, count * sizeof(float));
    return x;
}

/* bfloat16 → float32; compilers make of the conversion halves that they join again. */
INLINE vf widened(const vh *from) {
#if defined(__AVX512F__)
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16);
#else
    return (vf)(__builtin_convertvector(*from, vi) << 16);
#endif
}

#endif

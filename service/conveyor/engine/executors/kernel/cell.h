/* The LSTM cell, from the sums of its gates, accurate to some 1e-7. */
#ifndef CONVEYOR_CELL_H
#define CONVEYOR_CELL_H

#include "vectors.h"

#define GATES 4

/* 2^(x × scale), which is bounded by 2^most; to 1e-7 of itself. NaN stays NaN: of two numbers of which one is NaN, x86's
 * least and largest are the second. */
#if defined(__AVX512F__)
INLINE vf power(vf x, float scale, float most) {
    x = MIN(all(most), x * all(scale));
    /* 2^n p(f) with n the integer below; p(0) = 1, else of least relative error on [0, 1]. */
    vf f = (vf)_mm512_reduce_ps((__m512)x, 1);
    vf p = FMA(f, all(1.86713017e-3f), all(9.01702978e-3f));
    p = FMA(p, f, all(5.57999127e-2f));
    p = FMA(p, f, all(2.40164444e-1f));
    p = FMA(p, f, all(6.93151295e-1f));
    p = FMA(p, f, all(1.0f));
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)x);
}
#else
INLINE vf power(vf x, float scale, float most) {
    const float to_integer = 12582912.0f; /* 1.5 × 2^23: adding it leaves the nearest integer in the lowest bits */
    x = MAX(all(-most), MIN(all(most), x * all(scale)));
    vf shifted = x + all(to_integer);
    vf f = x - (shifted - all(to_integer));
    /* The same on [-½, ½]. */
    vf p = FMA(f, all(1.32647273e-3f), all(9.67151299e-3f));
    p = FMA(p, f, all(5.55073368e-2f));
    p = FMA(p, f, all(2.40222424e-1f));
    p = FMA(p, f, all(6.93147004e-1f));
    p = FMA(p, f, all(1.0f));
    return p * (vf)(((vi)shifted << 23) + 0x3f800000);
}
#endif

/* The cell in three steps, each to be done for many cells before the next: one cell after another, each from its sums to
 * h, is one chain of dependent operations, and the CPU sees too few of the next ones to fill the time.
 *
 * Where two quotients are multiplied, one division does: σ(x) = 1 / (1 + e^-x), tanh(x) = (1 - e^-2x) / (1 + e^-2x).
 * The bounds are far beyond where float32 can tell the functions from their limits, and no product of two terms
 * overflows. */
#define LOG2_E 1.44269504f
#define MOST_GATE 60.0f
#define MOST_TANH 30.0f

/* The sums of the gates become e^-x of the sigmoids, e^-2x of the candidate's tanh. */
INLINE void exponentiate(vf gates[GATES]) {
    gates[0] = power(gates[0], -LOG2_E, MOST_GATE);
    gates[1] = power(gates[1], -LOG2_E, MOST_GATE);
    gates[2] = power(gates[2], -2.0f * LOG2_E, MOST_TANH);
    gates[3] = power(gates[3], -LOG2_E, MOST_GATE);
}

/* c of the step before becomes c of this one. */
INLINE void remember(const vf gates[GATES], vf *c) {
    const vf one = all(1.0f);
    const vf ei = gates[0], ef = gates[1], eg = gates[2];
    vf added = (one - eg) / ((one + ei) * (one + eg));
    vf kept = one / (one + ef);
    *c = FMA(kept, *c, added);
}

/* h of this step. */
INLINE vf emit(const vf gates[GATES], const vf *c) {
    const vf one = all(1.0f);
    vf ec = power(*c, -2.0f * LOG2_E, MOST_TANH);
    return (one - ec) / ((one + gates[3]) * (one + ec));
}

/* The higher of two numbers of each lane; NaN if one of them is, or if x is not finite. */
INLINE vf highest(vf x, vf before) { return MAX(x, before) + (x - x); }

#endif

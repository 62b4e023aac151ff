/* What a classifier makes of its last layer's outputs: the highest of each over the row's own steps, a score of each
 * label from them, and the labels' probabilities. Row by row, so that a row's bits depend on nothing but that row. */
#include <stdlib.h>
#include <string.h>

#include "cell.h"

struct head {
    int64_t width;        /* of an output */
    int64_t labels;
    const float *weights; /* [labels][width, filled up with zeros to whole vectors] */
    const float *bias;    /* [labels] */
};

/* The highest of each output, zeros of a row without steps; NaN if one of its outputs is not finite. */
static void pool(const float *outputs, int64_t steps, int64_t width, float *pooled) {
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t some = width - i < LANES ? width - i : LANES;
        vf most = steps ? all(-__builtin_inff()) : all(0);
        for (int64_t t = 0; t < steps; t++) {
            vf x = all(0);
            if (some == LANES)
                x = *(const vf *)(outputs + t * width + i);
            else
                memcpy(&x, outputs + t * width + i, some * sizeof(float));
            most = highest(x, most);
        }
        *(vf *)(pooled + i) = most;
    }
}

/* Scores → probabilities, in place. */
static void softmax(float *scores, int64_t labels) {
    float highest = scores[0], total = 0;
    for (int64_t label = 1; label < labels; label++)
        highest = scores[label] > highest ? scores[label] : highest;
    for (int64_t label = 0; label < labels; label++) {
        scores[label] = power(all(scores[label] - highest), 1.44269504f, 126.0f)[0];
        total += scores[label];
    }
    for (int64_t label = 0; label < labels; label++)
        scores[label] /= total;
}

/* outputs: [rows][steps][width]; lengths: [rows], at most `steps` each, zero is valid, null where all are `steps`;
 * probabilities: [rows][labels], is written.
 *
 * Returns 0, or 1 if there is no memory. */
int conveyor_classify(const struct head *d, const float *outputs, int64_t rows, int64_t steps, const int64_t *lengths,
                      float *probabilities) {
    const int64_t padded = (d->width + LANES - 1) / LANES * LANES;
    float *pooled = aligned_alloc(64, (padded * sizeof(float) + 63) / 64 * 64);
    if (!pooled)
        return 1;
    for (int64_t row = 0; row < rows; row++) {
        float *scores = probabilities + row * d->labels;
        pool(outputs + row * steps * d->width, lengths ? lengths[row] : steps, d->width, pooled);
        for (int64_t label = 0; label < d->labels; label++) {
            vf products = all(0);
            for (int64_t i = 0; i < padded; i += LANES)
                products = FMA(*(const vf *)(pooled + i), *(const vf *)(d->weights + label * padded + i), products);
            scores[label] = d->bias[label];
            for (int lane = 0; lane < LANES; lane++)
                scores[label] += products[lane];
        }
        softmax(scores, d->labels);
    }
    free(pooled);
    return 0;
}

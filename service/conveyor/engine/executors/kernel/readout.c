/* What a classifier makes of the highest of each of its last layer's outputs: a score of each label, and the labels'
 * probabilities. Row by row, so that a row's bits depend on nothing but that row. */
#include "cell.h"

struct head {
    int64_t width;        /* of a row */
    int64_t labels;
    const float *weights; /* [labels][width, filled up with zeros to whole vectors] */
    const float *bias;    /* [labels] */
};

/* Scores → probabilities, in place. */
static void softmax(float *scores, int64_t labels) {
    float most = scores[0], total = 0;
    for (int64_t label = 1; label < labels; label++)
        most = scores[label] > most ? scores[label] : most;
    for (int64_t label = 0; label < labels; label++) {
        scores[label] = power(all(scores[label] - most), 1.44269504f, 126.0f)[0];
        total += scores[label];
    }
    for (int64_t label = 0; label < labels; label++)
        scores[label] /= total;
}

/* pooled: [rows][width]; probabilities: [rows][labels], is written. */
void conveyor_classify(const struct head *d, const float *pooled, int64_t rows, float *probabilities) {
    const int64_t padded = (d->width + LANES - 1) / LANES * LANES;
    for (int64_t row = 0; row < rows; row++) {
        const float *of_row = pooled + row * d->width;
        float *scores = probabilities + row * d->labels;
        for (int64_t label = 0; label < d->labels; label++) {
            vf products = all(0);
            for (int64_t i = 0; i < padded; i += LANES)
                products = FMA(some_of(of_row + i, d->width - i), *(const vf *)(d->weights + label * padded + i), products);
            scores[label] = d->bias[label];
            for (int lane = 0; lane < LANES; lane++)
                scores[label] += products[lane];
        }
        softmax(scores, d->labels);
    }
}

// The kernel against plain loops, bit for bit.
#include <algorithm>
#include <cstdio>

#include "../csim/bench.h"
#include "fpgpt_conv.h"
#include "parameters.h"

namespace {

struct Convolution {
    int batch, channels, filters, in_h, in_w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h,
        dilation_w, groups;

    int extent_h() const { return (kernel_h - 1) * dilation_h + 1; }
    int extent_w() const { return (kernel_w - 1) * dilation_w + 1; }
    int out_h() const { return (in_h + 2 * pad_h - extent_h()) / stride_h + 1; }
    int out_w() const { return (in_w + 2 * pad_w - extent_w()) / stride_w + 1; }
    // Of a group.
    int group_channels() const { return channels / groups; }
    int group_filters() const { return filters / groups; }
    // Words of the tensors.
    std::size_t x_words() const { return std::size_t(batch) * channels * in_h * in_w; }
    std::size_t w_words() const { return std::size_t(filters) * group_channels() * kernel_h * kernel_w; }
    std::size_t y_words() const { return std::size_t(batch) * filters * out_h() * out_w(); }
};

// Zeros, strides, groups, more padding than kernel, single words; with and without remainders of any X and Y.
const Convolution CONVOLUTIONS[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1}, {2, 3, 5, 9, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1},
    {2, 4, 6, 11, 10, 3, 2, 2, 3, 1, 0, 1, 1, 2}, {2, 4, 6, 11, 10, 3, 2, 2, 1, 2, 2, 2, 1, 1},
    {1, 3, 6, 6, 6, 1, 1, 2, 2, 0, 0, 1, 1, 1}, {1, 2, 3, 3, 4, 2, 2, 1, 1, 3, 3, 1, 1, 1},
    {3, 2, 20, 5, 5, 1, 1, 1, 1, 0, 0, 1, 1, 2}, {1, 1, 4, 12, 12, 5, 5, 1, 1, 0, 0, 1, 1, 1},
};

const char *const PASSES[] = {"forward", "grad_weight", "grad_input"};

// ---- launches ---------------------------------------------------------------------------------------------

// Words that X positions need at once and of a plane: from the first to the last position of a set INP moves on by so
// many rows and columns (thesis, section 5.3.6).
void line_words(const int *beta, int spread_h, int spread_w, int &z, int &z_channel) {
    const int out_w = beta[BETA_OUT_W], positions = beta[BETA_OUT_H] * out_w;
    const int plane = beta[BETA_INP_H] * beta[BETA_INP_W];
    z = z_channel = 1;
    for (int first = 0; first < positions; first += X) {
        const int last = std::min(first + X, positions) - 1;
        const int rows = (last / out_w - first / out_w) * beta[BETA_STEP_H];
        const int columns = (last % out_w - first % out_w) * beta[BETA_STEP_W];
        const auto words = [&](int more_rows, int more_columns) {
            const Split row = split(rows + more_rows + beta[BETA_INP_DILATION_H] - 1, beta[BETA_INP_DILATION_H]);
            const Split column =
                split(columns + more_columns + beta[BETA_INP_DILATION_W] - 1, beta[BETA_INP_DILATION_W]);
            return std::min(row.q * beta[BETA_INP_W] + column.q + 1, plane);
        };
        z = std::max(z, words(0, 0));
        z_channel = std::max(z_channel, words(spread_h - 1, spread_w - 1));
    }
}

// Fill in the parameters of a launch; whether it fits what was compiled.
bool make_beta(const Convolution &c, int pass, int group, int *beta) {
    const bool is_forward = pass == PASS_FORWARD, sums_up = pass == PASS_GRAD_WEIGHT,
               is_turned = pass == PASS_GRAD_INPUT;
    const int x_plane = c.in_h * c.in_w, y_plane = c.out_h() * c.out_w();
    const int x_group = group * c.group_channels() * x_plane, y_group = group * c.group_filters() * y_plane;
    const int w_group = group * c.group_filters() * c.group_channels() * c.kernel_h * c.kernel_w;
    beta[BETA_PASS] = pass;
    beta[BETA_A] = sums_up ? c.batch : 1;
    beta[BETA_INP_N] = sums_up ? c.group_channels() : c.batch;
    beta[BETA_INP_C] = sums_up ? 1 : is_forward ? c.group_channels() : c.group_filters();
    beta[BETA_INP_H] = is_turned ? c.out_h() : c.in_h;
    beta[BETA_INP_W] = is_turned ? c.out_w() : c.in_w;
    beta[BETA_KERN_N] = is_turned ? c.group_channels() : c.group_filters();
    beta[BETA_KERN_H] = sums_up ? c.out_h() : c.kernel_h;
    beta[BETA_KERN_W] = sums_up ? c.out_w() : c.kernel_w;
    beta[BETA_OUT_H] = is_forward ? c.out_h() : is_turned ? c.in_h : c.kernel_h;
    beta[BETA_OUT_W] = is_forward ? c.out_w() : is_turned ? c.in_w : c.kernel_w;
    beta[BETA_STEP_H] = is_forward ? c.stride_h : is_turned ? 1 : c.dilation_h;
    beta[BETA_STEP_W] = is_forward ? c.stride_w : is_turned ? 1 : c.dilation_w;
    beta[BETA_PAD_H] = is_turned ? c.extent_h() - 1 - c.pad_h : c.pad_h;
    beta[BETA_PAD_W] = is_turned ? c.extent_w() - 1 - c.pad_w : c.pad_w;
    beta[BETA_INP_DILATION_H] = is_turned ? c.stride_h : 1;
    beta[BETA_INP_DILATION_W] = is_turned ? c.stride_w : 1;
    beta[BETA_KERN_DILATION_H] = sums_up ? c.stride_h : c.dilation_h;
    beta[BETA_KERN_DILATION_W] = sums_up ? c.stride_w : c.dilation_w;
    beta[BETA_INP_START] = is_turned ? y_group : x_group;
    beta[BETA_INP_A_NEXT] = sums_up ? c.channels * x_plane : 0;
    beta[BETA_INP_N_NEXT] = sums_up ? x_plane : is_forward ? c.channels * x_plane : c.filters * y_plane;
    beta[BETA_KERN_START] = sums_up ? y_group : w_group;
    beta[BETA_KERN_A_NEXT] = sums_up ? c.filters * y_plane : 0;
    beta[BETA_OUT_START] = is_forward ? y_group : is_turned ? x_group : w_group;
    beta[BETA_OUT_N_NEXT] = is_forward  ? c.filters * y_plane
                            : is_turned ? c.channels * x_plane
                                        : int(c.w_words()) / c.groups;
    int z;
    line_words(beta, (beta[BETA_KERN_H] - 1) * beta[BETA_KERN_DILATION_H] + 1,
               (beta[BETA_KERN_W] - 1) * beta[BETA_KERN_DILATION_W] + 1, z, beta[BETA_Z_CHANNEL]);
    const Shape s = shape_of(beta);
    const int kern_words = sums_up ? 2 * Y * ceil_div(s.stored, Y) : s.blocks * s.stored;
    const int out_words = sums_up ? s.filters * s.planes * s.sets : 2 * Y * s.sets;
    return z <= Z && Z * ceil_div(s.z_channel, Z) <= LINE_WORDS && kern_words <= KERN_WORDS && out_words <= OUT_WORDS;
}

// ---- what is expected -------------------------------------------------------------------------------------

// Interleaved sums of one word of OUT.
struct Adder {
    host_sum_t sums[4] = {};
    int products = 0;
    void add_product(host_word_t a, host_word_t b) {
        host_sum_t &sum = sums[products++ % SUMS];
        sum = add(sum, product(a, b));
    }
    host_sum_t total() const { return add(add(sums[0], sums[1]), add(sums[2], sums[3])); }
};

// A word of an image, 0 in the padding.
template <typename Tensor>
host_word_t word_at(const Tensor &tensor, int plane, int height, int width, int row, int column) {
    if (row < 0 || row >= height || column < 0 || column >= width) return 0;
    return tensor.get((std::size_t(plane) * height + row) * width + column);
}

// A word of an image with zeros between its words, 0 there and around it.
template <typename Tensor>
host_word_t spread_word_at(const Tensor &tensor, int plane, int height, int width, int row, int column, int gap_h,
                           int gap_w) {
    if (row < 0 || column < 0 || row % gap_h || column % gap_w) return 0;
    return word_at(tensor, plane, height, width, row / gap_h, column / gap_w);
}

template <typename Tensor>
host_sum_t forward_word(const Convolution &c, const Tensor &x, const Tensor &w, int n, int filter, int row,
                        int column) {
    Adder adder;
    const int first = filter / c.group_filters() * c.group_channels();
    for (int channel = 0; channel < c.group_channels(); channel++)
        for (int i = 0; i < c.extent_h(); i++)
            for (int j = 0; j < c.extent_w(); j++)
                adder.add_product(word_at(x, n * c.channels + first + channel, c.in_h, c.in_w,
                                          row * c.stride_h - c.pad_h + i, column * c.stride_w - c.pad_w + j),
                                  spread_word_at(w, filter * c.group_channels() + channel, c.kernel_h, c.kernel_w, i, j,
                                                 c.dilation_h, c.dilation_w));
    return adder.total();
}

template <typename Tensor>
host_sum_t grad_input_word(const Convolution &c, const Tensor &dy, const Tensor &w, int n, int channel, int row,
                           int column) {
    Adder adder;
    const int first = channel / c.group_channels() * c.group_filters();
    for (int filter = first; filter < first + c.group_filters(); filter++)
        for (int i = c.extent_h() - 1; i >= 0; i--)
            for (int j = c.extent_w() - 1; j >= 0; j--)
                adder.add_product(spread_word_at(dy, n * c.filters + filter, c.out_h(), c.out_w(), row + c.pad_h - i,
                                                 column + c.pad_w - j, c.stride_h, c.stride_w),
                                  spread_word_at(w, filter * c.group_channels() + channel % c.group_channels(),
                                                 c.kernel_h, c.kernel_w, i, j, c.dilation_h, c.dilation_w));
    return adder.total();
}

template <typename Tensor>
host_sum_t grad_weight_word(const Convolution &c, const Tensor &x, const Tensor &dy, int filter, int channel, int row,
                            int column) {
    host_sum_t total = 0;
    const int first = filter / c.group_filters() * c.group_channels();
    for (int n = 0; n < c.batch; n++) {
        Adder adder;
        for (int i = 0; i < (c.out_h() - 1) * c.stride_h + 1; i++)
            for (int j = 0; j < (c.out_w() - 1) * c.stride_w + 1; j++)
                adder.add_product(word_at(x, n * c.channels + first + channel, c.in_h, c.in_w,
                                          row * c.dilation_h - c.pad_h + i, column * c.dilation_w - c.pad_w + j),
                                  spread_word_at(dy, n * c.filters + filter, c.out_h(), c.out_w(), i, j, c.stride_h,
                                                 c.stride_w));
        total = add(total, adder.total());
    }
    return total;
}

// ---- cases ------------------------------------------------------------------------------------------------

// How many results of a pass differ; -1 where the pass does not fit what was compiled.
long differences(const Convolution &c, int pass, std::mt19937 &random) {
    const std::size_t words[3] = {c.x_words(), c.w_words(), c.y_words()};
    const int roles[3][3] = {{0, 1, 2}, {0, 2, 1}, {2, 1, 0}};  // of INP, KERN and OUT in each pass: x, w or y
    Buffer<host_word_t, inp_beat> inp(words[roles[pass][0]]), kern(words[roles[pass][1]]);
    Buffer<host_sum_t, out_beat> out(words[roles[pass][2]]);
    fill(inp, random);
    fill(kern, random);
    // What stands behind the last word has to stay.
    const std::size_t all = out.beat_count() * OUT_BAND;
    for (std::size_t index = 0; index < all; index++) out.set(index, host_sum_t(77));

    for (int group = 0; group < c.groups; group++) {
        int beta[PARAMETERS];
        if (!make_beta(c, pass, group, beta)) return -1;
        const int failed = simulation::run([&] {
            simulation::open_port("inp", inp.beats(), inp.beat_count());
            simulation::open_port("kern", kern.beats(), kern.beat_count());
            simulation::open_port("out", out.beats(), out.beat_count());
            fpgpt_conv(inp.beats(), kern.beats(), out.beats(), beta);
        });
        if (failed) {
            std::printf("  %s\n", simulation_message());
            return 1;
        }
    }

    long wrong = 0;
    std::size_t index = 0;
    const bool sums_up = pass == PASS_GRAD_WEIGHT, is_forward = pass == PASS_FORWARD;
    const int outer = sums_up ? c.filters : c.batch;
    const int planes = sums_up ? c.group_channels() : is_forward ? c.filters : c.channels;
    const int height = sums_up ? c.kernel_h : is_forward ? c.out_h() : c.in_h;
    const int width = sums_up ? c.kernel_w : is_forward ? c.out_w() : c.in_w;
    for (int n = 0; n < outer; n++)
        for (int plane = 0; plane < planes; plane++)
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++, index++) {
                    const host_sum_t right = sums_up ? grad_weight_word(c, inp, kern, n, plane, row, column)
                                             : is_forward ? forward_word(c, inp, kern, n, plane, row, column)
                                                          : grad_input_word(c, inp, kern, n, plane, row, column);
                    if (!is_same(out.get(index), right)) wrong++;
                }
    for (; index < all; index++)
        if (!is_same(out.get(index), host_sum_t(77))) wrong++;
    return wrong;
}

}  // namespace

int main() {
    std::mt19937 random(1);
    long wrong = 0;
    int done = 0, all = 0;
    for (const Convolution &c : CONVOLUTIONS)
        for (int pass = 0; pass < 3; pass++) {
            all++;
            const long found = differences(c, pass, random);
            std::printf("%s of %dx%dx%dx%d, %d filters of %dx%d in %d groups: ", PASSES[pass], c.batch, c.channels,
                        c.in_h, c.in_w, c.filters, c.kernel_h, c.kernel_w, c.groups);
            if (found < 0) {
                std::printf("does not fit the compiled sizes\n");
                continue;
            }
            std::printf("%ld results differ\n", found);
            wrong += found;
            done++;
        }
    std::printf("%d of %d passes fit this design: %s\n", done, all, wrong || !done ? "FAILED" : "PASSED");
    return wrong || !done ? 1 : 0;
}

// Builds the .cu files with a host compiler: the threads of a launch run one after another, so that what a kernel computes
// can be held against the other backends where no GPU is. Kernels here use no shared memory and no barriers.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline

using std::max;
using std::min;

struct Place {
    unsigned x, y;
};
static thread_local Place threadIdx, blockIdx, blockDim;

template <typename T> T atomicAdd(T *at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}
template <typename T> T atomicMin(T *at, T value) {
    const T before = *at;
    *at = min(before, value);
    return before;
}
template <typename T> T atomicMax(T *at, T value) {
    const T before = *at;
    *at = max(before, value);
    return before;
}

template <typename... Types, std::size_t... I>
void call(void (*kernel)(Types...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Types> *>(arguments[I])...);
}

// Runs every thread of a launch; `arguments` are pointers to the arguments, as for cudaLaunchKernel.
template <typename... Types>
void run(void (*kernel)(Types...), unsigned blocks_x, unsigned blocks_y, unsigned threads, void **arguments) {
    blockDim = {threads, 1};
    for (unsigned y = 0; y < blocks_y; ++y)
        for (unsigned x = 0; x < blocks_x; ++x)
            for (unsigned t = 0; t < threads; ++t) {
                blockIdx = {x, y};
                threadIdx = {t, 0};
                call(kernel, arguments, std::index_sequence_for<Types...>{});
            }
}

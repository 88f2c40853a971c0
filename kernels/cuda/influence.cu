// CUDA `deposit_columns`: see kernels/contract.py. Compiled with LANES (beamlets of a block), COMPONENTS, RATIO (of one
// exponent to the one before, 2 or 3), PER_THREAD (lanes of a line that a thread carries), CHUNK (voxels), BRIDGED (rows left
// out between two runs that are kept as zeros) and SERIES_BELOW.
//
// Blocks of neighbouring beamlets stand side by side (y of a launch), their beamlets in lanes that are adjacent in memory:
// share and energy are [block][voxel][lane]. A cone is one launch: each of its lines goes through voxels of its own, so that
// nobody meets anybody; the cones follow one another, so that sums keep their order. Atomics only take whole numbers'
// maxima and count, which is the same in any order.

#include "path_terms.h"

struct Cone {
    int n_planes, n_rows, n_columns, plane_stride, row_stride, column_stride, forward, above, left, width;
};

__device__ static int upper(const long long *__restrict__ starts, int n, long long value) {
    int low = 0, high = n;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (starts[middle] <= value) low = middle;
        else high = middle;
    }
    return low;
}

// The bits of a number that is not negative, which as whole numbers order as the numbers do.
__device__ static int bits_of(float value) {
    union {
        float value;
        int bits;
    } both = {value};
    return both.bits;
}

// share: released energy of every source in its beamlet's lane; block_of: the block of each entry, -1 where nothing is released; most_bits [block][lane]: the
// most that a beamlet releases in any voxel. One thread an entry.
extern "C" __global__ void place_sources(const long long *__restrict__ start, int n_beamlets,
                                         const long long *__restrict__ block, int n_blocks,
                                         const long long *__restrict__ voxel, const float *__restrict__ fraction,
                                         long long n_entries, const float *__restrict__ released, long long n_voxels,
                                         float *__restrict__ share, int *__restrict__ block_of, int *__restrict__ most_bits,
                                         unsigned char *__restrict__ touched, int n_chunks) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (own >= n_entries) return;
    const int beamlet = upper(start, n_beamlets, own), in = upper(block, n_blocks, beamlet);
    const long long v = voxel[own];
    const int lane = beamlet - (int)block[in];
    const float energy = fraction[own] * released[v];
    block_of[own] = energy > 0 ? in : -1;
    share[(in * n_voxels + v) * LANES + lane] = energy;
    atomicMax(most_bits + in * LANES + lane, bits_of(energy));
    touched[(long long)in * n_chunks + v / CHUNK] = 1;
}

// limit = negligible * most.
extern "C" __global__ void set_limits(const float *__restrict__ most, float negligible, int n, float *__restrict__ limit) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x;
    if (own < n) limit[own] = negligible * most[own];
}

// Lines of one cone that hold sources: n_planes minus the first and one plus the last step with a source, zero for the others;
// each block's lines in the order in which they happen to be found. One thread an entry.
extern "C" __global__ void find_lines(const int *__restrict__ cone, const long long *__restrict__ row_shift,
                                      const long long *__restrict__ column_shift, const long long *__restrict__ voxel,
                                      const int *__restrict__ block_of, long long n_entries, int n_places, int n_most,
                                      int *__restrict__ first, int *__restrict__ last, int *__restrict__ line,
                                      int *__restrict__ n_lines) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (own >= n_entries) return;
    const int block = block_of[own];
    if (block < 0) return;
    const Cone &c = *reinterpret_cast<const Cone *>(cone);
    const long long v = voxel[own];
    const int plane = v / c.plane_stride % c.n_planes, step = c.forward ? plane : c.n_planes - 1 - plane;
    const int row = (int)(v / c.row_stride % c.n_rows - row_shift[step]) + c.above;
    const int column = (int)(v / c.column_stride % c.n_columns - column_shift[step]) + c.left;
    const int at = row * c.width + column;
    atomicMax(first + (long long)block * n_places + at, c.n_planes - step);
    if (atomicMax(last + (long long)block * n_places + at, step + 1) == 0)
        line[(long long)block * n_most + atomicAdd(n_lines + block, 1)] = at;
}

struct alignas(16) Four {
    float value[4];
};

// Whether any of the threads that carry a line says so. They are neighbours in a warp and take every step together.
__device__ static bool any_of_line(bool own) {
#if PER_THREAD == LANES
    return own;
#else
    const unsigned together = LANES / PER_THREAD, first = threadIdx.x % 32 / together * together;
    return __any_sync(((1u << together) - 1) << first, own);
#endif
}

// Deposits of a thread's lanes in one voxel, from what is on its way and what is released there; returns whether any exceeds
// its limit, or would if the voxel were water. `kernel` is the voxel's hardness in the first beamlet, `per_beamlet` floats from one to the next.
template <bool RELEASES>
__device__ static bool deposit(float y, float (&state)[COMPONENTS][PER_THREAD], const Four *__restrict__ share,
                               const float *__restrict__ kernel, long long per_beamlet, const float *__restrict__ limit,
                               float density, Four *__restrict__ energy) {
    float first_m, first_q;
    path_terms(y, first_m, first_q);
    bool some = false;
#pragma unroll
    for (int four = 0; four < PER_THREAD / 4; ++four) {
        Four released = {};
        if (RELEASES) released = share[four];
        float m = first_m, q = first_q, here[4] = {};
#pragma unroll
        for (int i = 0; i < COMPONENTS; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int l = 4 * four + j;
                // A lane without a beamlet releases nothing and has no kernel.
                const float fresh = released.value[j] > 0 ? released.value[j] * kernel[l * per_beamlet + i] : 0;
                const float left = state[i][l] * m + fresh * q;
                here[j] += left;
                state[i][l] += fresh - left;
            }
            q += (1 - q) * (RATIO == 2 ? 0.5f * m : m - m * m * (1.f / 3));
            m *= RATIO == 2 ? 2 - m : 3 - 3 * m + m * m;
        }
        Four sum = energy[four];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sum.value[j] += here[j];
            some = some || here[j] > limit[4 * four + j] * density;
        }
        energy[four] = sum;
    }
    return some;
}

// Follows the lines of one cone from their first source on: beyond the last one until reach_cm, or until no lane would
// deposit more than its limit in water (limit [block][lane]). x: line and, PER_THREAD lanes each, the threads that share it; y: block.
// per_cone [beamlet][hardness][component] of this cone; offset [step]: of a line's voxel from the line's row and column.
extern "C" __global__ void follow_lines(const int *__restrict__ cone, const long long *__restrict__ row_shift,
                                        const long long *__restrict__ column_shift, const int *__restrict__ offset,
                                        float step_cm, float smallest_exponent, float reach_cm, const float *__restrict__ density,
                                        const unsigned char *__restrict__ hardness, long long n_voxels,
                                        const long long *__restrict__ block, const float *__restrict__ per_cone,
                                        long long per_beamlet, const float *__restrict__ limit, const int *__restrict__ first,
                                        const int *__restrict__ last, const int *__restrict__ line,
                                        const int *__restrict__ n_lines, int n_places, int n_most,
                                        const float *__restrict__ share, float *__restrict__ energy,
                                        unsigned char *__restrict__ touched, int n_chunks) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x, in = blockIdx.y, lane = own * PER_THREAD % LANES;
    if (own / (LANES / PER_THREAD) >= n_lines[in]) return;
    const Cone &c = *reinterpret_cast<const Cone *>(cone);
    const int at = line[(long long)in * n_most + own / (LANES / PER_THREAD)];
    const int row = at / c.width - c.above, column = at % c.width - c.left;
    const int begin = c.n_planes - first[(long long)in * n_places + at], end = last[(long long)in * n_places + at] - 1;
    const float *kernels = per_cone + (block[in] + lane) * per_beamlet, *limits = limit + in * LANES + lane;
    int leaves = begin;
    while (leaves < c.n_planes && (unsigned)(row + (int)row_shift[leaves]) < (unsigned)c.n_rows &&
           (unsigned)(column + (int)column_shift[leaves]) < (unsigned)c.n_columns)
        ++leaves;
    const int base = row * c.row_stride + column * c.column_stride;
    float state[COMPONENTS][PER_THREAD] = {}, beyond = 0;
#pragma unroll 1
    for (int n = begin; n < leaves && beyond <= reach_cm; ++n) {
        const long long v = base + offset[n];
        const float along = density[v] * step_cm;
        if (along <= 0) continue;
        touched[(long long)in * n_chunks + v / CHUNK] = 1;
        const long long place = (in * n_voxels + v) * LANES + lane;
        Four *here = reinterpret_cast<Four *>(energy + place);
        if (n <= end) {
            const Four *released = reinterpret_cast<const Four *>(share + place);
            deposit<true>(smallest_exponent * along, state, released, kernels + hardness[v] * COMPONENTS, per_beamlet, limits, 1, here);
        } else {
            beyond += along;
            if (!any_of_line(deposit<false>(smallest_exponent * along, state, nullptr, nullptr, 0, limits, density[v], here))) break;
        }
    }
}

// Empties the tables for the next cone. One thread a line (x) of a block (y).
extern "C" __global__ void forget_lines(const int *__restrict__ line, const int *__restrict__ n_lines, int n_places, int n_most,
                                        int *__restrict__ first, int *__restrict__ last) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x, in = blockIdx.y;
    if (own >= n_lines[in]) return;
    const int at = line[(long long)in * n_most + own];
    first[(long long)in * n_places + at] = 0;
    last[(long long)in * n_places + at] = 0;
}

struct Chunk {
    long long place, voxel, end;  // of the lane in its block's arrays; first and one past the last voxel
    int beamlet;                  // -1 where there is nothing to do
};

// The chunk of voxels and lane that a thread works on: x chunk and lane, y block.
__device__ static Chunk chunk_of(const long long *__restrict__ block, const unsigned char *__restrict__ touched, long long n_voxels,
                                 int n_chunks, int own, int in) {
    const int lane = own % LANES, chunk = own / LANES;
    if (chunk >= n_chunks || lane >= block[in + 1] - block[in] || !touched[(long long)in * n_chunks + chunk])
        return {0, 0, 0, -1};
    const long long voxel = (long long)chunk * CHUNK;
    return {in * n_voxels * LANES + lane, voxel, min(voxel + CHUNK, n_voxels), (int)block[in] + lane};
}

// Energy to dose in voxels that have a row, zero in the others; the bits of each beamlet's largest, which order as it does.
extern "C" __global__ void to_dose(const long long *__restrict__ block, const unsigned char *__restrict__ touched,
                                   long long n_voxels, int n_chunks, const unsigned char *__restrict__ hardness,
                                   const float *__restrict__ local, const float *__restrict__ dose_per_energy,
                                   const int *__restrict__ row_of, const float *__restrict__ share, float *__restrict__ energy,
                                   int *__restrict__ largest_bits) {
    const Chunk c = chunk_of(block, touched, n_voxels, n_chunks, blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y);
    if (c.beamlet < 0) return;
    float largest = 0;
    for (long long v = c.voxel; v < c.end; ++v) {
        const long long at = c.place + v * LANES;
        const float released = share[at], all = energy[at] + (released > 0 ? released * local[hardness[v]] : 0);
        const float dose = row_of[v] < 0 ? 0 : all * dose_per_energy[v];
        energy[at] = dose;
        largest = max(largest, dose);
    }
    if (largest > 0) atomicMax(largest_bits + c.beamlet, bits_of(largest));
}

// One chunk of a column in runs of neighbouring rows; returns by reference the numbers of runs and levels, and writes them
// where `level` is given.
__device__ static void emit(const Chunk &c, const float *__restrict__ dose, const int *__restrict__ row_of, float largest,
                            float threshold, int &runs, int &levels, int *run_row, unsigned short *run_length,
                            unsigned short *level) {
    const float limit = max(threshold * largest, 1e-30f), per_dose = 65535.f / max(largest, 1e-30f);
    int following = -1, begin = 0;
    runs = levels = 0;
    for (long long v = c.voxel; v < c.end; ++v) {
        const float value = dose[c.place + v * LANES];
        if (value <= limit) continue;
        const int row = row_of[v];
        int gap = row - following;
        if (runs == 0 || gap > BRIDGED) {
            begin = levels;
            gap = 0;
            if (level) run_row[runs] = row;
            ++runs;
        }
        if (level) {
            for (int i = 0; i < gap; ++i) level[levels + i] = 0;
            level[levels + gap] = (unsigned short)min(value * per_dose + 0.5f, 65535.f);
            run_length[runs - 1] = (unsigned short)(levels + gap + 1 - begin);
        }
        levels += gap + 1;
        following = row + 1;
    }
}

// sizes [block][lane][chunk][runs, levels].
extern "C" __global__ void count_entries(const long long *__restrict__ block, const unsigned char *__restrict__ touched,
                                         long long n_voxels, int n_chunks, const float *__restrict__ dose,
                                         const int *__restrict__ row_of, const float *__restrict__ largest, float threshold,
                                         int *__restrict__ sizes) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x;
    const Chunk c = chunk_of(block, touched, n_voxels, n_chunks, own, blockIdx.y);
    if (c.beamlet < 0) return;
    int runs, levels;
    emit(c, dose, row_of, largest[c.beamlet], threshold, runs, levels, nullptr, nullptr, nullptr);
    int *size = sizes + 2 * (((long long)blockIdx.y * LANES + own % LANES) * n_chunks + own / LANES);
    size[0] = runs;
    size[1] = levels;
}

// Sizes to what comes before each chunk in its column; totals [block][lane][runs, levels]. One thread a column.
extern "C" __global__ void sum_entries(int n_columns, int n_chunks, int *__restrict__ sizes, int *__restrict__ totals) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x;
    if (own >= n_columns) return;
    int runs = 0, levels = 0, *size = sizes + 2LL * own * n_chunks;
    for (int chunk = 0; chunk < n_chunks; ++chunk, size += 2) {
        const int own_runs = size[0], own_levels = size[1];
        size[0] = runs;
        size[1] = levels;
        runs += own_runs;
        levels += own_levels;
    }
    totals[2LL * own] = runs;
    totals[2LL * own + 1] = levels;
}

// Writes every chunk's runs and levels behind those before it. run_start, level_start: of each beamlet.
extern "C" __global__ void write_entries(const long long *__restrict__ block, const unsigned char *__restrict__ touched,
                                         long long n_voxels, int n_chunks, const float *__restrict__ dose,
                                         const int *__restrict__ row_of, const float *__restrict__ largest, float threshold,
                                         const int *__restrict__ sizes, const long long *__restrict__ run_start,
                                         const long long *__restrict__ level_start, int *__restrict__ run_row,
                                         unsigned short *__restrict__ run_length, unsigned short *__restrict__ level) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x;
    const Chunk c = chunk_of(block, touched, n_voxels, n_chunks, own, blockIdx.y);
    if (c.beamlet < 0) return;
    const int *size = sizes + 2 * (((long long)blockIdx.y * LANES + own % LANES) * n_chunks + own / LANES);
    const long long run = run_start[c.beamlet] + size[0];
    int runs, levels;
    emit(c, dose, row_of, largest[c.beamlet], threshold, runs, levels, run_row + run, run_length + run,
         level + level_start[c.beamlet] + size[1]);
}

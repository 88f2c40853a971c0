// CUDA `superpose`: see kernels/contract.py, and kernels/reference/superpose.py, which says the same plainly.
// Compiled with COMPONENTS, GROUPS, N_TERMS (the tilt polynomial's) and SERIES_BELOW.
//
// A thread carries one line of one direction from plane to plane, its components in registers. Lines are closed: one that
// leaves the grid on one side goes on as the empty one that enters on the other, so that n_rows * n_columns threads visit
// every voxel once, all take n_planes steps, and neighbours read neighbouring columns. Each direction of a launch adds to a
// volume of its own: no two threads ever meet in a voxel, and sums keep their order.

#include "path_terms.h"

#define KERNEL (GROUPS * N_TERMS * COMPONENTS)
#define RUN (KERNEL % 4 == 0 ? 4 : 1)  // kernels are read so many numbers at a time

struct alignas(4 * RUN) Run {
    float value[RUN];
};

struct Box {
    // Address and strides (in floats) of a beam's energies; first and one past the last plane, row, column; as written by
    // the launcher. `address` + (plane, row, column) . strides is a voxel's first group.
    long long address, plane_stride, row_stride, group_stride, origin, plane, plane_end, row, row_end, column, column_end;
};

__device__ static const float *energy_at(const Box &box, int plane, int row, int column) {
    return reinterpret_cast<const float *>(box.address) +
           (plane * box.plane_stride + row * box.row_stride + column - box.origin);
}

// [outer][y][x] to [outer][x][y], one thread a word.
extern "C" __global__ void turn(const unsigned *__restrict__ from, int n_outer, int n_y, int n_x, unsigned *__restrict__ to) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (own >= (long long)n_outer * n_y * n_x) return;
    const int x = own % n_x, y = own / n_x % n_y, outer = own / n_x / n_y;
    to[((long long)outer * n_x + x) * n_y + y] = from[own];
}

// Bit b % 32 of lit[b / 32][voxel]: whether beam b releases anything there. One thread a voxel, boxes as [z][y][x].
extern "C" __global__ void find_lit(const long long *__restrict__ boxes, int n_beams, int n_z, int n_y, int n_x,
                                    unsigned *__restrict__ lit) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    const long long n_voxels = (long long)n_z * n_y * n_x;
    if (own >= n_voxels) return;
    const int x = own % n_x, y = own / n_x % n_y, z = own / n_x / n_y;
    for (int first = 0; first < n_beams; first += 32) {
        unsigned bits = 0;
        for (int b = first; b < min(first + 32, n_beams); ++b) {
            const Box &box = reinterpret_cast<const Box *>(boxes)[b];
            if (z < box.plane || z >= box.plane_end || y < box.row || y >= box.row_end) continue;
            if (x < box.column || x >= box.column_end) continue;
            const float *energy = energy_at(box, z, y, x);
            for (int g = 0; g < GROUPS; ++g)
                if (energy[g * box.group_stride] != 0) bits |= 1u << (b - first);
        }
        lit[first / 32 * n_voxels + own] = bits;
    }
}

// Adds what one beam releases in a voxel into this direction, component by component.
__device__ static void add_source(const Box &box, const float *__restrict__ affine, const float *__restrict__ kernel, int plane,
                                  int row, int column, float *source) {
    const float x = affine[0] + plane * affine[1] + row * affine[2] + column * affine[3];
    const float y = affine[4] + plane * affine[5] + row * affine[6] + column * affine[7];
    const float z = affine[8] + plane * affine[9] + row * affine[10] + column * affine[11];
    const float u = x / z, v = y / z;
    const float terms[N_TERMS] = {1, u, v, u * u, u * v, v * v};
    const float *energy = energy_at(box, plane, row, column);
    float parts[GROUPS * N_TERMS];
#pragma unroll
    for (int n = 0; n < GROUPS * N_TERMS; ++n) parts[n] = energy[n / N_TERMS * box.group_stride] * terms[n % N_TERMS];
#pragma unroll
    for (int n = 0; n < KERNEL; n += RUN) {
        const Run run = reinterpret_cast<const Run *>(kernel)[n / RUN];
#pragma unroll
        for (int j = 0; j < RUN; ++j) source[(n + j) % COMPONENTS] += parts[(n + j) / COMPONENTS] * run.value[j];
    }
}

// A thread carries one line (x) of one direction (y). steps [direction][row, column][plane]: shifts on entering a plane;
// path [direction]: smallest exponent times the length in a voxel; kernels [direction][beam][group][term][component].
extern "C" __global__ void sweep(const float *__restrict__ density, const unsigned *__restrict__ lit,
                                 const long long *__restrict__ boxes, const float *__restrict__ affine,
                                 const float *__restrict__ kernels, int n_beams, const signed char *__restrict__ steps,
                                 const int *__restrict__ forward, const float *__restrict__ path, int n_planes, int n_rows,
                                 int n_columns, int plane_stride, int row_stride, float *__restrict__ volumes) {
    const int line = blockIdx.x * blockDim.x + threadIdx.x, direction = blockIdx.y;
    if (line >= n_rows * n_columns) return;
    const long long n_voxels = (long long)n_planes * n_rows * n_columns;
    const signed char *row_step = steps + 2LL * direction * n_planes, *column_step = row_step + n_planes;
    const float *direction_kernels = kernels + (long long)direction * n_beams * KERNEL, along = path[direction];
    const bool upwards = forward[direction] != 0;
    float *volume = volumes + direction * n_voxels;
    float state[COMPONENTS] = {};
    bool carries = false;
    int row = line / n_columns, column = line % n_columns;
    for (int n = 0; n < n_planes; ++n) {
        row += row_step[n];
        column += column_step[n];
        if (row < 0 || row >= n_rows || column < 0 || column >= n_columns) {
            row += row < 0 ? n_rows : row >= n_rows ? -n_rows : 0;
            column += column < 0 ? n_columns : column >= n_columns ? -n_columns : 0;
            carries = false;
#pragma unroll
            for (int i = 0; i < COMPONENTS; ++i) state[i] = 0;
        }
        const int plane = upwards ? n : n_planes - 1 - n;
        const long long at = (long long)plane * plane_stride + (long long)row * row_stride + column;
        const float rho = density[at];
        if (rho == 0) continue;
        float source[COMPONENTS] = {};
        bool released = false;
        for (int first = 0; first < n_beams; first += 32) {
            unsigned bits = lit[first / 32 * n_voxels + at];
            for (int b = first; bits != 0; ++b, bits >>= 1)
                if (bits & 1) {
                    add_source(reinterpret_cast<const Box *>(boxes)[b], affine + 12 * b, direction_kernels + (long long)b * KERNEL,
                               plane, row, column, source);
                    released = true;
                }
        }
        carries = carries || released;
        if (!carries) continue;
        float m, q, dose = 0;
        path_terms(along * rho, m, q);
#pragma unroll
        for (int i = 0; i < COMPONENTS; ++i) {
            const float here = state[i] * m + source[i] * q;
            dose += here;
            state[i] += source[i] - here;
            // The next exponent is twice as large.
            q += 0.5f * m * (1 - q);
            m *= 2 - m;
        }
        volume[at] += dose;
    }
}

// total [z][y][x] plus all volumes, which lie as [z][y][x] or, `turned`, as [z][x][y]; always in the same order.
extern "C" __global__ void gather(const float *__restrict__ volumes, int n_volumes, int n_z, int n_y, int n_x, int turned,
                                  float *__restrict__ total) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    const long long n_voxels = (long long)n_z * n_y * n_x;
    if (own >= n_voxels) return;
    const int x = own % n_x, y = own / n_x % n_y, z = own / n_x / n_y;
    const long long at = turned ? ((long long)z * n_x + x) * n_y + y : own;
    float sum = 0;
    for (int v = 0; v < n_volumes; ++v) sum += volumes[v * n_voxels + at];
    total[own] += sum;
}

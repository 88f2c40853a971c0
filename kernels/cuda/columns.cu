// CUDA `apply_columns` and `adjoint_columns`: see kernels/contract.py. Compiled with PER_RUN, threads that share a run, and
// PARTS, partial sums of a column.
//
// run_at is each run's first level. Rows of different columns meet, so that what columns give to a row is summed in whole
// numbers of 64 bits: their sum is the same in any order.

__device__ static int column_of(const long long *__restrict__ run_start, int n_columns, long long run) {
    int low = 0, high = n_columns;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (run_start[middle] <= run) low = middle;
        else high = middle;
    }
    return low;
}

// sums[row] += round(factor[column] * level), PER_RUN threads a run. factor carries the unit of the whole numbers.
extern "C" __global__ void add_runs(const long long *__restrict__ run_start, int n_columns, long long n_runs,
                                    const long long *__restrict__ run_at, const int *__restrict__ run_row,
                                    const unsigned short *__restrict__ run_length, const unsigned short *__restrict__ level,
                                    const double *__restrict__ factor, unsigned long long *__restrict__ sums) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x, run = own / PER_RUN;
    if (run >= n_runs) return;
    const double by = factor[column_of(run_start, n_columns, run)];
    if (by == 0) return;
    const unsigned short *levels = level + run_at[run];
    unsigned long long *rows = sums + run_row[run];
    for (int i = own % PER_RUN; i < run_length[run]; i += PER_RUN)
        atomicAdd(rows + i, (unsigned long long)llrint(by * levels[i]));
}

// out[row] = unit * sums[row].
extern "C" __global__ void to_float(const unsigned long long *__restrict__ sums, double unit, int n_rows,
                                    float *__restrict__ out) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < n_rows) out[row] = (float)(unit * (double)(long long)sums[row]);
}

// part[column][p]: level . gradient over the column's runs p, p + PARTS, ...
extern "C" __global__ void dot_runs(const long long *__restrict__ run_start, int n_columns,
                                    const long long *__restrict__ run_at, const int *__restrict__ run_row,
                                    const unsigned short *__restrict__ run_length, const unsigned short *__restrict__ level,
                                    const float *__restrict__ gradient, double *__restrict__ part) {
    const long long own = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (own >= (long long)n_columns * PARTS) return;
    const int column = own / PARTS;
    double total = 0;
    for (long long run = run_start[column] + own % PARTS; run < run_start[column + 1]; run += PARTS) {
        const unsigned short *levels = level + run_at[run];
        const float *rows = gradient + run_row[run];
        float sum = 0;
        for (int i = 0; i < run_length[run]; ++i) sum += rows[i] * levels[i];
        total += sum;
    }
    part[own] = total;
}

// out[column] = scale[column] * the sum of its parts, in their order.
extern "C" __global__ void add_parts(const double *__restrict__ part, const float *__restrict__ scale, int n_columns,
                                     float *__restrict__ out) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= n_columns) return;
    double total = 0;
    for (int p = 0; p < PARTS; ++p) total += part[(long long)column * PARTS + p];
    out[column] = (float)(total * scale[column]);
}

// CUDA `split_field`: see kernels/contract.py. Compiled with SUB, points along each side of a voxel, and without fused
// multiply-add: a point on the edge between two beamlets must fall to the same one on every backend.

struct Field {
    double spacing[3], source[3], axes[9], sad, origin[2], raster[2];  // x, y(, z); mm
};

// Beamlets that share a voxel, in the order in which its points meet them, and the points that each covers.
__device__ static int cover(const Field &f, const float *centre, const int *row_of_y, int n_y, const int *beamlet_of, int n_x,
                            int *beamlet, int *points) {
    int count = 0;
    double middle[3];
    for (int a = 0; a < 3; ++a) {
        middle[a] = (centre[0] - f.source[0]) * f.axes[3 * a] + (centre[1] - f.source[1]) * f.axes[3 * a + 1] +
                    (centre[2] - f.source[2]) * f.axes[3 * a + 2];
    }
    for (int n = 0; n < SUB * SUB * SUB; ++n) {
        const int place[3] = {n % SUB, n / SUB % SUB, n / SUB / SUB};
        double p[3], at[3];
        for (int a = 0; a < 3; ++a) p[a] = f.spacing[a] * ((place[a] + 0.5) / SUB - 0.5);
        for (int a = 0; a < 3; ++a) at[a] = middle[a] + (p[0] * f.axes[3 * a] + p[1] * f.axes[3 * a + 1] + p[2] * f.axes[3 * a + 2]);
        const double scale = -f.sad / at[2], x = at[0] * scale, y = at[1] * scale;
        const double at_x = floor((x - f.origin[0]) / f.raster[0]), at_y = floor((y - f.origin[1]) / f.raster[1]);
        if (!(at_y >= 0 && at_y < n_y && at_x >= 0 && at_x < n_x)) continue;
        const int row = row_of_y[(int)at_y];
        const int own = row < 0 ? -1 : beamlet_of[(long long)row * n_x + (int)at_x];
        if (own < 0) continue;
        int e = 0;
        while (e < count && beamlet[e] != own) ++e;
        if (e == count) {
            beamlet[count] = own;
            points[count++] = 0;
        }
        ++points[e];
    }
    return count;
}

// n_shared[voxel]: how many beamlets share it. One thread a voxel.
extern "C" __global__ void count_shares(const double *__restrict__ field, const float *__restrict__ centre, int n_voxels,
                                        const int *__restrict__ row_of_y, int n_y, const int *__restrict__ beamlet_of, int n_x,
                                        long long *__restrict__ n_shared) {
    const int voxel = blockIdx.x * blockDim.x + threadIdx.x;
    if (voxel >= n_voxels) return;
    int beamlet[SUB * SUB * SUB], points[SUB * SUB * SUB];
    const Field &f = *reinterpret_cast<const Field *>(field);
    n_shared[voxel] = cover(f, centre + 3LL * voxel, row_of_y, n_y, beamlet_of, n_x, beamlet, points);
}

// Writes each voxel's beamlets and fractions from `first` on.
extern "C" __global__ void write_shares(const double *__restrict__ field, const float *__restrict__ centre, int n_voxels,
                                        const int *__restrict__ row_of_y, int n_y, const int *__restrict__ beamlet_of, int n_x,
                                        const long long *__restrict__ first, int *__restrict__ out_beamlet,
                                        float *__restrict__ out_fraction) {
    const int voxel = blockIdx.x * blockDim.x + threadIdx.x;
    if (voxel >= n_voxels) return;
    int beamlet[SUB * SUB * SUB], points[SUB * SUB * SUB];
    const Field &f = *reinterpret_cast<const Field *>(field);
    const int count = cover(f, centre + 3LL * voxel, row_of_y, n_y, beamlet_of, n_x, beamlet, points);
    for (int e = 0; e < count; ++e) {
        out_beamlet[first[voxel] + e] = beamlet[e];
        out_fraction[first[voxel] + e] = (float)(points[e] / (double)(SUB * SUB * SUB));
    }
}

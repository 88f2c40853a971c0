// CUDA `terma`: see kernels/contract.py, and kernels/cpu/terma.py and depth.py, which this follows step by step.
// Lengths in mm unless the name says cm. Compiled with PARALLEL (component of a ray below which it runs along a face), FAR
// (mm, beyond everything) and DUST (part of the map's whole integral: what the difference of large sums leaves behind).

struct Geometry {
    double spacing[3], origin[3], source[3], axes[9], sad;  // x, y, z; rows of axes are beam X, Y and Z towards the source
};

struct Rays {
    double first_x, first_y, step, start, node;
};

struct Faces {
    int index, step;
    double next, apart;
};

// Voxel in which a ray enters along one axis; where its next face lies, how far apart faces are, which way they follow.
__device__ static Faces first_face(const Geometry &g, int axis, int count, double ray, double enter) {
    const double place = (g.source[axis] + enter * ray - g.origin[axis]) / g.spacing[axis] + 0.5;
    const int index = min(max((int)floor(place), 0), count - 1);
    if (fabs(ray) <= PARALLEL) return {index, 0, FAR, FAR};
    const double face = g.origin[axis] + (index - 0.5 + (ray > 0 ? 1 : 0)) * g.spacing[axis];
    return {index, ray > 0 ? 1 : -1, (face - g.source[axis]) / ray, g.spacing[axis] / fabs(ray)};
}

// Steps into the next voxel along one axis; whether it is one of the grid.
__device__ static bool crossed(Faces &faces, int count) {
    faces.index += faces.step;
    faces.next += faces.apart;
    return faces.index >= 0 && faces.index < count;
}

// One thread a ray: the integral of density from the source to each node, from face to face of the voxels (Siddon 1985).
// depth_cm [node][ray y][ray x].
extern "C" __global__ void ray_depths(const float *__restrict__ density, int n_z, int n_y, int n_x,
                                      const double *__restrict__ geometry, const double *__restrict__ rays, int n_ray_y,
                                      int n_ray_x, int n_nodes, float *__restrict__ depth_cm) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x;
    const int n_rays = n_ray_y * n_ray_x;
    if (own >= n_rays) return;
    const Geometry &g = *reinterpret_cast<const Geometry *>(geometry);
    const Rays &r = *reinterpret_cast<const Rays *>(rays);
    const double u = (r.first_x + own % n_ray_x + 0.5) * r.step / g.sad;
    const double v = (r.first_y + own / n_ray_x + 0.5) * r.step / g.sad;
    const int count[3] = {n_x, n_y, n_z};
    double ray[3], enter = 0, leave = FAR;
    bool misses = false;
#pragma unroll
    for (int a = 0; a < 3; ++a) {
        ray[a] = u * g.axes[a] + v * g.axes[3 + a] - g.axes[6 + a];
        const double low = g.origin[a] - 0.5 * g.spacing[a], high = low + count[a] * g.spacing[a];
        if (fabs(ray[a]) <= PARALLEL) {
            misses = misses || g.source[a] <= low || g.source[a] >= high;
            continue;
        }
        const double one = (low - g.source[a]) / ray[a], other = (high - g.source[a]) / ray[a];
        enter = fmax(enter, fmin(one, other));
        leave = fmin(leave, fmax(one, other));
    }
    int n = 0;
    double total = 0;
    const double to_cm = 0.1 * sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]);
    if (!misses && enter < leave) {
        Faces x = first_face(g, 0, n_x, ray[0], enter);
        Faces y = first_face(g, 1, n_y, ray[1], enter);
        Faces z = first_face(g, 2, n_z, ray[2], enter);
        for (; n < n_nodes && r.start + n * r.node <= enter; ++n) depth_cm[(long long)n * n_rays + own] = 0;
        for (double t = enter; t < leave;) {
            const double end = fmin(fmin(x.next, y.next), fmin(z.next, leave));
            const double rho = density[((long long)z.index * n_y + y.index) * n_x + x.index];
            for (; n < n_nodes && r.start + n * r.node <= end; ++n)
                depth_cm[(long long)n * n_rays + own] = (float)((total + (r.start + n * r.node - t) * rho) * to_cm);
            total += (end - t) * rho;
            t = end;
            if (end >= leave) break;
            const bool inside = end == x.next ? crossed(x, n_x) : end == y.next ? crossed(y, n_y) : crossed(z, n_z);
            if (!inside) break;
        }
    }
    for (; n < n_nodes; ++n) depth_cm[(long long)n * n_rays + own] = (float)(total * to_cm);
}

struct Between {
    int low;
    double part;
};

// Interval of an ascending table that a value lies in and the place within, both held inside the table.
__device__ static Between between(const double *__restrict__ table, int n, double value) {
    if (value <= table[0]) return {0, 0.0};
    if (value >= table[n - 1]) return {n - 2, 1.0};
    int low = 0, high = n - 1;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table[middle] <= value) low = middle;
        else high = middle;
    }
    return {low, (value - table[low]) / (table[low + 1] - table[low])};
}

__device__ static double integral(const double *__restrict__ table, int n_x, const Between &x, const Between &y) {
    const double *one = table + (long long)y.low * n_x + x.low, *next = one + n_x;
    const double low = one[0] * (1 - x.part) + one[1] * x.part, high = next[0] * (1 - x.part) + next[1] * x.part;
    return low * (1 - y.part) + high * y.part;
}

// Mean of the map over a rectangle centred on (x, y); zero outside the map.
__device__ static double mean_fluence(const double *__restrict__ x_edges, int n_x, const double *__restrict__ y_edges,
                                      int n_y, const double *__restrict__ table, double x, double y, double width_x,
                                      double width_y) {
    if (x + width_x / 2 <= x_edges[0] || x - width_x / 2 >= x_edges[n_x - 1]) return 0;
    if (y + width_y / 2 <= y_edges[0] || y - width_y / 2 >= y_edges[n_y - 1]) return 0;
    const Between x1 = between(x_edges, n_x, x - width_x / 2), x2 = between(x_edges, n_x, x + width_x / 2);
    const Between y1 = between(y_edges, n_y, y - width_y / 2), y2 = between(y_edges, n_y, y + width_y / 2);
    const double total = integral(table, n_x, x2, y2) - integral(table, n_x, x1, y2) + integral(table, n_x, x1, y1) -
                         integral(table, n_x, x2, y1);
    // Rounding dust would release energy far outside the field.
    if (total <= DUST * table[(long long)n_x * n_y - 1]) return 0;
    return total / (width_x * width_y);
}

__device__ static double depth_at(const float *__restrict__ depth_cm, const Rays &r, int n_y, int n_x, int n_nodes, double x,
                                  double y, double along) {
    const double px = fmin(fmax(x / r.step - 0.5 - r.first_x, 0.0), n_x - 1.0);
    const double py = fmin(fmax(y / r.step - 0.5 - r.first_y, 0.0), n_y - 1.0);
    const double pn = fmin(fmax((along - r.start) / r.node, 0.0), n_nodes - 1.0);
    const int jx = min((int)px, n_x - 2), jy = min((int)py, n_y - 2), n = min((int)pn, n_nodes - 2);
    const double fx = px - jx, fy = py - jy, fn = pn - n;
    double plane[2];
    for (int k = 0; k < 2; ++k) {
        const float *low = depth_cm + ((long long)(n + k) * n_y + jy) * n_x + jx, *high = low + n_x;
        plane[k] = (1 - fy) * ((1 - fx) * low[0] + fx * low[1]) + fy * ((1 - fx) * high[0] + fx * high[1]);
    }
    return (1 - fn) * plane[0] + fn * plane[1];
}

// One thread a voxel of the lit box: energy released by each group, out [group][z][y][x] of the box.
extern "C" __global__ void release(const float *__restrict__ density, int n_y, int n_x, const double *__restrict__ geometry,
                                   const double *__restrict__ x_edges, int n_x_edges, const double *__restrict__ y_edges,
                                   int n_y_edges, const double *__restrict__ fluence, const float *__restrict__ depth_cm,
                                   const double *__restrict__ rays, int n_ray_y, int n_ray_x, int n_nodes,
                                   const double *__restrict__ terma_per_cm, int n_groups, int n_depths, double depth_step,
                                   const double *__restrict__ softening_radius, int n_softening,
                                   const double *__restrict__ off_axis_radius, const double *__restrict__ off_axis_factor,
                                   int n_off_axis, int first_z, int first_y, int first_x, int box_z, int box_y, int box_x,
                                   float *__restrict__ out) {
    const int own = blockIdx.x * blockDim.x + threadIdx.x;
    const int n_voxels = box_z * box_y * box_x;
    if (own >= n_voxels) return;
    for (int k = 0; k < n_groups; ++k) out[(long long)k * n_voxels + own] = 0;
    const Geometry &g = *reinterpret_cast<const Geometry *>(geometry);
    const Rays &r = *reinterpret_cast<const Rays *>(rays);
    const int ix = first_x + own % box_x, iy = first_y + own / box_x % box_y, iz = first_z + own / box_x / box_y;
    const float rho = density[((long long)iz * n_y + iy) * n_x + ix];
    if (rho == 0) return;
    const double dx = g.origin[0] + ix * g.spacing[0] - g.source[0], dy = g.origin[1] + iy * g.spacing[1] - g.source[1];
    const double dz = g.origin[2] + iz * g.spacing[2] - g.source[2];
    const double away = -(g.axes[6] * dx + g.axes[7] * dy + g.axes[8] * dz);
    if (away <= 0) return;
    const double slope_x = (g.axes[0] * dx + g.axes[1] * dy + g.axes[2] * dz) / away;
    const double slope_y = (g.axes[3] * dx + g.axes[4] * dy + g.axes[5] * dz) / away;
    // Shadow of the voxel on the isocentre plane, as the box with the same variance.
    double width_x = 0, width_y = 0;
    for (int a = 0; a < 3; ++a) {
        const double along_x = (g.axes[a] + slope_x * g.axes[6 + a]) * g.spacing[a];
        const double along_y = (g.axes[3 + a] + slope_y * g.axes[6 + a]) * g.spacing[a];
        width_x += along_x * along_x;
        width_y += along_y * along_y;
    }
    const double scale = g.sad / away, x = slope_x * g.sad, y = slope_y * g.sad;
    const double mean = mean_fluence(x_edges, n_x_edges, y_edges, n_y_edges, fluence, x, y, scale * sqrt(width_x),
                                     scale * sqrt(width_y));
    if (mean == 0) return;
    const double depth = depth_at(depth_cm, r, n_ray_y, n_ray_x, n_nodes, x, y, away) / depth_step;
    const int low = min((int)depth, n_depths - 2);
    const double fd = fmin(depth - low, 1.0), radius = sqrt(x * x + y * y);
    const Between o = between(off_axis_radius, n_off_axis, radius), s = between(softening_radius, n_softening, radius);
    const double off_axis = (1 - o.part) * off_axis_factor[o.low] + o.part * off_axis_factor[o.low + 1];
    const double common = rho * mean * off_axis * g.sad * g.sad / (dx * dx + dy * dy + dz * dz);
    for (int k = 0; k < n_groups; ++k) {
        const double *inner = terma_per_cm + ((long long)s.low * n_groups + k) * n_depths + low;
        const double *outer = inner + (long long)n_groups * n_depths;
        const double value = (1 - s.part) * ((1 - fd) * inner[0] + fd * inner[1]) + s.part * ((1 - fd) * outer[0] + fd * outer[1]);
        out[(long long)k * n_voxels + own] = (float)(common * value);
    }
}

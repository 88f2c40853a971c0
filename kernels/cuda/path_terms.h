// What a component leaves in a voxel whose path times its exponent is y: m = 1 - e^-y of what arrives, q = 1 - m / y of what
// is released on the way. Compiled with SERIES_BELOW, above which q loses nothing by the subtraction.
#pragma once

__device__ static void path_terms(float y, float &m, float &q) {
    if (y < (float)SERIES_BELOW) {
        const float half = y * 0.5f, third = y * (1.f / 3), quarter = y * 0.25f, fifth = y * 0.2f, sixth = y * (1.f / 6);
        const float tail = 1 - quarter * (1 - fifth * (1 - sixth));
        m = y * (1 - half * (1 - third * tail));
        q = half * (1 - third * (1 - quarter * (1 - fifth * (1 - sixth * (1 - y * (1.f / 7))))));
    } else {
        m = -expm1f(-y);
        q = 1 - m / y;
    }
}

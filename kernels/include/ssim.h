// library: ops
// Structural similarity (Wang et al. 2004) of channels-last images, with a Gaussian window of 11 x 11 and sigma 1.5 over each channel.
#pragma once
#include "k.h"

// With moments under the window w (whose weights sum to 1; outside of the image all values are 0)
//   mx = sum w x    my = sum w y    vx = sum w x^2 - mx^2    vy = sum w y^2 - my^2    cxy = sum w x y - mx my
//   map = (2 mx my + 0.01^2) (2 cxy + 0.03^2) / ((mx^2 + my^2 + 0.01^2) (vx + vy + 0.03^2))
// at every pixel and channel, and what the gradient needs: the derivatives of map after mx, after sum w x^2, after sum w x y.
//   map, x, y: [B, H, W, C] f32    partials: [3, B, H, W, C] f32, or 0 where it is not wanted
K_API int32_t k_ssim_fwd(uint64_t map, uint64_t partials, uint64_t x, uint64_t y, int32_t B, int32_t H, int32_t W, int32_t C,
                         uint64_t stream);

// dx = w * (dmap p0) + 2 x (w * (dmap p1)) + y (w * (dmap p2)), where * is the windowed sum and p the partials.
//   dx, dmap, x, y: [B, H, W, C] f32
K_API int32_t k_ssim_bwd(uint64_t dx, uint64_t dmap, uint64_t partials, uint64_t x, uint64_t y, int32_t B, int32_t H, int32_t W, int32_t C,
                         uint64_t stream);

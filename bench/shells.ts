/** Sphere shells: the sets of voxels that sparse kernels are timed on. */

/** Rows of (sample, x, y, z): sample b is the shell, 1.25 cells thick, of the sphere that fills a grid of `sides[b]`³, in ascending order. */
export function shells(sides: number[]): Int32Array<ArrayBuffer> {
  const rows: number[] = [];
  sides.forEach((side, b) => {
    const middle = (side - 1) / 2, inner = (side / 2 - 1.25) ** 2, outer = (side / 2) ** 2;
    for (let x = 0; x < side; x++) {
      for (let y = 0; y < side; y++) {
        const flat = (x - middle) ** 2 + (y - middle) ** 2;
        if (flat > outer) continue;
        for (let z = 0; z < side; z++) {
          const square = flat + (z - middle) ** 2;
          if (square >= inner && square <= outer) rows.push(b, x, y, z);
        }
      }
    }
  });
  return Int32Array.from(rows);
}

/** How a surface passes through a cube, for each of the 256 ways its corners can be inside or outside; derived, not typed in. */

/** Marks an edge without a patch and a case without a doubtful face. */
export const NONE = 255;

/** What {@linkcode patchTable} derives. */
export interface PatchTable {
  /** [256,12]: the patch that an edge belongs to in a case, NONE where the surface does not cross the edge. */
  patchOf: Uint8Array;
  /** [256]: sheets of the surface in a case, 0 to 4. */
  patches: Uint8Array;
  /** [256]: the face `2 axis + side` through which a case of one patch must not meet its like, NONE for other cases. */
  doubtfulFace: Uint8Array;
}

/**
 * Corners of the cube's 12 edges, [low, high]. Corner c has bit 0 at high x, bit 1 at high y, bit 2 at high z; edge `4 axis + u + 2 v` runs
 * along axis from the corner with u and v on the next two axes in the order x, y, z, x.
 */
export const EDGE_CORNERS: readonly (readonly [number, number])[] = Array.from({ length: 12 }, (_, e) => {
  const axis = e >> 2, low = ((e & 1) << ((axis + 1) % 3)) | (((e >> 1) & 1) << ((axis + 2) % 3));
  return [low, low | (1 << axis)] as const;
});

/**
 * Sheets of the surface in a cube whose corner c is inside where bit c of the case is set. On each face the crossed edges are joined in pairs:
 * the only two, or, of four, the two at each inside corner; edges that hang together are one patch.
 *
 * A face of four crossed edges is ambiguous. Where a case has one such face and one patch, two cubes of that kind on either side of the face
 * would share an edge of four quads; both then take the complementary case, in which the sheets are apart (the dual marching cubes rule of
 * Wenger, Isosurfaces, 2013).
 */
export function patchTable(): PatchTable {
  const patchOf = new Uint8Array(256 * 12).fill(NONE), patches = new Uint8Array(256), doubtfulFace = new Uint8Array(256).fill(NONE);
  for (let id = 0; id < 256; id++) {
    const label = Array.from({ length: 12 }, (_, e) => e);
    const join = (a: number, b: number): void => {
      const from = label[b], to = label[a];
      for (let e = 0; e < 12; e++) if (label[e] === from) label[e] = to;
    };
    const ambiguous: number[] = [];
    for (let face = 0; face < 6; face++) {
      const crossed = faceEdges(face).filter((e) => isCrossed(id, e));
      if (crossed.length === 2) join(crossed[0], crossed[1]);
      if (crossed.length !== 4) continue;
      ambiguous.push(face);
      for (let corner = 0; corner < 8; corner++) {
        if (!isInside(id, corner)) continue;
        const [a, b] = crossed.filter((e) => EDGE_CORNERS[e].includes(corner));
        if (a !== undefined) join(a, b);
      }
    }
    const labels: number[] = [];
    for (let e = 0; e < 12; e++) {
      if (!isCrossed(id, e)) continue;
      if (!labels.includes(label[e])) labels.push(label[e]);
      patchOf[id * 12 + e] = labels.indexOf(label[e]);
    }
    patches[id] = labels.length;
    if (ambiguous.length === 1 && labels.length === 1) doubtfulFace[id] = ambiguous[0];
  }
  return { patchOf, patches, doubtfulFace };
}

function faceEdges(face: number): number[] {
  const axis = face >> 1, side = face & 1;
  return EDGE_CORNERS.flatMap((corners, e) => corners.every((c) => ((c >> axis) & 1) === side) ? [e] : []);
}

function isCrossed(id: number, edge: number): boolean {
  return isInside(id, EDGE_CORNERS[edge][0]) !== isInside(id, EDGE_CORNERS[edge][1]);
}

function isInside(id: number, corner: number): boolean {
  return ((id >> corner) & 1) === 1;
}

import assert from "node:assert/strict";
import { layOut, type Lifetime } from "../../lib/memory/layout.ts";
import { random } from "../check.ts";

/** Throws where two of them meet, and says the most bytes that live at once. */
function checked(lifetimes: Lifetime[], alignment: number): { total: number; most: number } {
  const { offsets, total } = layOut(lifetimes, alignment);
  let most = 0;
  lifetimes.forEach((a, i) => {
    assert.equal(offsets[i] % alignment, 0);
    assert.ok(offsets[i] + a.bytes <= total);
    let living = 0;
    lifetimes.forEach((b, k) => {
      if (b.from <= a.from && a.from < b.to) living += b.bytes;
      if (i === k || a.to <= b.from || b.to <= a.from) return;
      assert.ok(offsets[i] + a.bytes <= offsets[k] || offsets[k] + b.bytes <= offsets[i], `${i} and ${k} meet`);
    });
    most = Math.max(most, living);
  });
  return { total, most };
}

Deno.test("layOut() gives memory that is free again to others, and aligns it", () => {
  assert.deepEqual(layOut([]), { offsets: [], total: 0 });
  const lifetimes = [{ bytes: 100, from: 0, to: 1 }, { bytes: 100, from: 2, to: 4 }, { bytes: 10, from: 3, to: Infinity }];
  assert.deepEqual(layOut(lifetimes), { offsets: [0, 0, 512], total: 522 });
});

Deno.test("layOut() keeps apart what lives at once, and takes little more than that", () => {
  const draws = random(1, 3000),
    lifetimes = Array.from({ length: 1000 }, (_, i): Lifetime => {
      const [size, from, length] = [0, 1, 2].map((k) => (draws[3 * i + k] + 1) / 2);
      return {
        bytes: Math.ceil(2 ** (20 * size)),
        from: Math.floor(2000 * from),
        to: Math.floor(2000 * from) + 1 + Math.floor(100 * length),
      };
    });
  const { total, most } = checked(lifetimes, 512);
  assert.ok(total <= 1.15 * most, `${total} bytes where ${most} live at once`);
});

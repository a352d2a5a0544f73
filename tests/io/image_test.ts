import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import jpeg from "jpeg-js";
import { cropImage, encodePng, type Image, imageGrid, readImage, resizeImage, writePng } from "../../lib/io/image.ts";
import { assertRefused, latin1, withFolder } from "./corrupt.ts";

const IMAGE: Image = { width: 3, height: 2, channels: 4, data: Uint8Array.from({ length: 24 }, (_, i) => 10 * i) };

Deno.test("readImage() reads back what writePng() wrote", () => {
  withFolder((folder) => {
    writePng(`${folder}/a.png`, IMAGE);
    assert.deepEqual(readImage(`${folder}/a.png`), IMAGE);
    assert.equal([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("readImage() goes by content, not by name", () => {
  withFolder((folder) => {
    Deno.writeFileSync(`${folder}/a.jpg`, encodePng(IMAGE));
    assert.deepEqual(readImage(`${folder}/a.jpg`), IMAGE);
    Deno.writeFileSync(`${folder}/b.png`, jpeg.encode({ width: 3, height: 2, data: IMAGE.data }, 90).data);
    assert.deepEqual([readImage(`${folder}/b.png`).width, readImage(`${folder}/b.png`).channels], [3, 3]);
  });
});

Deno.test("readImage() refuses other files and too many pixels", () => {
  const bytes = new Uint8Array(encodePng(IMAGE));
  assertRefused(() => readImage(bytes, { maxPixels: 5 }), "Cannot read image data: the image has 3 x 2 pixels, it must have at most 5");
  for (const other of [new Uint8Array(), latin1("GIF89a"), latin1("RIFF....WEBP")]) {
    assertRefused(() => readImage(other), "it is no image that is known here, it must be PNG or JPEG");
  }
  assertRefused(() => readImage("/nowhere/a.png"), "there is no such file");
});

const FOLDER = new URL("../../../shared/data/images/", import.meta.url).pathname;
const hasImages = existsSync(FOLDER);

Deno.test({
  name: "readImage(), cropImage(), resizeImage() and imageGrid() take real pictures" + (hasImages ? "" : " (skipped: they are not here)"),
  ignore: !hasImages,
  fn() {
    const names = [...Deno.readDirSync(FOLDER)].map((entry) => entry.name).filter((name) => name.endsWith(".png")).slice(0, 3);
    const small = names.map((name) => {
      const image = readImage(FOLDER + name);
      const side = Math.max(image.width, image.height);
      return resizeImage(cropImage(image, [0, 0, side, side]), { width: 64, height: 64 });
    });
    const grid = imageGrid(small, { columns: 3, padding: 2 });
    assert.deepEqual([grid.width, grid.height], [200, 68]);
    assert.ok(grid.data.some((value) => value > 0));
  },
});

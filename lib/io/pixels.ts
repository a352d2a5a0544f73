/** Images in memory: what they are, cutting and joining them. */

/** An 8-bit image: rows from the top, `channels` bytes a pixel: grey, RGB or RGBA. */
export interface Image {
  width: number;
  height: number;
  channels: 1 | 3 | 4;
  /** [height, width, channels] */
  data: Uint8Array<ArrayBuffer>;
}

/** 64 Mi pixels: the largest image that is read or made unless the caller says otherwise. */
export const MAX_PIXELS = 1 << 26;

/** Throws where a size is not whole, not positive or too large; `action` begins the message: `Cannot <action>: ...`. */
export function checkSize(action: string, width: number, height: number, maxPixels: number = MAX_PIXELS): void {
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw new Error(`Cannot ${action}: the image is ${width} x ${height}, both must be whole numbers from 1`);
  }
  if (width * height > maxPixels) {
    throw new Error(`Cannot ${action}: the image has ${width} x ${height} pixels, it must have at most ${maxPixels}`);
  }
}

/** Throws where the fields of `image` contradict each other. */
export function checkImage(action: string, { width, height, channels, data }: Image): void {
  checkSize(action, width, height);
  if (![1, 3, 4].includes(channels)) throw new Error(`Cannot ${action}: the image has ${channels} channels, it must have 1, 3 or 4`);
  if (data.length !== width * height * channels) {
    throw new Error(
      `Cannot ${action}: the image has ${data.length} bytes, ${width} x ${height} x ${channels} takes ${width * height * channels}`,
    );
  }
}

/** Pixel edges: left, top, right, bottom; the last two are outside. */
export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** The part of `image` inside `box`. The box may reach beyond the image: there the result is (transparent) black. */
export function cropImage(image: Image, [x0, y0, x1, y1]: Box): Image {
  checkImage("crop an image", image);
  checkSize("crop an image", x1 - x0, y1 - y0);
  const out = blank(x1 - x0, y1 - y0, image.channels);
  paste(out, image, -x0, -y0);
  return out;
}

/** How `imageGrid` arranges images. */
export interface GridOptions {
  /** Images in a row. Default: as square a grid as possible. */
  columns?: number;
  /** Pixels between images and around them. Default 0. */
  padding?: number;
}

/** One image out of several of the same size, row by row; gaps are (transparent) black. */
export function imageGrid(
  images: readonly Image[],
  { columns = Math.ceil(Math.sqrt(images.length)), padding = 0 }: GridOptions = {},
): Image {
  if (images.length === 0) throw new Error("Cannot make an image grid: there is no image, there must be at least one");
  const { width, height, channels } = images[0];
  for (const image of images) {
    checkImage("make an image grid", image);
    if (image.width !== width || image.height !== height || image.channels !== channels) {
      const got = `${image.width} x ${image.height} x ${image.channels}`;
      throw new Error(`Cannot make an image grid: an image is ${got}, it must be ${width} x ${height} x ${channels} as the first`);
    }
  }
  const rows = Math.ceil(images.length / columns);
  const outWidth = columns * (width + padding) + padding, outHeight = rows * (height + padding) + padding;
  checkSize("make an image grid", outWidth, outHeight);
  const out = blank(outWidth, outHeight, channels);
  images.forEach((image, i) => {
    paste(out, image, padding + (i % columns) * (width + padding), padding + Math.floor(i / columns) * (height + padding));
  });
  return out;
}

function blank(width: number, height: number, channels: Image["channels"]): Image {
  return { width, height, channels, data: new Uint8Array(width * height * channels) };
}

/** Copies `image` to (x, y) of `out`, as far as it lies inside. */
function paste(out: Image, image: Image, x: number, y: number): void {
  const from = Math.max(0, -x), to = Math.min(image.width, out.width - x), C = image.channels;
  for (let row = Math.max(0, -y); row < Math.min(image.height, out.height - y) && from < to; row++) {
    const line = image.data.subarray((row * image.width + from) * C, (row * image.width + to) * C);
    out.data.set(line, ((y + row) * out.width + x + from) * C);
  }
}
